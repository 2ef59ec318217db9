"""What an HTTP answer that refuses us means: a `ProviderError` with its fault, code and wait.

One table for every caller, pure: the client in `http.py` raises what this returns, and the executor, which takes
every answer as it is, asks the same question here. The message holds status and size, never a part of the body.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import cast

import msgspec

from batchway.core.errors import Fault, ProviderError


def refusal(
    name: str, status: int, headers: Mapping[str, str], body: bytes, *, idempotent: bool = False
) -> ProviderError:
    """The error for an answer with this status; `name` is method, host and path, `headers` have lower-case names.

    With `idempotent`, the answer of a broken gateway is transient; without, the call behind it is lost.
    """
    note = " (a redirect; none is followed)" if status in range(300, 400) else ""
    return ProviderError(
        f"{name}: status {status}{note}, {len(body)} bytes",
        fault=fault_of(status, idempotent=idempotent),
        status=status,
        code=error_code(body),
        retry_after=retry_after(headers),
    )


def shown(method: str, url: str) -> str:
    """Method, host and path: what may be shown of a URL, for its query and user part may hold keys."""
    place = url.partition("?")[0].partition("#")[0].partition("://")[2] or "?"
    authority, slash, path = place.partition("/")
    return f"{method} {authority.rpartition('@')[2]}{slash}{path}"


def fault_of(status: int, *, idempotent: bool) -> Fault:
    """How a status that is no success failed us."""
    if status == 429:
        return Fault.THROTTLED
    if status in (401, 403):
        return Fault.DENIED
    if status in (502, 504) and not idempotent:
        return Fault.LOST  # a gateway speaks here: what stands behind it may have acted
    return Fault.TRANSIENT if status >= 500 or status in (408, 425) else Fault.REJECTED


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the answer says; a date is read against the answer's own clock, not ours."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif "retry-after" not in headers:
            return None
        elif (value := headers["retry-after"]).replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def error_code(body: bytes) -> str | None:
    """The error code of an OpenAI-style body, or the nearest thing in the forms of the clouds."""
    try:
        parsed: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(parsed, list) and parsed:
        parsed = cast("list[object]", parsed)[0]  # some answers wrap the error in a list
    if not isinstance(parsed, dict):
        return None
    outer = cast("dict[str, object]", parsed)
    inner = outer.get("error", outer)
    if not isinstance(inner, dict):
        return None
    named = cast("dict[str, object]", inner)
    found = (named.get(key) for key in ("code", "status", "type", "__type"))
    return next((value[:100] for value in found if isinstance(value, str) and value), None)
