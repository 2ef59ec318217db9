"""The only statements that write a status: `update ... where status = old`, in steps that `core/states.py` allows.

Each change appends its event to the outbox in the same transaction. False means somebody else made the step first:
the caller has nothing left to do.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from batchway.core.events import EventType
from batchway.core.states import BATCH_STEPS, JOB_STEPS, BatchState, JobState, step
from batchway.db.outbox import tell
from batchway.db.schema import batches, jobs

JOB_EVENTS = {
    JobState.RUNNING: EventType.JOB_SUBMITTED,
    JobState.ENDED: EventType.JOB_ENDED,
    JobState.ACCOUNTED: EventType.JOB_ACCOUNTED,
}


def create_batch(tx: Connection, now: float, values: dict[str, Any]) -> None:
    """A new batch in `validating`, with its `acreate_batch` event."""
    tx.execute(insert(batches).values(status=BatchState.VALIDATING, created_at=now, **values))
    tell(tx, EventType.BATCH_CREATED, values["id"], values["project"], now, _batch_data(tx, values["id"]))


def move_batch(
    tx: Connection, batch_id: str, old: BatchState, new: BatchState, now: float, values: dict[str, Any] | None = None
) -> bool:
    """One step of a batch; sets the state's timestamp and `values` with it."""
    step(BATCH_STEPS, old, new)
    moved = tx.execute(
        update(batches)
        .where(batches.c.id == batch_id, batches.c.status == old)
        .values({"status": new, f"{new}_at": now, "not_before": 0, "attempts": 0, **(values or {})})
    )
    if moved.rowcount != 1:
        return False
    data = _batch_data(tx, batch_id)
    tell(tx, EventType(f"batch.{new}"), batch_id, data["project"], now, data)
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
        row = (
            tx.execute(
                select(jobs, batches.c.project)
                .join(batches, batches.c.id == jobs.c.batch_id)
                .where(jobs.c.id == job_id)
            )
            .mappings()
            .one()
        )
        tell(tx, JOB_EVENTS[new], row["batch_id"], row["project"], now, _job_data(row))
    return True


def _batch_data(tx: Connection, batch_id: str) -> dict[str, Any]:
    row = tx.execute(select(batches).where(batches.c.id == batch_id)).mappings().one()
    fields = (
        "project key_id endpoint model provider metadata status input_file_id output_file_id error_file_id "
        "total completed failed usage amount amount_known errors"
    ).split()
    data = {field: row[field] for field in fields}
    data["errors"] = data["errors"][:20] if data["errors"] else None
    return data


def _job_data(row: Any) -> dict[str, Any]:
    fields = "id account model lane status outcome remote_id lines completed failed usage amount code".split()
    return {field: row[field] for field in fields}
