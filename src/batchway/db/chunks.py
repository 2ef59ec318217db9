"""Statements over chunks: planned, chosen, owned, stopped, done.

A chunk belongs to whoever raised its token last; every later write of an owner checks that token, and 0 rows mean that
somebody else owns the chunk now. A chunk is done when `done_at` is set: all its lines are answered, or it was stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, Double, and_, bindparam, delete, func, insert, or_, select, update

from batchway.core.jobs import Span
from batchway.db import holds
from batchway.db.schema import batches, chunks, jobs

_open = chunks.c.done_at.is_(None)
_GROW = (  # made once: building a statement costs as much as running it, and this one runs with every segment
    update(chunks)
    .where(chunks.c.id == bindparam("of"), chunks.c.token == bindparam("held"), _open)
    .values(
        answered=chunks.c.answered + bindparam("more"),
        spent=chunks.c.spent + bindparam("amount", type_=BigInteger),
        done_at=bindparam("at", type_=Double),
    )
)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk in the hands of its owner, with what it needs to know of its job.

    `limit` is what its batch holds, when a budget applies to it, and `spent` what was spent of that, in pico-dollars.
    """

    id: str
    job_id: str
    batch_id: str
    project: str
    ordinal: int
    token: int
    account: str
    model: str
    endpoint: str
    span: Span
    deadline: float
    priority: int
    attempts: int
    stopping: bool
    limit: int | None
    spent: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A job's chunks, summed up. `stopped` means that one was asked to stop."""

    chunks: int = 0
    lines: int = 0
    answered: int = 0
    open: int = 0
    stopped: bool = False


def add(tx: Connection, job_id: str, rows: list[dict[str, Any]]) -> bool:
    """Writes all chunks of a job; False when it has them already."""
    if exist(tx, job_id) or not rows:
        return False
    tx.execute(insert(chunks), rows)
    return True


def exist(tx: Connection, job_id: str) -> bool:
    """Whether the job's chunks were planned."""
    return tx.execute(select(chunks.c.id).where(chunks.c.job_id == job_id).limit(1)).first() is not None


def begin(tx: Connection, chunk_id: str) -> Chunk | None:
    """Makes the caller the chunk's owner; None when it is done or gone."""
    raised = tx.execute(update(chunks).where(chunks.c.id == chunk_id, _open).values(token=chunks.c.token + 1))
    if not raised.rowcount:
        return None
    of_job = jobs.c.batch_id, jobs.c.model, jobs.c.endpoint, jobs.c.file_key, jobs.c.models
    joined = select(chunks, *of_job, batches.c.project).join(jobs, jobs.c.id == chunks.c.job_id)
    joined = joined.join(batches, batches.c.id == jobs.c.batch_id)
    row = tx.execute(joined.where(chunks.c.id == chunk_id)).mappings().one()
    span = Span(
        file_key=row["file_key"],
        start=row["span_start"],
        end=row["span_end"],
        first_line=row["first_line"],
        models=frozenset(row["models"]),
    )
    limit = holds.cap(tx, row["batch_id"])
    same = ("id", "job_id", "batch_id", "project", "ordinal", "token", "account", "model", "endpoint")
    return Chunk(
        **{name: row[name] for name in same},
        span=span,
        deadline=row["deadline"],
        priority=row["priority"],
        attempts=row["attempts"],
        stopping=row["stop_at"] is not None,
        limit=limit,
        spent=0 if limit is None else spent(tx, row["batch_id"]),
    )


def grow(tx: Connection, chunk: Chunk, answers: int, done_at: float | None, amount: int = 0) -> bool:
    """Adds stored answers and what they amount to, and ends the chunk when `done_at` is given.

    False when the caller does not own it.
    """
    values = {"of": chunk.id, "held": chunk.token, "more": answers, "amount": amount, "at": done_at}
    return bool(tx.execute(_GROW, values).rowcount)


def postpone(tx: Connection, chunk: Chunk, until: float) -> None:
    """After a run that failed: gives the chunk back, not to be run before then."""
    values = {"queued_at": None, "not_before": until, "attempts": chunks.c.attempts + 1}
    tx.execute(update(chunks).where(_owned(chunk)).values(values))


def queued(tx: Connection, chunk_ids: Iterable[str], now: float) -> None:
    """Notes that the engine has these chunks."""
    tx.execute(update(chunks).where(chunks.c.id.in_(list(chunk_ids))).values(queued_at=now))


def overdue(tx: Connection, queued_before: float, limit: int) -> list[str]:
    """Chunks that the engine has had since before then and that are not done, the longest first."""
    found = select(chunks.c.id).where(_open, chunks.c.queued_at < queued_before)
    return list(tx.execute(found.order_by(chunks.c.queued_at).limit(limit)).scalars())


def close_expired(tx: Connection, now: float) -> list[str]:
    """Ends the chunks whose deadline passed before anybody was given them; the jobs that ended with them."""
    late = and_(_open, chunks.c.queued_at.is_(None), chunks.c.deadline <= now)
    job_ids = set(tx.execute(select(chunks.c.job_id).where(late).distinct()).scalars())
    if job_ids:
        tx.execute(update(chunks).where(late).values(done_at=now))
    return [job_id for job_id in job_ids if ended(tx, job_id)]


def stop(tx: Connection, job_id: str, now: float) -> bool:
    """Asks the chunks of a job to stop, and ends those that surely nobody runs; True when that ended the job."""
    mine = and_(chunks.c.job_id == job_id, _open)
    if not tx.execute(update(chunks).where(mine).values(stop_at=func.coalesce(chunks.c.stop_at, now))).rowcount:
        return False
    idle = or_(chunks.c.token == 0, and_(chunks.c.queued_at.is_(None), chunks.c.not_before > now))
    tx.execute(update(chunks).where(mine, idle).values(done_at=now))
    return ended(tx, job_id)


def ended(tx: Connection, job_id: str) -> bool:
    """True when no chunk of the job is left to do."""
    return tx.execute(select(chunks.c.id).where(chunks.c.job_id == job_id, _open).limit(1)).first() is None


def signals(tx: Connection, chunk_ids: Iterable[str]) -> dict[str, tuple[int, bool]]:
    """Of each chunk that is not done: its token now, and whether it was asked to stop."""
    columns = select(chunks.c.id, chunks.c.token, chunks.c.stop_at)
    rows = tx.execute(columns.where(chunks.c.id.in_(list(chunk_ids)), _open))
    return {chunk_id: (token, stop_at is not None) for chunk_id, token, stop_at in rows}


def progress(tx: Connection, job_id: str) -> Progress:
    """How far a job's chunks are; all zero when it has none."""
    count = func.count
    row = tx.execute(
        select(
            count(),
            func.coalesce(func.sum(chunks.c.lines), 0),
            func.coalesce(func.sum(chunks.c.answered), 0),
            count().filter(_open),
            count(chunks.c.stop_at),
        ).where(chunks.c.job_id == job_id)
    ).one()
    total, lines, answered, still_open, stopped = map(int, row)
    return Progress(chunks=total, lines=lines, answered=answered, open=still_open, stopped=stopped > 0)


def spent(tx: Connection, batch_id: str) -> int:
    """Pico-dollars of a batch so far: of its executed answers, and of its native jobs that are accounted."""
    executed = select(func.sum(chunks.c.spent)).join(jobs, jobs.c.id == chunks.c.job_id)
    native = select(func.sum(jobs.c.amount)).where(jobs.c.lane == "native")
    sums = (tx.execute(query.where(jobs.c.batch_id == batch_id)).scalar_one() for query in (executed, native))
    return sum(int(found or 0) for found in sums)


def forget(tx: Connection, job_id: str) -> None:
    """Deletes the chunks of a job."""
    tx.execute(delete(chunks).where(chunks.c.job_id == job_id))


def _owned(chunk: Chunk) -> Any:
    return and_(chunks.c.id == chunk.id, chunks.c.token == chunk.token, _open)
