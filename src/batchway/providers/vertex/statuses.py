"""Google's canonical errors: from a code, a name or the text of a failed row to an HTTP status; pure.

Source: google.rpc.Code and google.rpc.Status (googleapis, read November 2026). The text of a row's `status` has no
documented form: it holds an error as JSON, or begins with an error class, or only says something.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

import msgspec

# google.rpc.Code -> (name, HTTP status)
CODES = {
    1: ("CANCELLED", 499),
    2: ("UNKNOWN", 500),
    3: ("INVALID_ARGUMENT", 400),
    4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404),
    6: ("ALREADY_EXISTS", 409),
    7: ("PERMISSION_DENIED", 403),
    8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400),
    10: ("ABORTED", 409),
    11: ("OUT_OF_RANGE", 400),
    12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500),
    14: ("UNAVAILABLE", 503),
    15: ("DATA_LOSS", 500),
    16: ("UNAUTHENTICATED", 401),
}
HTTP_OF = dict(CODES.values())
NAME_OF = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
LONGEST = 2_000  # characters of a row's status that are shown
_NAMED = re.compile(rf"\b({'|'.join(HTTP_OF)})\b")
_NUMBERED = re.compile(r"\b([45]\d\d)\b")
_PLAIN = (("bad request", 400), ("invalid argument", 400), ("quota", 429), ("too many requests", 429))


class Failure(NamedTuple):
    """Why a row or a job failed: HTTP status, Google's name for it, what was said."""

    status: int
    name: str
    message: str


def of_text(text: str) -> Failure:
    """What the `status` of a failed row says; 500 when it names no error."""
    brace = text.find("{")
    if brace >= 0 and (found := _of_json(text[brace : text.rfind("}") + 1])):
        return found
    shown = text.strip()[:LONGEST]
    if named := _NAMED.search(text):
        return Failure(HTTP_OF[named[1]], named[1], shown)
    if numbered := _NUMBERED.search(text):
        return _of_http(int(numbered[1]), shown)
    lower = text.lower()
    return _of_http(next((status for word, status in _PLAIN if word in lower), 500), shown)


def of_rpc(code: int, message: str) -> Failure:
    """What a `google.rpc.Status` says."""
    name, status = CODES.get(code, ("UNKNOWN", 500))
    return Failure(status, name, message[:LONGEST])


def _of_http(status: int, message: str) -> Failure:
    return Failure(status, NAME_OF.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"), message)


def _of_json(text: str) -> Failure | None:
    """A Status as JSON, alone or under `error`; its code is HTTP's or gRPC's."""
    try:
        parsed: object = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    if not isinstance(parsed, dict):
        return None
    outer = cast("dict[str, Any]", parsed)
    inner: object = outer.get("error", outer)
    if not isinstance(inner, dict):
        return None
    error = cast("dict[str, Any]", inner)
    message = str(error.get("message") or text)[:LONGEST]
    name, code = error.get("status"), error.get("code")
    if isinstance(name, str) and name in HTTP_OF:
        return Failure(HTTP_OF[name], name, message)
    if isinstance(code, int) and code in CODES:
        return of_rpc(code, message)
    return _of_http(code, message) if isinstance(code, int) and 400 <= code < 600 else None
