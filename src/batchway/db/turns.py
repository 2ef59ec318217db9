"""Statements that tell whose chunk is next: what each project has in the engine, and the jobs that wait for more.

A job is looked at by one seek in the index of its waiting chunks, however many it has; so the cost of a choice grows
with the jobs that run, not with their lines.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, and_, exists, func, select

from batchway.core.states import JobState
from batchway.db.schema import batches, chunks, jobs

HAVE_CHUNKS = (JobState.SUBMITTING, JobState.RUNNING)
_waits = and_(chunks.c.done_at.is_(None), chunks.c.queued_at.is_(None))


class Held(NamedTuple):
    """What the engine has of one job: chunks, and their lines that have no answer yet."""

    account: str
    project: str
    job_id: str
    chunks: int
    lines: int


class Waiting(NamedTuple):
    """A job with chunks that nobody was given yet."""

    job_id: str
    project: str
    priority: int
    deadline: float


def held(tx: Connection) -> list[Held]:
    """What the engine has, by account and job."""
    query = (
        select(
            chunks.c.account,
            batches.c.project,
            chunks.c.job_id,
            func.count(),
            func.sum(chunks.c.lines - chunks.c.answered),
        )
        .join(jobs, jobs.c.id == chunks.c.job_id)
        .join(batches, batches.c.id == jobs.c.batch_id)
        .where(chunks.c.done_at.is_(None), chunks.c.queued_at.is_not(None))
        .group_by(chunks.c.account, batches.c.project, chunks.c.job_id)
    )
    return [
        Held(account, project, job, int(count), int(lines)) for account, project, job, count, lines in tx.execute(query)
    ]


def waiting(tx: Connection, account: str, now: float, of_project: int) -> list[Waiting]:
    """The jobs of an account that have a chunk to give, of each project the `of_project` most urgent ones."""
    has_one = exists().where(chunks.c.job_id == jobs.c.id, _waits, chunks.c.not_before <= now)
    order = (jobs.c.priority.desc(), jobs.c.deadline, jobs.c.id)
    place = func.row_number().over(partition_by=batches.c.project, order_by=order).label("place")
    ranked = (
        select(jobs.c.id, batches.c.project, jobs.c.priority, jobs.c.deadline, place)
        .join(batches, batches.c.id == jobs.c.batch_id)
        .where(jobs.c.status.in_(HAVE_CHUNKS), jobs.c.lane == "executed", jobs.c.account == account, has_one)
        .subquery()
    )
    query = select(ranked.c.id, ranked.c.project, ranked.c.priority, ranked.c.deadline)
    return [Waiting(*row) for row in tx.execute(query.where(ranked.c.place <= of_project))]


def next_chunks(tx: Connection, job_id: str, now: float, limit: int) -> list[tuple[str, int]]:
    """The next chunks of a job that nobody was given yet, and their lines, in input order."""
    query = select(chunks.c.id, chunks.c.lines - chunks.c.answered).where(
        chunks.c.job_id == job_id, _waits, chunks.c.not_before <= now
    )
    return [(chunk_id, lines) for chunk_id, lines in tx.execute(query.order_by(chunks.c.ordinal).limit(limit))]
