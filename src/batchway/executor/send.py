"""One attempt of one line: what is sent, and what its answer becomes.

An answer is kept as the server gave it: its body is checked to be one JSON object in UTF-8 and stored raw, without line
breaks. Bodies are never logged, and messages hold statuses and sizes only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.core.refusal import retry_after
from batchway.executor.retry import PASSING, Trouble
from batchway.http import Http, NotSent, Reply
from batchway.wire.errors import ErrorBody, ErrorEnvelope
from batchway.wire.lines import LineError, LineResponse, OutputLine, encode


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model server that answers single requests: where executed lines of an account go."""

    base_url: str  # ends in /v1 (or what stands for it); an endpoint path follows without its own /v1
    headers: Mapping[str, str] = field(repr=False)
    concurrency: int = 512  # at most; what it takes is found by trying (see pace.py)
    timeout: float = 600.0  # seconds a single request may take


class Request(msgspec.Struct, gc=False):
    """One line to be sent; `tries` counts the attempts that used one up, `ready_at` is on time.perf_counter."""

    number: int
    custom_id: str
    body: bytes
    tries: int = 0
    ready_at: float = 0.0


class Outcome(msgspec.Struct, gc=False):
    """What one attempt came to: the output line it makes, and what could change if it were repeated.

    `milliseconds` passed between the request and the end of its answer.
    """

    ok: bool
    line: bytes
    trouble: Trouble | None = None
    milliseconds: int = 0

    @property
    def word(self) -> str:
        """What metrics call it."""
        if self.ok:
            return "ok"
        if self.trouble is None:
            return "refused"
        if self.trouble.status is None:
            return "unheard"
        return "throttled" if self.trouble.status == 429 else "failed"


class Target(msgspec.Struct, frozen=True):
    """Where the lines of a chunk go."""

    url: str
    headers: Mapping[str, str]
    timeout: float


class _Model(msgspec.Struct, gc=False):
    model: str | None = None


class _Object(msgspec.Struct, gc=False):
    """Any JSON object: its fields are skipped, not kept."""


_model = msgspec.json.Decoder(_Model)
_object = msgspec.json.Decoder(_Object)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])  # the values stay as they were written


def target(endpoint: Endpoint, path: str) -> Target:
    """The URL of an OpenAI path such as `/v1/chat/completions` at an endpoint, and how to ask there."""
    url = endpoint.base_url.rstrip("/") + path.removeprefix("/v1")
    return Target(url, {"content-type": "application/json", **endpoint.headers}, endpoint.timeout)


def rewriter(model: str, names: frozenset[str]) -> Callable[[msgspec.Raw], bytes]:
    """What makes the bytes to send of a line's body: the body as it stands, with `model` in it.

    `names` are the models that the lines may name (empty: any).
    """
    if names == frozenset({model}):
        return bytes

    def rewrite(body: msgspec.Raw) -> bytes:
        if _model.decode(body).model == model:
            return bytes(body)
        return encode({**_fields.decode(body), "model": model})

    return rewrite


async def attempt(http: Http, place: Target, request: Request, line_id: str) -> Outcome:
    """Sends the line once. Raises nothing but CancelledError."""
    began = time.perf_counter()
    try:
        reply = await http.post(place.url, place.headers, request.body, place.timeout)
    except ProviderError as error:
        return _unheard(request, line_id, error, place.timeout)
    busy = time.perf_counter() - began
    outcome = _heard(request, line_id, reply)
    outcome.milliseconds = round(busy * 1000)
    return outcome


def unpaid(request: Request, line_id: str) -> Outcome:
    """What becomes of a line that is not sent because its batch has spent all that it may."""
    message = "This request was not sent: its batch has spent what was held for it in its budget."
    return _failure(request, line_id, "budget_exceeded", message, None)


def _heard(request: Request, line_id: str, reply: Reply) -> Outcome:
    ok = 200 <= reply.status < 300
    trouble = Trouble(reply.status, retry_after(reply.headers)) if reply.status in PASSING else None
    body = _one_line(reply.body)
    if body is None:
        message = f"The endpoint answered {reply.status} with {len(reply.body)} bytes that are not a JSON object."
        if ok:  # a success that says nothing is none; it may have come from something in between
            return _failure(request, line_id, "invalid_response", message, Trouble(reply.status))
        error = ErrorBody(message=message, type="server_error", code="invalid_response")
        body = encode(ErrorEnvelope(error=error))
    response = LineResponse(
        status_code=reply.status, request_id=reply.headers.get("x-request-id", ""), body=msgspec.Raw(body)
    )
    line = encode(OutputLine(id=line_id, custom_id=request.custom_id, response=response))
    return Outcome(ok, line, trouble)


def _unheard(request: Request, line_id: str, error: ProviderError, timeout: float) -> Outcome:
    if error.fault is Fault.REJECTED:
        message = "The URL or the headers of the endpoint are not valid."
        return _failure(request, line_id, "endpoint_misconfigured", message, None)
    if "longer than" in error.message:  # it would be as long again, and paid for again
        return _failure(request, line_id, "response_too_large", "The endpoint's answer is too large.", None)
    if isinstance(error, NotSent):
        code, message = "endpoint_unreachable", "There was no connection to the endpoint."
    elif error.message.endswith("timed out"):
        code, message = "request_timeout", f"The endpoint did not answer within {timeout:g} seconds."
    else:
        code, message = "endpoint_unreachable", "The connection to the endpoint broke before it answered."
    return _failure(request, line_id, code, message, Trouble(None))


def _failure(request: Request, line_id: str, code: str, message: str, trouble: Trouble | None) -> Outcome:
    error = LineError(code=code, message=message)
    return Outcome(False, encode(OutputLine(id=line_id, custom_id=request.custom_id, error=error)), trouble)  # noqa: FBT003


def _one_line(body: bytes) -> bytes | None:
    """The body when it is a JSON object in UTF-8, without line breaks; else None."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into what it skips
        _object.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if b"\n" in body or b"\r" in body:
        return msgspec.json.format(body, indent=-1)
    return body
