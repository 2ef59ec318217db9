"""The simulator's error answers: OpenAI's envelope, codes and wording, where a flavor says nothing else.

Wording is what live responses showed (read in the OpenAI docs, SDK 3.54 and user reports, November 2026); where none
was seen the code is right and the words are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An answer other than 2xx: HTTP status and envelope; `fields` holds `param`, `code`, `type` where not null.

    `beside` are keys next to `error` in the body, `headers` extra response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        beside: Mapping[str, Any] | None = None,
        **fields: str | None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.error: dict[str, Any] = {
            "message": message,
            "type": fields.get("type") or "invalid_request_error",
            "param": fields.get("param"),
            "code": fields.get("code"),
        }
        self.body: dict[str, Any] = {"error": self.error, **(beside or {})}


_STATUSES: Mapping[int, tuple[str, str, str | None]] = {
    400: ("Simulated: the request is invalid.", "invalid_request_error", "invalid_value"),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("Simulated: the project does not have access.", "invalid_request_error", "permission_denied"),
    404: ("Simulated: the model does not exist.", "invalid_request_error", "model_not_found"),
    408: ("Simulated: the request timed out.", "server_error", "request_timeout"),
    429: ("Rate limit reached. Please try again later.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error", "server_error"),
    503: ("The engine is currently overloaded, please try again later.", "server_error", "server_error"),
}


def status_error(status: int, headers: Mapping[str, str] | None = None) -> ApiError:
    """The usual error of an HTTP status."""
    fallback = 400 if status < 500 else 500
    message, kind, code = _STATUSES.get(status, _STATUSES[fallback])
    return ApiError(status, message, headers=headers, type=kind, code=code)


def filtered() -> ApiError:
    """The refusal of a prompt by a content filter, as Azure words it for single requests (read November 2026)."""
    text = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry."
    )
    error = ApiError(400, text, param="prompt", code="content_filter")
    verdict = {"filtered": True, "severity": "high"}
    error.error["type"] = None
    error.error["status"] = 400
    error.error["innererror"] = {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": False, "severity": "safe"}, "violence": verdict},
    }
    return error


def missing(name: str) -> ApiError:
    """The refusal of a request without this parameter."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def wrong_type(name: str, expected: str, value: object) -> ApiError:
    """The refusal of a parameter that is another kind of JSON than `expected` ("a string")."""
    return ApiError(
        400,
        f"Invalid type for '{name}': expected {expected}, but got {json_kind(value)} instead.",
        param=name,
        code="invalid_type",
    )


def wrong_value(name: str, value: object, supported: tuple[str, ...]) -> ApiError:
    """The refusal of a value that is not among those supported, which it lists."""
    listed = ", ".join(f"'{each}'" for each in supported[:-1])
    listed = f"{listed}, and '{supported[-1]}'" if listed else f"'{supported[-1]}'"
    return ApiError(400, f"Invalid value: '{value}'. Supported values are: {listed}.", param=name, code="invalid_value")


def out_of_range(name: str, value: float, low: float, high: float) -> ApiError:
    """A number below or above what is allowed; OpenAI names the kind of number in the code."""
    kind = "integer" if isinstance(value, int) else "decimal"
    side, bound, code = (
        ("below minimum", f">= {low}", f"{kind}_below_min_value")
        if value < low
        else ("above maximum", f"<= {high}", f"{kind}_above_max_value")
    )
    return ApiError(
        400,
        f"Invalid '{name}': {kind} {side} value. Expected a value {bound}, but got {value} instead.",
        param=name,
        code=code,
    )


def not_found(kind: str, identity: str) -> ApiError:
    """The 404 for an id that is unknown or gone."""
    if kind == "batch":
        return ApiError(404, f"No batch found with id '{identity}'.")
    return ApiError(404, f"No such {kind} object: {identity}", param="id")


_KINDS = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a decimal"),
    (str, "a string"),
    (list, "an array"),
    (dict, "an object"),
)


def json_kind(value: object) -> str:
    """What a JSON value is, in OpenAI's words."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")
