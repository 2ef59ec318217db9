"""Rows as OpenAI's objects: a batch with live counts, its usage and its amount. Not a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.money import to_dollars
from batchway.core.principal import Sight
from batchway.core.states import FINAL_BATCH_STATES, BatchState
from batchway.core.usage import Usage
from batchway.db import batches, costs, jobs
from batchway.wire.batches import (
    Batch,
    BatchDetails,
    BatchErrors,
    BatchFilter,
    BatchJob,
    BatchList,
    BatchPause,
    BatchUsage,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
)
from batchway.wire.errors import LineFault

TIMES = [f"{state}_at" for state in BatchState if state not in (BatchState.VALIDATING, BatchState.PAUSED)]


def one(tx: Connection, batch_id: str, sight: Sight | None, now: float) -> Batch:
    """A batch with its jobs; NotFound when it is absent or somebody else's."""
    row = batches.get(tx, batch_id, sight)
    of_batch = jobs.of_batch(tx, batch_id)
    batch = to_wire(row, (_sum(of_batch, "completed"), _sum(of_batch, "failed")))
    batch.batchway = BatchDetails(
        jobs=[_job(job) for job in of_batch],
        **_amount(row, of_batch),
        corrections_usd=_corrections(tx, [row]).get(row["id"]),
        estimated_end=_estimated_end(row, batch.request_counts, now),
        pause=_pause(row),
    )
    return batch


def page(tx: Connection, sight: Sight | None, wanted: BatchFilter) -> BatchList:
    """A page of batches, without their jobs."""
    rows, more = batches.page(tx, sight, wanted)
    live = jobs.counts(tx, [row["id"] for row in rows])
    data = [to_wire(row, live.get(row["id"], (0, 0))) for row in rows]
    corrected = _corrections(tx, rows)
    for batch, row in zip(data, rows, strict=True):
        batch.batchway = BatchDetails(jobs=None, **_amount(row, []), estimated_end=None, pause=_pause(row))
        batch.batchway.corrections_usd = corrected.get(row["id"])
    return BatchList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


def to_wire(row: RowMapping, counts: tuple[int, int]) -> Batch:
    """One batch; `counts` are its live (completed, failed)."""
    final = row["status"] in FINAL_BATCH_STATES
    times: dict[str, Any] = {name: None if row[name] is None else int(row[name]) for name in TIMES}
    return Batch(
        id=row["id"],
        endpoint=row["endpoint"],
        model=row["model"],
        errors=BatchErrors(data=msgspec.convert(row["errors"], list[LineFault])) if row["errors"] else None,
        input_file_id=row["input_file_id"],
        completion_window=row["completion_window"],
        status=row["status"],
        output_file_id=row["output_file_id"] if final else None,
        error_file_id=row["error_file_id"] if final else None,
        created_at=int(row["created_at"]),
        expires_at=int(row["expires_at"]),
        request_counts=RequestCounts(total=row["total"], completed=counts[0], failed=counts[1]),
        usage=_usage(row["usage"]),
        metadata=row["metadata"],
        **times,
    )


def _pause(row: RowMapping) -> BatchPause | None:
    return msgspec.convert(row["pause"], BatchPause) if row["pause"] else None


def _usage(stored: dict[str, int] | None) -> BatchUsage | None:
    if stored is None:
        return None
    usage = msgspec.convert(stored, Usage)
    return BatchUsage(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=usage.cached_tokens, cache_write_tokens=usage.cache_write_tokens
        ),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.total_tokens,
    )


def _job(row: RowMapping) -> BatchJob:
    return BatchJob(
        id=row["id"],
        provider=row["account"],
        model=row["model"],
        lane=row["lane"],
        status=row["status"],
        outcome=row["outcome"],
        remote_id=row["remote_id"],
        remote_status=row["remote_status"],
        request_counts=RequestCounts(total=row["lines"], completed=row["completed"], failed=row["failed"]),
        message=row["message"],
    )


def _amount(row: RowMapping, of_batch: Sequence[RowMapping]) -> dict[str, Any]:
    """The amount so far; `unknown` as soon as one accounted job has no known price."""
    if row["status"] in FINAL_BATCH_STATES:
        known = row["amount_known"]
        amount = row["amount"] if known else None
        return {
            "amount_usd": _dollars(amount or 0 if known else None),
            "amount_status": "final" if known else "unknown",
        }
    accounted = [job for job in of_batch if job["accounted_at"] is not None]
    if not accounted:
        return {"amount_usd": None, "amount_status": "pending"}
    if any(job["amount"] is None for job in accounted):
        return {"amount_usd": None, "amount_status": "unknown"}
    return {"amount_usd": _dollars(_sum(accounted, "amount")), "amount_status": "partial"}


def _corrections(tx: Connection, rows: Sequence[RowMapping]) -> dict[str, str]:
    """By the id of a batch; only those that have ended can have any."""
    ended = [row["id"] for row in rows if row["status"] in FINAL_BATCH_STATES]
    found = costs.corrections(tx, ended) if ended else {}
    return {batch_id: to_dollars(amount) for batch_id, amount in found.items()}


def _dollars(amount: int | None) -> str | None:
    return None if amount is None else to_dollars(amount)


def _sum(rows: Sequence[RowMapping], column: str) -> int:
    return sum(row[column] for row in rows)


def _estimated_end(row: RowMapping, counts: RequestCounts, now: float) -> int | None:
    """Where the pace so far leads (unix seconds); None before the first answers and after the end."""
    done = counts.completed + counts.failed
    if row["status"] != BatchState.IN_PROGRESS or not done or row["in_progress_at"] is None:
        return None
    elapsed = now - row["in_progress_at"]
    return int(now + elapsed * (counts.total - done) / done)
