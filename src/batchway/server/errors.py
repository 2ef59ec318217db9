"""Every failure as OpenAI's envelope, and nothing of ours leaks: what we did not foresee is a 500 without details."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from batchway.core.errors import (
    BatchwayError,
    ConfigError,
    InvalidFile,
    OverBudget,
    ProviderError,
    RequestError,
    TooMany,
    Unauthenticated,
)
from batchway.storage import StorageError, StorageMissing
from batchway.wire.errors import ErrorBody, ErrorEnvelope, LineFault

SERVER_ERROR = "server_error"
NO_RIGHT_PATH = "Unknown request URL. Please check the URL for typos, or see /docs for the API reference."

encode = msgspec.json.Encoder().encode


def answer(error: Exception) -> Response:
    """The answer for any exception; those not meant for clients become a bare 500."""
    match error:
        case RequestError():
            return _refusal(error)
        case ProviderError():
            body = ErrorBody(message=error.message, type=SERVER_ERROR, code=error.code or "provider_error")
            return render(502, body, _retry_after(error.retry_after))
        case StorageMissing():
            return render(404, ErrorBody(message="The content of this file is gone.", type="invalid_request_error"))
        case StorageError() | ConfigError():
            return _unable(error)
        case HTTPException():
            return _from_starlette(error)
        case _:
            message = "The server had an error while processing your request. Its log tells why, by the request id."
            return render(500, ErrorBody(message=message, type=SERVER_ERROR))


def foreseen(error: Exception) -> bool:
    """True when the answer tells everything and the log needs no traceback."""
    if isinstance(error, StorageError):
        return False
    return isinstance(error, BatchwayError | HTTPException | StorageMissing) and answer(error).status_code != 500


def render(
    status: int, body: ErrorBody, headers: Mapping[str, str] | None = None, faults: Sequence[LineFault] | None = None
) -> Response:
    """One envelope."""
    envelope = ErrorEnvelope(error=body, faults=msgspec.UNSET if faults is None else list(faults))
    return Response(encode(envelope), status, headers, media_type="application/json")


def _unable(error: StorageError | ConfigError) -> Response:
    if isinstance(error, StorageError):
        body = ErrorBody(message="The storage of this gateway is not available now. Try again.", type=SERVER_ERROR)
        return render(503, body, {"retry-after": "5"})
    message = f"This gateway is not set up for it. {error}"  # such as a secret to be sealed where no key is set
    return render(503, ErrorBody(message=message, type=SERVER_ERROR, code="gateway_misconfigured"))


def _refusal(error: RequestError) -> Response:
    headers: dict[str, str] = {}
    if isinstance(error, TooMany):
        headers = _retry_after(error.retry_after)
    if isinstance(error, OverBudget):
        headers = {"x-should-retry": "false"}  # OpenAI's clients heed it
    if isinstance(error, Unauthenticated):
        headers = {"www-authenticate": "Bearer"}
    body = ErrorBody(message=error.message, type=error.type, param=error.param, code=error.code)
    return render(error.status, body, headers, error.faults if isinstance(error, InvalidFile) else None)


def _from_starlette(error: HTTPException) -> Response:
    messages = {404: NO_RIGHT_PATH, 405: "This URL does not support that HTTP method."}
    body = ErrorBody(message=messages.get(error.status_code, error.detail), type="invalid_request_error")
    if error.status_code == 404:
        body.code = "unknown_url"
    return render(error.status_code, body, error.headers)


def _retry_after(seconds: float | None) -> dict[str, str]:
    if seconds is None:
        return {}
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
