"""What a call may raise. The names and attributes are OpenAI's.

APIError                          message, status_code, code, param, type, request_id, body
|- APIStatusError                 the gateway answered with an error
|  |- BadRequestError        400  also raised before anything is sent, when an argument cannot be right
|  |- AuthenticationError    401
|  |- PermissionDeniedError  403
|  |- NotFoundError          404  absent, or somebody else's
|  |- ConflictError          409
|  |- RequestTooLargeError   413
|  |- UnprocessableEntityError 422
|  |- RateLimitError         429
|  '- InternalServerError    5xx
|- APIConnectionError             no answer; `sent` tells whether the gateway may have seen the call
|  '- APITimeoutError
'- BatchFailedError               a batch whose input was refused; `batch.errors` tells every fault
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from batchway.sdk.objects import Batch


class APIError(Exception):
    """The root. `body` is the decoded `error` object of the answer, or None."""

    status_code: int | None = None
    code: str | None = None
    param: str | None = None
    type: str | None = None
    request_id: str | None = None
    body: object = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message if self.request_id is None else f"{self.message} (request id {self.request_id})"


class APIStatusError(APIError):
    """The gateway answered with an error status."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        param: str | None = None,
        body: object = None,
    ) -> None:
        super().__init__(message)
        self.status_code = self.status_code if status_code is None else status_code
        self.code = code
        self.param = param
        self.body = body


class BadRequestError(APIStatusError):
    """Something in the request cannot be right; `param` names it."""

    status_code = 400


class AuthenticationError(APIStatusError):
    """No key, or one that the gateway does not know."""

    status_code = 401


class PermissionDeniedError(APIStatusError):
    """A known key that may not do this."""

    status_code = 403


class NotFoundError(APIStatusError):
    """Absent, or somebody else's."""

    status_code = 404


class ConflictError(APIStatusError):
    """The object is in a state that does not allow this."""

    status_code = 409


class RequestTooLargeError(APIStatusError):
    """More bytes than the gateway takes."""

    status_code = 413


class UnprocessableEntityError(APIStatusError):
    """An Idempotency-Key that was first sent with another body."""

    status_code = 422


class RateLimitError(APIStatusError):
    """Too much at once, also after the retries."""

    status_code = 429


class InternalServerError(APIStatusError):
    """The gateway failed, or the provider behind it."""

    status_code = 500


class APIConnectionError(APIError):
    """There was no whole answer. With `sent` False, the gateway has seen nothing of the call."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class APITimeoutError(APIConnectionError):
    """The answer did not come in time."""


class BatchFailedError(APIError):
    """The input of a batch was refused, so it has no results."""

    def __init__(self, batch: Batch) -> None:
        faults = batch.errors.data if batch.errors else []
        shown = "; ".join(
            f"line {fault.line}: {fault.message}" if fault.line else fault.message for fault in faults[:3]
        )
        more = f" (and {len(faults) - 3} more faults)" if len(faults) > 3 else ""
        super().__init__(f"Batch {batch.id} failed validation: {shown or 'no reason was given'}{more}")
        self.batch = batch
        self.code = faults[0].code if faults else None


_BY_STATUS: dict[int, type[APIStatusError]] = {
    kind.status_code: kind for kind in APIStatusError.__subclasses__() if kind.status_code is not None
}


def status_error(status: int, headers: Mapping[str, str], body: bytes) -> APIStatusError:
    """The error for an answer that is no success; `headers` have lower-case names."""
    told = _told(body)
    default = InternalServerError if status >= 500 else APIStatusError
    error = _BY_STATUS.get(status, default)(
        _text(told.get("message")) or f"The gateway answered with status {status}.",
        status_code=status,
        code=_text(told.get("code")),
        param=_text(told.get("param")),
        body=told or None,
    )
    error.type = _text(told.get("type"))
    error.request_id = headers.get("x-request-id")
    return error


def _told(body: bytes) -> dict[str, Any]:
    try:
        envelope: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}  # a proxy's page, not ours: the status says enough
    inner = cast("dict[str, Any]", envelope).get("error") if isinstance(envelope, dict) else None
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
