"""The job API in OpenAI's shape (files + batches), for every provider that speaks it.

What a provider varies is data: `Dealer` (address, headers, limits, what its words are). Where a job's bytes lie may
differ too: a subclass says so in `_place`, `_carries`, `_results`, `_content` and `_remove`. The token travels in the
batch's metadata and in the input file's name, so a submit can be found again, and a file left by a crash can be too.

Old forms of the same objects are read as well: capital words, ISO times, empty ids, counts of null, lines without id.
Source: OpenAI's OpenAPI description and openai-python 3.54 types, read August to November 2026.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Counts, JobSpec, Limits, Look
from batchway.core.refusal import refusal, retry_after
from batchway.core.spans import Line
from batchway.core.states import Outcome
from batchway.core.textlines import lines
from batchway.http import SAFE, SUCCESS, FilePart, Http, Query, Reply, Retry
from batchway.providers.protocol import Answer, Source
from batchway.providers.shared.file_shapes import CountsEntry, FaultEntry, File, Id, Page, Remote, answer_of, decoded

log = logging.getLogger(__name__)

TOKEN = "batchway_token"  # noqa: S105 - the name of a metadata field
CALL_TIMEOUT = 60.0
UPLOAD_TIMEOUT = 3600.0
PAGE = 100
MAX_PAGES = 50
CLOCK_SKEW = 900.0  # seconds by which a provider's clock may be behind ours
TOKEN_LIMIT = "token_limit_exceeded"  # noqa: S105 - an error code: too many tokens are waiting, try again later
FIRST_WAIT, LONGEST_WAIT = 0.15, 10.0  # seconds between two looks at a file that is not usable yet
CREATED_OR_REFUSED = frozenset({*SUCCESS, 400})
STOPPED_OR_ENDED = frozenset({*SUCCESS, 409})
GONE = frozenset({*SUCCESS, 404})

OUTCOMES = {
    "completed": Outcome.SUCCEEDED,
    "failed": Outcome.REJECTED,
    "expired": Outcome.EXPIRED,
    "cancelled": Outcome.CANCELLED,
    "canceled": Outcome.CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class Dealer:
    """One account of a provider with this API."""

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    limits: Limits
    purpose: str = "batch"
    max_line_bytes: int = 256 << 20  # the longest answer line
    authorize: Callable[[], Awaitable[Mapping[str, str]]] | None = None  # more headers, such as a token that is renewed
    query: Mapping[str, str] = field(default_factory=dict[str, str])  # of every call
    fields: Mapping[str, str] = field(default_factory=dict[str, str])  # of every upload, beside its purpose
    spelled: Callable[[str], str] = lambda endpoint: endpoint  # how the provider writes an endpoint's path
    processing: float = 0.0  # seconds that an upload may take until a batch can read it; 0: none


Rewrite = Callable[[Line, JobSpec], bytes]


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
        placed = await self._place(job, source)
        try:
            return await self._create(job, placed)
        except ProviderError as error:
            if error.fault is not Fault.LOST:  # there is no batch that would read it
                await self._discard(placed)
            raise

    async def find(self, job: JobSpec) -> str | None:
        """Looks through the account's newest batches, back to the time of the submit."""
        oldest = (job.submitted_at or 0.0) - CLOCK_SKEW
        async for page in self._pages():
            found = next((remote.id for remote in page if self._carries(remote, job)), None)
            if found is not None:
                return found
            first, last = page[0].created, page[-1].created
            # Only where the order is seen to be newest first do older pages hold nothing of ours.
            if first is not None and last is not None and last < min(first, oldest):
                return None
        return None

    async def look(self, job: JobSpec) -> Look:
        """One GET; words that we do not know count as running."""
        remote = await self._get(str(job.remote_id))
        counts = remote.request_counts or CountsEntry()
        first = next(iter((remote.errors.data if remote.errors else None) or []), FaultEntry())
        status = (remote.status or "").lower()
        path = remote.endpoint
        return Look(
            remote_id=remote.id,
            outcome=OUTCOMES.get(status),
            status=status,
            counts=Counts(counts.completed or 0, counts.failed or 0),
            code=first.code,
            message=first.message,
            input_file_id=remote.input_file_id or remote.input_blob,
            endpoint=path if not path or path.startswith("/v1/") else f"/v1{path}",
            created_at=remote.created,
            results=tuple(self._results(remote)),
        )

    async def cancel(self, job: JobSpec) -> None:
        """409 means that it has ended, which is what was wanted; so may 400."""
        try:
            await self._call("POST", f"/batches/{job.remote_id}/cancel", retry=SAFE, ok=STOPPED_OR_ENDED)
        except ProviderError as error:
            if error.status != 400 or (await self.look(job)).outcome is None:
                raise

    async def answers(self, job: JobSpec, look: Look, source: Source) -> AsyncIterator[list[Answer]]:
        """The lines of the output file, then of the error file."""
        del source
        for name in look.results:
            async for window in lines(self._content(name), limit=self._dealer.max_line_bytes):
                yield [answer_of(raw, job.token) for raw in window if raw.strip()]

    async def fetch_input(self, look: Look) -> AsyncIterator[bytes]:
        """The bytes of the job's input file."""
        if look.input_file_id is None:
            raise ProviderError("the provider does not name the batch's input file", fault=Fault.REJECTED)
        async for chunk in self._content(look.input_file_id):
            yield chunk

    async def clean(self, job: JobSpec, look: Look) -> None:
        """Deletes the uploaded input and the result files."""
        try:
            remote = await self._get(str(job.remote_id))
            name = remote.input_file_id or remote.input_blob
        except ProviderError as error:
            if error.status != 404:
                raise
            name = None  # the provider has forgotten the batch, and with it what it read
        for each in filter(None, (name, *look.results)):
            await self._remove(each)

    async def _place(self, job: JobSpec, source: Source) -> dict[str, Any]:
        """Brings the lines to the provider; the part of the batch's creation that says where they are."""
        file = await self._upload(job, source)
        try:
            await self._until_usable(file)
        except ProviderError:
            await self._discard({"input_file_id": file.id})
            raise
        return {"input_file_id": file.id, "metadata": {TOKEN: job.token}}

    def _carries(self, remote: Remote, job: JobSpec) -> bool:
        """Whether the batch is this job's."""
        return (remote.metadata or {}).get(TOKEN) == job.token

    def _results(self, remote: Remote) -> list[str]:
        """Where the answers are."""
        return [name for name in (remote.output_file_id, remote.error_file_id) if name]

    async def _content(self, name: str) -> AsyncIterator[bytes]:
        async with self._http.stream(
            f"{self._dealer.base_url}/files/{name}/content",
            headers=await self._headers(),
            query=self._dealer.query,
            timeout=CALL_TIMEOUT,
        ) as download:
            async for chunk in download.chunks():
                yield chunk

    async def _remove(self, name: str) -> None:
        await self._call("DELETE", f"/files/{name}", ok=GONE)

    async def _create(self, job: JobSpec, placed: Mapping[str, Any]) -> str:
        endpoint = self._dealer.spelled(job.endpoint)
        body = {"endpoint": endpoint, "completion_window": _window(job.window), **placed}
        try:
            reply = await self._call("POST", "/batches", json=msgspec.json.encode(body), ok=CREATED_OR_REFUSED)
            if reply.status == 400:
                raise await self._refused(reply, placed)
            return msgspec.json.decode(reply.body, type=Id).id
        except msgspec.DecodeError:
            raise ProviderError("the batch was created but the answer is unreadable", fault=Fault.LOST) from None
        except ProviderError as error:
            if error.status is not None and error.status >= 500:  # it may have been created all the same
                raise ProviderError(error.message, fault=Fault.LOST, status=error.status, code=error.code) from None
            raise

    async def _refused(self, reply: Reply, placed: Mapping[str, Any]) -> ProviderError:
        """What a creation's 400 means: the lines are at fault, or it only came too early."""
        if TOKEN_LIMIT.encode() in reply.body:
            message = "too many tokens are waiting at the provider"
            wait = retry_after(reply.headers)
            return ProviderError(message, fault=Fault.THROTTLED, status=400, code=TOKEN_LIMIT, retry_after=wait)
        if self._dealer.processing and "input_file_id" in placed:
            file = await self._file(placed["input_file_id"])
            if not file.usable:
                return ProviderError("the uploaded file is not usable yet", fault=Fault.TRANSIENT, status=400)
        return refusal(f"POST {self._dealer.base_url}/batches", reply.status, reply.headers, reply.body)

    async def _discard(self, placed: Mapping[str, Any]) -> None:
        """What a refused creation left; providers allow a few hundred files only."""
        name = placed.get("input_file_id") or placed.get("input_blob")
        try:
            await self._remove(str(name))
        except ProviderError as error:
            log.warning("an uploaded file that no batch reads stays at the provider: %s", error.message)

    async def _upload(self, job: JobSpec, source: Source) -> File:
        async def body() -> AsyncIterator[bytes]:
            async for window in source():
                yield b"".join(self._rewrite(line, job) + b"\n" for line in window)

        query = f"?{urlencode(self._dealer.query)}" if self._dealer.query else ""
        part = FilePart("file", f"batchway-{job.token}.jsonl", "application/jsonl", body)
        reply = await self._http.upload_multipart(
            f"{self._dealer.base_url}/files{query}",
            headers=await self._headers(),
            fields={"purpose": self._dealer.purpose, **self._dealer.fields},
            file=part,
            timeout=UPLOAD_TIMEOUT,
            retry=SAFE,  # a second copy of a file costs nothing
        )
        return decoded(reply, File)

    async def _until_usable(self, file: File) -> None:
        """Waits until a batch can read the file; ProviderError when that cannot be waited for."""
        waited, wait = 0.0, FIRST_WAIT
        while self._dealer.processing and not file.usable:
            if (file.status or "").lower() in ("error", "deleting", "deleted"):
                raise ProviderError(
                    f"the uploaded file became '{file.status}'", fault=Fault.REJECTED, code="file_error"
                )
            if waited >= self._dealer.processing:
                raise ProviderError("the uploaded file is not usable yet", fault=Fault.TRANSIENT)
            await asyncio.sleep(wait)  # nobody tells when it is done
            waited, wait = waited + wait, min(wait * 2, LONGEST_WAIT)
            file = await self._file(file.id)

    async def _file(self, file_id: str) -> File:
        return decoded(await self._call("GET", f"/files/{file_id}"), File)

    async def _get(self, remote_id: str) -> Remote:
        return decoded(await self._call("GET", f"/batches/{remote_id}"), Remote)

    async def _pages(self) -> AsyncIterator[list[Remote]]:
        query: dict[str, str | int | bool] = {"limit": PAGE}
        for _ in range(MAX_PAGES):
            page = decoded(await self._call("GET", "/batches", query=query), Page)
            if page.data:
                yield page.data
            if not page.has_more or not page.data:
                return
            query["after"] = page.data[-1].id
        raise ProviderError(f"more than {MAX_PAGES * PAGE} batches since the submit", fault=Fault.TRANSIENT)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: bytes | None = None,
        retry: Retry | None = None,
        ok: Container[int] = SUCCESS,
    ) -> Reply:
        return await self._http.request(
            method,
            self._dealer.base_url + path,
            headers=await self._headers(),
            query={**self._dealer.query, **(query or {})},
            json=json,
            timeout=CALL_TIMEOUT,
            retry=retry,
            ok=ok,
        )

    async def _headers(self) -> Mapping[str, str]:
        if self._dealer.authorize is None:
            return self._dealer.headers
        return {**self._dealer.headers, **await self._dealer.authorize()}


def _window(seconds: int) -> str:
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds // 60}m"
