"""Every error of Batchway, and the HTTP status of each branch.

    BatchwayError
    |- RequestError            400  something in the request is wrong; has code and param
    |  |- InvalidFile          400  lines of a file, all of them named in `faults`
    |  |- Unauthenticated      401  no key, or an unknown one
    |  |- Forbidden            403  a known key that may not do this
    |  |- NotFound             404  absent, or somebody else's (never told apart)
    |  |- Conflict             409  the object is in the wrong state
    |  |- TooLarge             413
    |  |- KeyReused            422  an Idempotency-Key with another body
    |  |- TooMany              429  with retry_after
    |  '- OverBudget           429  there is no money for it; trying again soon is no use
    |- ProviderError           502  a provider failed us; `fault` says how
    '- ConfigError             (exit code 2, before anything listens)

Messages tell what to do next and hold statuses and sizes, never a body, a key or a query value.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from batchway.wire.errors import LineFault


class BatchwayError(Exception):
    """The root; an error of ours that is none of the branches below is a bug and answers 500."""


class RequestError(BatchwayError):
    """A request that cannot be served as sent; rendered as OpenAI's error envelope."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


class InvalidFile(RequestError):
    """An input file that was to be accepted only without faults; `faults` are the first 10,000."""

    def __init__(self, message: str, faults: Sequence[LineFault]) -> None:
        super().__init__(message, code="invalid_file", param="file")
        self.faults = tuple(faults)


class Unauthenticated(RequestError):
    """No key, or one that is not ours."""

    status = 401
    type = "invalid_request_error"


class Forbidden(RequestError):
    """A good key without the right to do this."""

    status = 403
    type = "permission_error"


class NotFound(RequestError):
    """Absent, or it belongs to somebody else: the two look the same."""

    status = 404


class Conflict(RequestError):
    """The object is in a state that does not allow this."""

    status = 409


class TooLarge(RequestError):
    """More bytes than this gateway accepts in one piece."""

    status = 413


class KeyReused(RequestError):
    """An Idempotency-Key that was first sent with another body."""

    status = 422


class TooMany(RequestError):
    """Too much at once; try again after `retry_after` seconds."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, code: str = "rate_limit_exceeded", retry_after: float = 1.0) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class OverBudget(RequestError):
    """The budget of `owner` does not allow it; clients are told not to try again by themselves."""

    status = 429
    type = "insufficient_quota"

    def __init__(self, message: str, *, owner: str) -> None:
        super().__init__(message, code="insufficient_quota")
        self.owner = owner


class Fault(StrEnum):
    """How a provider failed us; the retry rule hangs on this alone."""

    TRANSIENT = "transient"  # 5xx, no connection, a timeout of something repeatable
    THROTTLED = "throttled"  # 429, with retry_after where the provider says so
    REJECTED = "rejected"  # the request itself is at fault: repeating it cannot help
    DENIED = "denied"  # 401, 403: the credentials are at fault
    LOST = "lost"  # a submit whose answer never came: it may or may not have happened


class ProviderError(BatchwayError):
    """A provider's refusal or silence.

    `status` is the provider's HTTP status (None without an answer), `code` its error code, `retry_after` in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        fault: Fault,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fault = fault
        self.status = status
        self.code = code
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        """True when the same call may succeed later. `lost` is not: find out first what became of it."""
        return self.fault in (Fault.TRANSIENT, Fault.THROTTLED)


class ConfigError(BatchwayError):
    """Settings that cannot work; the message names the setting and the mend. Exit code 2."""
