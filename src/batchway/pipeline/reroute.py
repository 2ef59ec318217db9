"""A job that its provider refused whole is planned again: on the next route, or later when the provider was full.

Nothing of such a job was answered or paid. A new job takes over its lines, in the transaction that lets the refused one
pass without answers; so its lines are never without exactly one job that answers for them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping

from batchway.core.ids import IdMaker
from batchway.core.states import BatchState, JobState, Outcome
from batchway.db import batches, jobs
from batchway.db.transitions import create_jobs, move_job
from batchway.pipeline.trip import Trip

FULL = frozenset({"token_limit_exceeded"})  # codes that say: not now
SHORTEST, LONGEST = 15.0, 600.0  # seconds until a full provider is asked again
KEPT = (
    "batch_id models endpoint file_key span_start span_end first_line lines bytes window_seconds deadline priority"
).split()


async def reroute(trip: Trip, job_id: str) -> None:
    """Leaves a refused job collected without answers, and a new one in its place; others as they are."""
    row = await trip.db.read(jobs.get, job_id)
    refused = row["outcome"] == Outcome.REJECTED and not row["results"]
    if row["status"] == JobState.ENDED and refused:
        await trip.db.write(_replace, row, trip.new_id, trip.clock())
        trip.bells.work.set()


def _replace(tx: Connection, row: RowMapping, new_id: IdMaker, now: float) -> None:
    batch = batches.get(tx, row["batch_id"], hold=True)
    if batch["expiring"] or batch["status"] != BatchState.IN_PROGRESS:
        return
    of_batch = jobs.of_batch(tx, row["batch_id"])
    following = _next(row, of_batch, now)
    if following is None:
        return
    if move_job(tx, row["id"], JobState.ENDED, JobState.COLLECTED, now, {"completed": 0, "failed": 0}):
        kept = {column: row[column] for column in KEPT}
        new = {"id": new_id("job_"), "token": new_id("bw"), "ordinal": len(of_batch), **kept, **following}
        create_jobs(tx, now, [new])


def _next(row: RowMapping, of_batch: list[RowMapping], now: float) -> dict[str, Any] | None:
    """Where the lines go from here; None when there is nowhere else and waiting is no use."""
    if row["alternatives"]:
        (account, model, lane), *rest = row["alternatives"]
        return {"account": account, "model": model, "lane": lane, "alternatives": rest}
    tries = sum(job["first_line"] == row["first_line"] and job["models"] == row["models"] for job in of_batch)
    wait = min(LONGEST, SHORTEST * 2.0 ** (tries - 1))
    if row["code"] not in FULL or now + wait >= row["deadline"]:
        return None
    same = {column: row[column] for column in ("account", "model", "lane")}
    return {**same, "alternatives": [], "not_before": now + wait}
