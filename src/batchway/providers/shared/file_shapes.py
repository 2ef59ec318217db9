"""OpenAI's objects as providers send them, old and loose forms included: what `file_jobs.py` reads.

Invariant: whatever a provider sends either becomes one of these or a ProviderError; nothing is guessed.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.http import Reply
from batchway.providers.protocol import Answer
from batchway.wire.lines import LineError, LineResponse, OutputLine, encode, output_line

T = TypeVar("T")


class FaultEntry(msgspec.Struct):
    """An error of a failed batch."""

    code: str | None = None
    message: str | None = None


class FaultList(msgspec.Struct):
    """All of them."""

    data: list[FaultEntry] | None = None


class CountsEntry(msgspec.Struct):
    """Lines that are done; old forms say null."""

    completed: int | None = None
    failed: int | None = None


class Remote(msgspec.Struct):
    """A provider's Batch object, as far as it matters here."""

    id: str
    status: str | None = None
    endpoint: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    input_blob: str | None = None
    output_blob: str | None = None
    error_blob: str | None = None
    created_at: float | str | None = None
    errors: FaultList | None = None
    request_counts: CountsEntry | None = None
    metadata: dict[str, Any] | None = None

    @property
    def created(self) -> float | None:
        """Unix seconds of its creation."""
        if not isinstance(self.created_at, str):
            return self.created_at
        try:
            moment = datetime.fromisoformat(self.created_at)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Page(msgspec.Struct):
    """A page of a list of batches."""

    data: list[Remote]
    has_more: bool | None = None


class Id(msgspec.Struct):
    """What matters of a batch just created."""

    id: str


class File(msgspec.Struct):
    """An uploaded file."""

    id: str
    status: str | None = None

    @property
    def usable(self) -> bool:
        """Whether a batch can read it; without a word about it, yes."""
        return (self.status or "processed").lower() == "processed"


class _LooseResponse(msgspec.Struct):
    status_code: int
    body: msgspec.Raw
    request_id: str | None = None


class _LooseLine(msgspec.Struct):
    """An output line that lacks what a strict one has."""

    custom_id: str
    id: str | None = None
    response: _LooseResponse | None = None
    error: FaultEntry | None = None


_loose_line = msgspec.json.Decoder(_LooseLine)


def answer_of(raw: bytes, token: str) -> Answer:
    """The answer that a line of a result file is; `token` names the job, for lines that have no id."""
    try:
        parsed = output_line.decode(raw)
    except msgspec.DecodeError:
        return _loose_answer(raw, token)
    return Answer(parsed.custom_id, parsed.ok, raw)


def _loose_answer(raw: bytes, token: str) -> Answer:
    """The answer of a line in an old form, brought into the usual one."""
    try:
        found = _loose_line.decode(raw)
    except msgspec.DecodeError:
        message = f"a result file holds a line of {len(raw)} bytes that is no answer"
        raise ProviderError(message, fault=Fault.TRANSIENT) from None
    name = hashlib.blake2b(f"{token} {found.custom_id}".encode(), digest_size=12).hexdigest()
    response, error = found.response, found.error
    line = OutputLine(
        id=found.id or f"batch_req_{name}",  # the same whenever it is read
        custom_id=found.custom_id,
        response=response and _response(response),
        error=error and LineError(code=error.code or "error", message=error.message or ""),
    )
    return Answer(line.custom_id, line.ok, encode(line))


def _response(found: _LooseResponse) -> LineResponse:
    return LineResponse(status_code=found.status_code, request_id=found.request_id or "", body=found.body)


def decoded(reply: Reply, shape: type[T]) -> T:
    """The body in this shape; anything else, such as a proxy's page with status 200, passes as a provider's failure."""
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except msgspec.DecodeError:
        message = f"an answer of {len(reply.body)} bytes (status {reply.status}) is not what was asked for"
        raise ProviderError(message, fault=Fault.TRANSIENT, status=reply.status) from None
