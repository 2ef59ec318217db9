"""Batches: the pipeline does the work; here are their HTTP forms, results as they come and progress as events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from batchway.core.states import FINAL_BATCH_STATES
from batchway.server import once
from batchway.server.routing import Call, Operation, encode
from batchway.wire.batches import (
    Batch,
    BatchAdopt,
    BatchCreate,
    BatchEstimate,
    BatchFilter,
    BatchList,
    EstimateCreate,
    RequestCounts,
    ResultsFilter,
)

INLINE_BYTES = 16 << 20  # of inline requests; more belongs into a file, which streams
EVENT_SECONDS = 1.0
SILENCE = 15  # looks without a change after which a comment keeps the connection open

ONE_LINE: dict[str, Any] = {
    "custom_id": "row-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]},
}


class Progress(msgspec.Struct, kw_only=True):
    """The data of one `batch` event."""

    id: str
    status: str
    request_counts: RequestCounts


async def create(call: Call) -> Batch:
    """A new batch of an uploaded file, or of inline `requests`."""
    body: BatchCreate = call.body
    provider = call.provider or body.custom_llm_provider
    return await call.gateway.create_batch(call.principal, body, provider=provider, idempotency=call.idempotency)


async def retrieve(call: Call) -> Batch:
    """One batch with its live counts."""
    return await call.gateway.retrieve_batch(call.principal, call.params["batch_id"])


async def list_batches(call: Call) -> BatchList:
    """Batches, newest first, narrowed by any filter."""
    wanted: BatchFilter = call.query
    wanted.provider = call.provider
    return await call.gateway.list_batches(call.principal, wanted)


async def cancel(call: Call) -> Batch:
    """Ends a batch early; what is answered stays. Idempotent."""
    return await call.gateway.cancel_batch(call.principal, call.params["batch_id"])


async def retry(call: Call) -> Batch:
    """A new batch of the failed and expired lines only."""
    batch_id = call.params["batch_id"]
    return await call.gateway.retry_batch(call.principal, batch_id, idempotency=call.idempotency)


async def adopt(call: Call) -> Batch:
    """Takes in a batch that was made at a provider (admin, since the account there may hold anybody's)."""
    return await _kept(call, await call.gateway.adopt_batch(call.principal, call.body))


async def estimate(call: Call) -> BatchEstimate:
    """Tokens, amount and routes of a file or of lines; spends nothing."""
    body: EstimateCreate = call.body
    body.custom_llm_provider = call.provider or body.custom_llm_provider
    return await call.gateway.estimate(call.principal, body)


async def results(call: Call) -> Response:
    """Output lines with their cursors and amounts: as they finish, or after the end in input order."""
    windows = aiter(call.gateway.results(call.principal, call.params["batch_id"], call.query))
    first = await anext(windows, None)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_windows(first, windows), headers=headers, media_type="application/x-ndjson")


async def _windows(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    window = first
    while window is not None:
        yield window
        window = await anext(rest, None)


async def events(call: Call) -> Response:
    """Status and counts as server-sent events until the batch has ended."""
    now = await retrieve(call)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_events(call, now), headers=headers, media_type="text/event-stream")


async def _events(call: Call, batch: Batch) -> AsyncGenerator[bytes, None]:
    told, silent = b"", 0
    while True:
        counts = batch.request_counts
        progress = encode(Progress(id=batch.id, status=batch.status, request_counts=counts))
        if progress != told:
            told, silent = progress, 0
            yield b"event: batch\ndata: " + progress + b"\n\n"
        elif (silent := silent + 1) >= SILENCE:
            silent = 0
            yield b": still here\n\n"
        if batch.status in FINAL_BATCH_STATES:
            return
        await asyncio.sleep(EVENT_SECONDS)
        batch = await retrieve(call)


async def _kept(call: Call, answer: Batch) -> Batch:
    if call.idempotency is not None:
        await call.gateway.db.write(_keep, call, answer)
    return answer


def _keep(tx: Connection, call: Call, answer: Batch) -> None:
    once.keep(tx, call.principal, call.idempotency, answer, call.gateway.clock())


REPEATABLE = ("Idempotency-Key",)
FORCED = ("custom-llm-provider",)

OPERATIONS = (
    Operation(
        method="POST", path="/batches", name="createBatch", handler=create, body=BatchCreate, answer=Batch,
        tag="Batches", max_body=INLINE_BYTES, errors=(413, 422, 429), headers=(*REPEATABLE, *FORCED),
        example={"input_file_id": "file-abc", "endpoint": "/v1/chat/completions", "completion_window": "24h",
                 "metadata": {"job": "nightly"}},
    ),
    Operation(
        method="GET", path="/batches", name="listBatches", handler=list_batches, query=BatchFilter, answer=BatchList,
        tag="Batches", errors=(404,), headers=FORCED,
    ),
    Operation(
        method="POST", path="/batches/estimate", name="estimateBatch", handler=estimate, body=EstimateCreate,
        answer=BatchEstimate, tag="Batches", max_body=INLINE_BYTES, errors=(404, 413), headers=FORCED,
        example={"endpoint": "/v1/chat/completions", "requests": [ONE_LINE]},
    ),
    Operation(
        method="POST", path="/batches/adopt", name="adoptBatch", handler=adopt, body=BatchAdopt, answer=Batch,
        tag="Batches", admin=True, errors=(404, 409, 422, 502), headers=REPEATABLE,
        example={"provider": "main", "remote_id": "batch_68f0"},
    ),
    Operation(
        method="GET", path="/batches/{batch_id}", name="retrieveBatch", handler=retrieve, answer=Batch, tag="Batches",
        errors=(404,),
    ),
    Operation(
        method="POST", path="/batches/{batch_id}/cancel", name="cancelBatch", handler=cancel, answer=Batch,
        tag="Batches", errors=(404, 409),
    ),
    Operation(
        method="POST", path="/batches/{batch_id}/retry", name="retryBatch", handler=retry, answer=Batch,
        tag="Batches", errors=(404, 409, 422), headers=REPEATABLE,
    ),
    Operation(
        method="GET", path="/batches/{batch_id}/results", name="batchResults", handler=results, query=ResultsFilter,
        media="application/x-ndjson", tag="Batches", errors=(404, 409),
    ),
    Operation(
        method="GET", path="/batches/{batch_id}/events", name="batchEvents", handler=events,
        media="text/event-stream", tag="Batches", errors=(404,),
    ),
)  # fmt: skip
