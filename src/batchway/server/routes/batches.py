"""Batches: the pipeline does the work; here are their HTTP forms, results as they come and progress as events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from batchway.core import traceparent
from batchway.server import decoding, once
from batchway.server.feed import Feed
from batchway.server.limits import file_bytes, one_upload
from batchway.server.routing import Call, Operation
from batchway.wire.batches import (
    Batch,
    BatchAdopt,
    BatchCreate,
    BatchEstimate,
    BatchFilter,
    BatchList,
    EstimateCreate,
    ResultsFilter,
)

INLINE_BYTES = 16 << 20  # of inline requests; more belongs into a file, which streams

ONE_LINE: dict[str, Any] = {
    "custom_id": "row-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]},
}


async def create(call: Call) -> Batch:
    """A new batch of an uploaded file, or of inline `requests`."""
    body: BatchCreate = call.body
    provider = call.provider or body.custom_llm_provider
    async with _inline(call, body):
        return await call.gateway.create_batch(
            call.principal, body, provider=provider, idempotency=call.idempotency, traceparent=_traceparent(call)
        )


def _traceparent(call: Call) -> str | None:
    caller = traceparent.parse(call.request.headers.get("traceparent"))
    return caller.header if caller else None


def _inline(call: Call, body: BatchCreate) -> AbstractAsyncContextManager[None]:
    """Inline requests become a file: they count as an upload, and have its size limit."""
    if body.requests is None:
        return nullcontext()
    limit = file_bytes(call.principal, call.gateway.max_file_bytes)
    if len(call.raw) > limit:
        raise decoding.too_large(limit)
    return one_upload(call.gateway.db, call.principal, call.gateway.clock())


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


async def resume(call: Call) -> Batch:
    """Lets a paused batch go on, if its budgets have room for it now; it would by itself, too."""
    return await call.gateway.resume_batch(call.principal, call.params["batch_id"])


async def retry(call: Call) -> Batch:
    """A new batch of the failed and expired lines only."""
    batch_id = call.params["batch_id"]
    return await call.gateway.retry_batch(call.principal, batch_id, idempotency=call.idempotency)


async def adopt(call: Call) -> Batch:
    """Takes in a batch that was made at a provider (admin, since the account there may hold anybody's)."""
    request_id = call.actor.request_id
    return await _kept(call, await call.gateway.adopt_batch(call.principal, call.body, request_id=request_id))


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
    """Status and counts, and each event of the batch, as server-sent events until the batch has ended."""
    batch = await retrieve(call)
    feed: Feed = call.request.app.state.feed
    stream = feed.stream(batch.id, call.request.headers.get("last-event-id"))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


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
        tag="Batches", max_body=INLINE_BYTES, errors=(413, 422, 429), headers=(*REPEATABLE, *FORCED, "traceparent"),
        example={"input_file_id": "file-abc", "endpoint": "/v1/chat/completions", "completion_window": "24h",
                 "metadata": {"job": "nightly"}},
    ),
    Operation(
        method="GET", path="/batches", name="listBatches", handler=list_batches, query=BatchFilter, answer=BatchList,
        tag="Batches", errors=(404,), headers=FORCED,
    ),
    Operation(
        method="POST", path="/batches/estimate", name="estimateBatch", handler=estimate, body=EstimateCreate,
        answer=BatchEstimate, tag="Batches", scope="read", max_body=INLINE_BYTES, errors=(404, 413), headers=FORCED,
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
        method="POST", path="/batches/{batch_id}/resume", name="resumeBatch", handler=resume, answer=Batch,
        tag="Batches", errors=(404, 409, 429),
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
        media="text/event-stream", tag="Batches", errors=(404,), headers=("Last-Event-ID",),
    ),
)  # fmt: skip
