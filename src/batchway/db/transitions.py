"""The only statements that write a status: `update ... where status = old`, in steps that `core/states.py` allows.

Each change appends its event to the outbox in the same transaction. False means somebody else made the step first:
the caller has nothing left to do.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, update

from batchway import metrics
from batchway.core.events import EventType
from batchway.core.states import BATCH_STEPS, FINAL_BATCH_STATES, JOB_STEPS, BatchState, JobState, step
from batchway.db.news import tell_batch, tell_job
from batchway.db.schema import batches, jobs

RESUMED = (BatchState.VALIDATING, BatchState.IN_PROGRESS)
JOB_EVENTS = {
    JobState.RUNNING: EventType.JOB_SUBMITTED,
    JobState.ENDED: EventType.JOB_ENDED,
    JobState.ACCOUNTED: EventType.JOB_ACCOUNTED,
}


def create_batch(tx: Connection, now: float, values: dict[str, Any]) -> None:
    """A new batch in `validating`, with its `acreate_batch` event."""
    tx.execute(insert(batches).values(status=BatchState.VALIDATING, created_at=now, **values))
    tell_batch(tx, EventType.BATCH_CREATED, values["id"], now)


def move_batch(
    tx: Connection, batch_id: str, old: BatchState, new: BatchState, now: float, values: dict[str, Any] | None = None
) -> bool:
    """One step of a batch; sets the state's timestamp and `values` with it."""
    step(BATCH_STEPS, old, new)
    when = {} if new is BatchState.VALIDATING else {f"{new}_at": now}  # it was validating first when it was created
    moved = tx.execute(
        update(batches)
        .where(batches.c.id == batch_id, batches.c.status == old)
        .values({"status": new, **when, "not_before": 0, "attempts": 0, **(values or {})})
    )
    if moved.rowcount != 1:
        return False
    kind = EventType.BATCH_RESUMED if old is BatchState.PAUSED and new in RESUMED else EventType(f"batch.{new}")
    told = tell_batch(tx, kind, batch_id, now)
    if new in FINAL_BATCH_STATES:  # should the transaction fail after this, the metrics count one end twice
        metrics.batch_ended(new, told.total_seconds, told.queued_seconds)
    return True


def create_jobs(tx: Connection, now: float, rows: list[dict[str, Any]]) -> None:
    """New jobs in `planned`."""
    tx.execute(insert(jobs), [{"status": JobState.PLANNED, "planned_at": now, **row} for row in rows])


def move_job(
    tx: Connection, job_id: str, old: JobState, new: JobState, now: float, values: dict[str, Any] | None = None
) -> bool:
    """One step of a job; sets the state's timestamp and `values` with it."""
    step(JOB_STEPS, old, new)
    moved = tx.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.status == old)
        .values({"status": new, f"{new}_at": now, "not_before": 0, "attempts": 0, **(values or {})})
    )
    if moved.rowcount != 1:
        return False
    if new in JOB_EVENTS:
        tell_job(tx, JOB_EVENTS[new], job_id, now)
    return True
