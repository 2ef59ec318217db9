"""The executor as a batch provider, and the kind `openai_compatible`: an account that is an endpoint and no more.

The executor's job is ours: its id there is our own job id, `submit` and `find` are rows in our own database, so a
submit can neither be lost nor happen twice. Every account with an endpoint is executed through this one provider.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection

from batchway.core.jobs import Counts, JobSpec, Limits, Look
from batchway.core.states import Outcome
from batchway.db import chunks, segments
from batchway.db.chunks import Progress
from batchway.executor import Executor
from batchway.executor.segments import folder_of, read_segment
from batchway.providers.protocol import Account, Answer, Endpoint, Source, Tools
from batchway.providers.shared.models import list_models
from batchway.wire.batches import ENDPOINTS

KIND = "openai_compatible"

LIMITS = Limits(lines=50_000, bytes=4 << 30, endpoints=frozenset(ENDPOINTS), windows=(60, 30 * 86400))
"""Ours: 50,000 lines are about 200 chunks, few enough to count at every look."""


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An entry of the kind `openai_compatible`. `timeout` is seconds for one request."""

    base_url: str
    api_key: str | None = None
    headers: dict[str, str] = {}
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 512  # at most
    models: list[str] = []
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 600.0


class _Head(msgspec.Struct):
    custom_id: str


_head = msgspec.json.Decoder(_Head)


class ExecutedProvider:
    """`Provider` over the executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def limits(self, model: str) -> Limits:
        return LIMITS

    async def submit(self, job: JobSpec, source: Source) -> str:
        await self._executor.plan(job)
        return job.id

    async def find(self, job: JobSpec) -> str | None:
        return job.id if await self._executor.db.read(chunks.exist, job.id) else None

    async def look(self, job: JobSpec) -> Look:
        progress, counts = await self._executor.db.read(_progress, job.id)
        outcome = self._outcome(job, progress)
        failed = outcome is Outcome.FAILED
        return Look(
            remote_id=job.id,
            outcome=outcome,
            status="running" if outcome is None else outcome.value,
            counts=counts,
            code="execution_failed" if failed else None,
            message="Some lines could not be executed; the log of the gateway says why." if failed else None,
            endpoint=job.endpoint,
            created_at=job.submitted_at,
        )

    async def cancel(self, job: JobSpec) -> None:
        await self._executor.cancel(job.id)

    async def answers(self, job: JobSpec, look: Look, source: Source) -> AsyncIterator[list[Answer]]:
        for row in await self._executor.db.read(segments.of_job, job.id):
            stored = await read_segment(self._executor.storage, row["storage_key"])
            yield [Answer(_head.decode(line).custom_id, ok, line, busy) for _, ok, line, busy in stored]

    async def clean(self, job: JobSpec, look: Look) -> None:
        await self._executor.db.write(_forget, job.id)
        await self._executor.storage.delete_prefix(folder_of(job.batch_id, job.id))

    def _outcome(self, job: JobSpec, progress: Progress) -> Outcome | None:
        if progress.chunks and progress.open:
            return None
        if progress.chunks and progress.answered >= progress.lines:
            return Outcome.SUCCEEDED
        if progress.stopped:
            return Outcome.CANCELLED
        return Outcome.EXPIRED if self._executor.clock() >= job.deadline else Outcome.FAILED


def _progress(tx: Connection, job_id: str) -> tuple[Progress, Counts]:
    return chunks.progress(tx, job_id), segments.counts(tx, job_id)


def _forget(tx: Connection, job_id: str) -> None:
    segments.forget(tx, job_id)
    chunks.forget(tx, job_id)


def from_environment(env: Mapping[str, str]) -> dict[str, Any] | None:
    """None: no variables are usual for a model server of one's own."""
    return None


def open_executed(executor: Executor) -> ExecutedProvider:
    """The lane that the registry gives to every account with an endpoint."""
    return ExecutedProvider(executor)


def open_account(name: str, options: Options, tools: Tools) -> Account:
    """An account whose lines are executed, and which has no batch API of its own."""
    headers = dict(options.headers)
    if options.api_key:
        headers["authorization"] = f"Bearer {options.api_key}"
    base_url = options.base_url.rstrip("/")

    return Account(
        name=name,
        kind=KIND,
        endpoint=Endpoint(base_url=base_url, headers=headers, concurrency=options.concurrency, timeout=options.timeout),
        models=tuple(options.models),
        known=frozenset(options.models).__contains__,
        list_models=lambda: list_models(tools.http, base_url, headers),
    )
