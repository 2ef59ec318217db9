"""Statements over batches: rows in and out, pages, what is due. Statuses are written by `transitions.py` alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)

from batchway.core.errors import NotFound
from batchway.core.principal import Sight
from batchway.core.states import FINAL_BATCH_STATES, LIVE_BATCH_STATES, BatchState, JobState
from batchway.db.schema import batches, jobs, ledger, segments
from batchway.db.sight import visible
from batchway.wire.batches import BatchFilter


def get(tx: Connection, batch_id: str, sight: Sight | None = None, *, hold: bool = False) -> RowMapping:
    """The row of one batch; NotFound also when `sight` (None: everybody's) does not reach it.

    With `hold` nobody else can change it before the transaction ends.
    """
    query = select(batches).where(batches.c.id == batch_id, visible(batches, sight))
    if hold:
        query = query.with_for_update()
    row = tx.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No batch found with id '{batch_id}'.", param="batch_id")
    return row


def page(tx: Connection, sight: Sight | None, wanted: BatchFilter) -> tuple[list[RowMapping], bool]:
    """One page and whether more follow; keyset paging, so inserts meanwhile neither repeat nor hide a batch."""
    query = select(batches).where(*_matches(sight, wanted), *_labelled(tx, wanted.metadata or {}))
    place = tuple_(batches.c.created_at, batches.c.id)
    if wanted.after:
        after = get(tx, wanted.after, sight)
        mark = tuple_(after["created_at"], after["id"])
        query = query.where(place < mark if wanted.order == "desc" else place > mark)
    down = wanted.order == "desc"
    query = query.order_by(
        batches.c.created_at.desc() if down else batches.c.created_at, batches.c.id.desc() if down else batches.c.id
    )
    rows = list(tx.execute(query.limit(wanted.limit + 1)).mappings())
    return rows[: wanted.limit], len(rows) > wanted.limit


def _matches(sight: Sight | None, wanted: BatchFilter) -> Iterable[ColumnElement[bool]]:
    yield visible(batches, sight)
    if wanted.status is not None:
        yield batches.c.status == wanted.status
    if wanted.created_after is not None:
        yield batches.c.created_at > wanted.created_after
    if wanted.created_before is not None:
        yield batches.c.created_at < wanted.created_before
    if wanted.provider is not None:
        yield batches.c.id.in_(select(jobs.c.batch_id).where(jobs.c.account == wanted.provider))
    if wanted.model is not None:
        yield or_(
            batches.c.model == wanted.model,
            batches.c.id.in_(select(jobs.c.batch_id).where(jobs.c.model == wanted.model)),
        )


def _labelled(tx: Connection, metadata: Mapping[str, str]) -> Iterable[ColumnElement[bool]]:
    """One condition a pair. SQLite's JSON paths have no way to write a name that holds a quote: it compares names."""
    for key, value in metadata.items():
        if tx.dialect.name == "sqlite":
            pair = func.json_each(batches.c.metadata).table_valued("key", "value")
            yield exists().select_from(pair).where(pair.c.key == key, pair.c.value == value)
        else:
            yield batches.c.metadata[key].as_string() == value


def to_prepare(tx: Connection, now: float, limit: int) -> list[str]:
    """Batches that are not split yet, or that have a job to submit now."""
    waiting = exists().where(
        jobs.c.batch_id == batches.c.id,
        jobs.c.status.in_([JobState.PLANNED, JobState.SUBMITTING]),
        jobs.c.not_before <= now,
    )
    query = select(batches.c.id).where(
        batches.c.status.in_([BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.CANCELLING]),
        batches.c.not_before <= now,
        or_(batches.c.prepared_at.is_(None), waiting),
    )
    return list(tx.execute(query.order_by(batches.c.priority.desc(), batches.c.expires_at).limit(limit)).scalars())


def ready_to_finalize(tx: Connection, now: float, limit: int) -> list[str]:
    """Prepared batches whose every job is accounted: a crash came between the last two steps, or there was no job."""
    unfinished = exists().where(jobs.c.batch_id == batches.c.id, jobs.c.status != JobState.ACCOUNTED)
    query = select(batches.c.id).where(
        batches.c.not_before <= now,
        batches.c.status.in_([BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.CANCELLING]),
        batches.c.prepared_at.is_not(None),
        ~unfinished,
    )
    return list(tx.execute(query.limit(limit)).scalars())


def to_stop(tx: Connection, now: float, limit: int) -> list[str]:
    """Batches being cancelled or expired that have a running job which was not asked to stop yet."""
    asked = exists().where(
        jobs.c.batch_id == batches.c.id, jobs.c.status == JobState.RUNNING, jobs.c.cancel_at.is_(None)
    )
    query = select(batches.c.id).where(
        batches.c.not_before <= now,
        or_(
            batches.c.status == BatchState.CANCELLING,
            and_(batches.c.status == BatchState.IN_PROGRESS, batches.c.expiring.is_(True)),
        ),
        asked,
    )
    return list(tx.execute(query.limit(limit)).scalars())


def past_deadline(tx: Connection, now: float, limit: int) -> list[str]:
    """Live batches whose window has closed and whose jobs nobody has ended yet."""
    query = select(batches.c.id).where(
        batches.c.status.in_([BatchState.VALIDATING, BatchState.PAUSED, BatchState.IN_PROGRESS]),
        batches.c.expires_at <= now,
        batches.c.expiring.is_(False),
    )
    return list(tx.execute(query.limit(limit)).scalars())


def enqueued(tx: Connection, kind: Literal["project", "key"], name: str) -> tuple[int, int]:
    """(live batches, their estimated input tokens) of a project or a key.

    Whoever asks is alone in asking of the same one until the end of the transaction: he may add a batch to them.
    """
    if tx.dialect.name == "postgresql":
        tx.execute(text("SELECT pg_advisory_xact_lock(8113204, hashtext(:name))"), {"name": f"{kind} {name}"})
    mine = batches.c.project == name if kind == "project" else batches.c.key_id == name
    sums = select(func.count(), func.coalesce(func.sum(batches.c.input_tokens), 0))
    count, tokens = tx.execute(sums.where(mine, batches.c.status.in_(sorted(LIVE_BATCH_STATES)))).one()
    return count, int(tokens)


def next_paused(tx: Connection, now: float, passed: Collection[str]) -> RowMapping | None:
    """The oldest paused batch that none of the budgets of `passed` (owners) pays for."""
    keys = [owner.removeprefix("key:") for owner in passed if owner.startswith("key:")]
    projects = [owner.removeprefix("project:") for owner in passed if owner.startswith("project:")]
    query = select(batches).where(
        batches.c.status == BatchState.PAUSED,
        batches.c.not_before <= now,
        batches.c.key_id.not_in(keys),
        batches.c.project.not_in(projects),
    )
    return tx.execute(query.order_by(batches.c.created_at, batches.c.id).limit(1)).mappings().one_or_none()


def note(tx: Connection, batch_id: str, values: dict[str, Any]) -> None:
    """Sets fields other than the status."""
    tx.execute(update(batches).where(batches.c.id == batch_id).values(values))


def postpone(tx: Connection, batch_ids: Sequence[str], until: float) -> None:
    """Leaves batches alone until then."""
    tx.execute(update(batches).where(batches.c.id.in_(batch_ids)).values(not_before=until))


def fail_attempt(tx: Connection, batch_id: str, now: float, longest: float) -> None:
    """After a durable function that failed: the batch comes up again, later each time (seconds)."""
    row = get(tx, batch_id)
    wait = min(longest, 2.0 ** min(row["attempts"], 16))
    note(tx, batch_id, {"not_before": now + wait, "attempts": row["attempts"] + 1})


def to_tidy(tx: Connection, now: float, keep: float, limit: int) -> list[str]:
    """Batches that ended long enough ago to lose what only `/results` and retries need."""
    ended = func.coalesce(
        batches.c.completed_at, batches.c.expired_at, batches.c.cancelled_at, batches.c.failed_at, now
    )
    query = select(batches.c.id).where(
        batches.c.status.in_(FINAL_BATCH_STATES),
        batches.c.tidied_at.is_(None),
        ended <= now - func.coalesce(batches.c.output_expires_after, keep),
    )
    return list(tx.execute(query.limit(limit)).scalars())


def tidied(tx: Connection, batch_id: str, now: float) -> None:
    """Its segments are gone: nothing of it is left but the row and its ledger."""
    tx.execute(delete(segments).where(segments.c.batch_id == batch_id))
    note(tx, batch_id, {"tidied_at": now})


def amounts(tx: Connection, batch_id: str) -> tuple[int | None, bool]:
    """What the batch's lines amount to: (sum of the known amounts, None when none is known; whether all are known)."""
    total, rows, known = tx.execute(
        select(func.sum(ledger.c.amount), func.count(), func.count(ledger.c.amount)).where(
            ledger.c.batch_id == batch_id,
            ledger.c.kind == "usage",  # corrections stand beside it
        )
    ).one()
    return (int(total) if known else None), rows == known
