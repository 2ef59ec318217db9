"""The job API in OpenAI's shape (files + batches), for every provider that speaks it.

What a caller may vary is data: `Dealer` (address, headers, limits, what its words are). The token travels in the
batch's metadata and in the input file's name, so a submit can be found again, and a file left by a crash can be too.
Source: OpenAI's OpenAPI description and openai-python 3.54 types, read August to November 2026.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Counts, JobSpec, Limits, Look
from batchway.core.spans import Line
from batchway.core.states import Outcome
from batchway.core.textlines import lines
from batchway.http import SAFE, FilePart, Http, Reply
from batchway.providers.protocol import Answer, Source
from batchway.wire.lines import output_line

TOKEN = "batchway_token"  # noqa: S105 - the name of a metadata field
CALL_TIMEOUT = 60.0
UPLOAD_TIMEOUT = 3600.0
PAGE = 100
MAX_PAGES = 50
CLOCK_SKEW = 900.0  # seconds by which a provider's clock may be behind ours

OUTCOMES = {
    "completed": Outcome.SUCCEEDED,
    "failed": Outcome.REJECTED,
    "expired": Outcome.EXPIRED,
    "cancelled": Outcome.CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class Dealer:
    """One account of a provider with this API."""

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    limits: Limits
    purpose: str = "batch"
    max_line_bytes: int = 256 << 20  # the longest answer line


class _Fault(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Faults(msgspec.Struct):
    data: list[_Fault] | None = None


class _Counts(msgspec.Struct):
    completed: int = 0
    failed: int = 0


class _Remote(msgspec.Struct):
    id: str
    status: str = ""
    endpoint: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: float | None = None
    errors: _Faults | None = None
    request_counts: _Counts | None = None
    metadata: dict[str, Any] | None = None


class _Page(msgspec.Struct):
    data: list[_Remote]
    has_more: bool = False


class _Id(msgspec.Struct):
    id: str


Rewrite = Callable[[Line, JobSpec], bytes]
T = TypeVar("T")


class FileJobs:
    """A `Provider` over one `Dealer`."""

    def __init__(self, dealer: Dealer, http: Http, rewrite: Rewrite) -> None:
        self._dealer = dealer
        self._http = http
        self._rewrite = rewrite

    def limits(self, model: str) -> Limits:
        """The same for every model of the account."""
        del model
        return self._dealer.limits

    async def submit(self, job: JobSpec, source: Source) -> str:
        """Uploads the lines and creates the batch; only the second call is paid, and it is never repeated blindly."""
        file_id = await self._upload(job, source)
        body = {
            "input_file_id": file_id,
            "endpoint": job.endpoint,
            "completion_window": _window(job.window),
            "metadata": {TOKEN: job.token},
        }
        try:
            reply = await self._http.request(
                "POST",
                f"{self._dealer.base_url}/batches",
                headers=self._dealer.headers,
                json=msgspec.json.encode(body),
                timeout=CALL_TIMEOUT,
            )
            return msgspec.json.decode(reply.body, type=_Id).id
        except msgspec.DecodeError:
            raise ProviderError("the batch was created but the answer is unreadable", fault=Fault.LOST) from None
        except ProviderError as error:
            if error.status is not None and error.status >= 500:  # it may have been created all the same
                raise ProviderError(error.message, fault=Fault.LOST, status=error.status, code=error.code) from None
            raise

    async def find(self, job: JobSpec) -> str | None:
        """Looks through the account's newest batches, back to the time of the submit."""
        oldest = (job.submitted_at or 0.0) - CLOCK_SKEW
        async for remote in self._newest():
            if (remote.metadata or {}).get(TOKEN) == job.token:
                return remote.id
            if remote.created_at is not None and remote.created_at < oldest:
                break
        return None

    async def look(self, job: JobSpec) -> Look:
        """One GET; words that we do not know count as running."""
        remote = await self._get(str(job.remote_id))
        counts = remote.request_counts or _Counts()
        first = next(iter((remote.errors.data if remote.errors else None) or []), _Fault())
        return Look(
            remote_id=remote.id,
            outcome=OUTCOMES.get(remote.status),
            status=remote.status,
            counts=Counts(counts.completed, counts.failed),
            code=first.code,
            message=first.message,
            input_file_id=remote.input_file_id,
            endpoint=remote.endpoint,
            created_at=remote.created_at,
            results=tuple(name for name in (remote.output_file_id, remote.error_file_id) if name),
        )

    async def cancel(self, job: JobSpec) -> None:
        """409 means that it has ended, which is what was wanted."""
        await self._http.request(
            "POST",
            f"{self._dealer.base_url}/batches/{job.remote_id}/cancel",
            headers=self._dealer.headers,
            timeout=CALL_TIMEOUT,
            retry=SAFE,
            ok=(200, 409),
        )

    async def answers(self, job: JobSpec, look: Look, source: Source) -> AsyncIterator[list[Answer]]:
        """The lines of the output file, then of the error file."""
        del job, source
        for file_id in look.results:
            async for window in lines(self._content(file_id), limit=self._dealer.max_line_bytes):
                yield [_answer(raw) for raw in window if raw.strip()]

    async def fetch_input(self, look: Look) -> AsyncIterator[bytes]:
        """The bytes of the job's input file."""
        if look.input_file_id is None:
            raise ProviderError("the provider does not name the batch's input file", fault=Fault.REJECTED)
        async for chunk in self._content(look.input_file_id):
            yield chunk

    async def clean(self, job: JobSpec, look: Look) -> None:
        """Deletes the uploaded input and the result files."""
        try:
            input_file_id = (await self._get(str(job.remote_id))).input_file_id
        except ProviderError as error:
            if error.status != 404:
                raise
            input_file_id = None  # the provider has forgotten the batch, and with it what it read
        for file_id in filter(None, (input_file_id, *look.results)):
            await self._http.request(
                "DELETE",
                f"{self._dealer.base_url}/files/{file_id}",
                headers=self._dealer.headers,
                timeout=CALL_TIMEOUT,
                ok=(200, 404),
            )

    async def _upload(self, job: JobSpec, source: Source) -> str:
        async def body() -> AsyncIterator[bytes]:
            async for window in source():
                yield b"".join(self._rewrite(line, job) + b"\n" for line in window)

        part = FilePart("file", f"batchway-{job.token}.jsonl", "application/jsonl", body)
        reply = await self._http.upload_multipart(
            f"{self._dealer.base_url}/files",
            headers=self._dealer.headers,
            fields={"purpose": self._dealer.purpose},
            file=part,
            timeout=UPLOAD_TIMEOUT,
            retry=SAFE,  # a second copy of a file costs nothing
        )
        return _decoded(reply, _Id).id

    async def _get(self, remote_id: str) -> _Remote:
        url = f"{self._dealer.base_url}/batches/{remote_id}"
        reply = await self._http.request("GET", url, headers=self._dealer.headers, timeout=CALL_TIMEOUT)
        return _decoded(reply, _Remote)

    async def _newest(self) -> AsyncIterator[_Remote]:
        query: dict[str, str | int | bool] = {"limit": PAGE}
        for _ in range(MAX_PAGES):
            reply = await self._http.request(
                "GET",
                f"{self._dealer.base_url}/batches",
                headers=self._dealer.headers,
                query=query,
                timeout=CALL_TIMEOUT,
            )
            page = _decoded(reply, _Page)
            for remote in page.data:
                yield remote
            if not page.has_more or not page.data:
                return
            query["after"] = page.data[-1].id
        raise ProviderError(f"more than {MAX_PAGES * PAGE} batches since the submit", fault=Fault.TRANSIENT)

    async def _content(self, file_id: str) -> AsyncIterator[bytes]:
        url = f"{self._dealer.base_url}/files/{file_id}/content"
        async with self._http.stream(url, headers=self._dealer.headers, timeout=CALL_TIMEOUT) as download:
            async for chunk in download.chunks():
                yield chunk


def _answer(raw: bytes) -> Answer:
    try:
        parsed = output_line.decode(raw)
    except msgspec.DecodeError:
        message = f"a result file holds a line of {len(raw)} bytes that is no answer"
        raise ProviderError(message, fault=Fault.TRANSIENT) from None
    return Answer(parsed.custom_id, parsed.ok, raw)


def _decoded(reply: Reply, shape: type[T]) -> T:
    """The body in this shape; anything else, such as a proxy's page with status 200, passes as a provider's failure."""
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except msgspec.DecodeError:
        message = f"an answer of {len(reply.body)} bytes (status {reply.status}) is not what was asked for"
        raise ProviderError(message, fault=Fault.TRANSIENT, status=reply.status) from None


def _window(seconds: int) -> str:
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds // 60}m"
