"""Statements over jobs: rows in and out, what is due, live counts. Statuses are written by `transitions.py` alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, select, update

from batchway.core.jobs import Counts, JobSpec, Look, Route, Span
from batchway.core.states import JobState, Outcome
from batchway.db.schema import jobs


def spec(row: RowMapping) -> JobSpec:
    """The job as providers see it."""
    return JobSpec(
        id=row["id"],
        batch_id=row["batch_id"],
        token=row["token"],
        route=Route(account=row["account"], model=row["model"], lane=row["lane"]),
        endpoint=row["endpoint"],
        span=Span(
            file_key=row["file_key"],
            start=row["span_start"],
            end=row["span_end"],
            first_line=row["first_line"],
            models=frozenset(row["models"]),
        ),
        lines=row["lines"],
        bytes=row["bytes"],
        window=row["window_seconds"],
        deadline=row["deadline"],
        priority=row["priority"],
        submitted_at=row["submitting_at"],
        remote_id=row["remote_id"],
    )


def last_look(row: RowMapping) -> Look:
    """What the provider said when the job ended."""
    return Look(
        remote_id=row["remote_id"] or "",
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        status=row["remote_status"] or "",
        code=row["code"],
        message=row["message"],
        results=tuple(row["results"] or ()),
    )


def get(tx: Connection, job_id: str) -> RowMapping:
    """The row of one job; NoResultFound when there is none."""
    return tx.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()


def of_batch(tx: Connection, batch_id: str) -> list[RowMapping]:
    """The jobs of a batch, in input order of their first lines."""
    return list(tx.execute(select(jobs).where(jobs.c.batch_id == batch_id).order_by(jobs.c.ordinal)).mappings())


def counts(tx: Connection, batch_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Live (completed, failed) of each batch, summed over its jobs."""
    rows = tx.execute(
        select(jobs.c.batch_id, func.sum(jobs.c.completed), func.sum(jobs.c.failed))
        .where(jobs.c.batch_id.in_(list(batch_ids)))
        .group_by(jobs.c.batch_id)
    )
    return {batch_id: (int(completed), int(failed)) for batch_id, completed, failed in rows}


def report(tx: Connection, job_id: str, counts: Counts, values: dict[str, Any]) -> None:
    """Records what a provider says of a running job; counts only grow, whatever order the reports arrive in.

    After its end the job's counts are those of its stored answers, which a late report must not touch.
    """
    grown = {
        jobs.c.completed: case((jobs.c.completed < counts.completed, counts.completed), else_=jobs.c.completed),
        jobs.c.failed: case((jobs.c.failed < counts.failed, counts.failed), else_=jobs.c.failed),
    }
    running = (jobs.c.id == job_id, jobs.c.status == JobState.RUNNING)
    tx.execute(update(jobs).where(*running).values({**grown, **values}))


def add_counts(tx: Connection, job_id: str, completed: int, failed: int) -> None:
    """Adds freshly stored answers to a job's counts."""
    tx.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(completed=jobs.c.completed + completed, failed=jobs.c.failed + failed)
    )


def note(tx: Connection, job_id: str, values: dict[str, Any]) -> None:
    """Sets fields other than the status."""
    tx.execute(update(jobs).where(jobs.c.id == job_id).values(values))


def claim_polls(tx: Connection, now: float, lease: float, limit: int) -> list[RowMapping]:
    """Running jobs whose look is due, pushed `lease` seconds ahead so that no other poller takes them meanwhile."""
    due = (
        select(jobs.c.id)
        .where(jobs.c.status == JobState.RUNNING, jobs.c.poll_at <= now)
        .order_by(jobs.c.poll_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(tx.execute(due).scalars())
    if not ids:
        return []
    tx.execute(update(jobs).where(jobs.c.id.in_(ids)).values(poll_at=now + lease))
    return list(tx.execute(select(jobs).where(jobs.c.id.in_(ids))).mappings())


def to_settle(tx: Connection, now: float, limit: int) -> list[str]:
    """Jobs that ended and are not accounted yet, longest waiting first."""
    query = select(jobs.c.id).where(jobs.c.status.in_([JobState.ENDED, JobState.COLLECTED]), jobs.c.not_before <= now)
    return list(tx.execute(query.order_by(jobs.c.ended_at).limit(limit)).scalars())


def fail_attempt(tx: Connection, job_id: str, now: float, longest: float) -> None:
    """After a durable function that failed: the job comes up again, later each time (seconds)."""
    row = get(tx, job_id)
    wait = min(longest, 2.0 ** min(row["attempts"], 16))
    note(tx, job_id, {"not_before": now + wait, "attempts": row["attempts"] + 1})


def hurry(tx: Connection, job_ids: Iterable[str]) -> None:
    """Makes looks due now."""
    tx.execute(update(jobs).where(jobs.c.id.in_(list(job_ids))).values(poll_at=0))


def release_polls(tx: Connection) -> None:
    """Makes every look due now: whoever had claimed one is surely gone."""
    tx.execute(update(jobs).where(jobs.c.status == JobState.RUNNING).values(poll_at=0))
