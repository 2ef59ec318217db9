"""Events of batches and jobs: what is told of a row as it is at that moment, in the transaction of its change.

The fields are those of `core/event_data.py`. Every event of a batch or of one of its jobs has the batch as its subject:
receivers are told of a subject in order.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, select

from batchway.core.event_data import BatchData, JobData
from batchway.core.events import EventType
from batchway.core.money import to_dollars
from batchway.core.states import FINAL_BATCH_STATES, BatchState, JobState
from batchway.core.usage import Usage
from batchway.db.outbox import About, tell
from batchway.db.schema import batches, jobs

BATCH_FIELDS = (
    "id project key_id endpoint status metadata model provider input_file_id output_file_id error_file_id "
    "total completed failed pause traceparent"
).split()
JOB_FIELDS = (
    "id batch_id model lane endpoint status outcome code remote_id metadata first_line "
    "lines completed failed traceparent"
).split()


def tell_batch(tx: Connection, kind: EventType, batch_id: str, now: float) -> BatchData:
    """Appends an event about a batch as it is now; answers what it tells."""
    row = tx.execute(select(batches).where(batches.c.id == batch_id)).mappings().one()
    about = About(batch_id, row["project"], row["key_id"])
    data = _batch_data(tx, row)
    tell(tx, kind, about, now, msgspec.to_builtins(data))
    return data


def _batch_data(tx: Connection, row: RowMapping) -> BatchData:
    used = tx.execute(select(jobs.c.account, jobs.c.model).where(jobs.c.batch_id == row["id"]).distinct()).all()
    times = {"created": row["created_at"], **_times(row, BatchState)}
    started = times.get(BatchState.IN_PROGRESS)
    extra: dict[str, Any] = row["extra"] or {}
    final = row["status"] in FINAL_BATCH_STATES
    accounted = times.get(BatchState.FINALIZING, row[f"{row['status']}_at"] if final else None)
    return BatchData(
        **{name: row[name] for name in BATCH_FIELDS},
        models=sorted({model for _, model in used}),
        providers=sorted({account for account, _ in used}),
        usage=_usage(row),
        **_amount(row["amount"], row["amount_known"] if final else None),
        errors=row["errors"][:20] if row["errors"] else None,
        times=times,
        queued_seconds=_between(times["created"], started),
        running_seconds=_between(started, accounted),
        total_seconds=_between(times["created"], row[f"{row['status']}_at"]) if final else None,
        retry_of=extra.get("retry_of"),
    )


def tell_job(tx: Connection, kind: EventType, job_id: str, now: float) -> None:
    """Appends an event about a job as it is now; its subject is the batch."""
    of_batch = batches.c.project, batches.c.key_id, batches.c.metadata, batches.c.traceparent
    query = select(jobs, *of_batch).join(batches, batches.c.id == jobs.c.batch_id).where(jobs.c.id == job_id)
    row = tx.execute(query).mappings().one()
    tell(tx, kind, About(row["batch_id"], row["project"], row["key_id"]), now, msgspec.to_builtins(_job_data(row)))


def _job_data(row: RowMapping) -> JobData:
    times = _times(row, JobState)
    submitted, ended = times.get(JobState.RUNNING), times.get(JobState.ENDED)
    final = row["status"] == JobState.ACCOUNTED
    return JobData(
        **{name: row[name] for name in JOB_FIELDS},
        provider=row["account"],
        usage=_usage(row),
        **_amount(row["amount"], row["amount"] is not None if final else None),
        times=times,
        queued_seconds=_between(times[JobState.PLANNED], submitted),
        running_seconds=_between(submitted, ended),
        total_seconds=_between(times[JobState.PLANNED], times.get(JobState.ACCOUNTED)),
    )


def _times(row: RowMapping, states: type[BatchState | JobState]) -> dict[str, float]:
    reached = {state.value: row.get(f"{state}_at") for state in states}  # no column for the first state of a batch
    return {state: at for state, at in reached.items() if at is not None}


def _usage(row: RowMapping) -> Usage | None:
    return msgspec.convert(row["usage"], Usage) if row["usage"] else None


def _amount(amount: int | None, known: bool | None) -> dict[str, Any]:  # noqa: FBT001 - None: not summed up yet
    if known is None:
        return {"amount": None, "amount_usd": None, "amount_status": "pending"}
    if not known:
        return {"amount": None, "amount_usd": None, "amount_status": "unknown"}
    return {"amount": amount or 0, "amount_usd": to_dollars(amount or 0), "amount_status": "final"}


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
