"""Counts of what there is at this moment, and the ledger's sums by day: what `/metrics` reads.

Every statement goes by an index and ends after `MOST` rows, so a look costs the same milliseconds however much has been
carried: what has ended is never counted, it is in sums that are kept as it ends (`costs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Select, and_, func, literal, or_, select, union_all

from batchway.core.budgets import GATEWAY, PERIODS, Budget, period_start
from batchway.core.states import FINAL_BATCH_STATES, LIVE_BATCH_STATES, BatchState, JobState
from batchway.db import budgets as budget_rows
from batchway.db.schema import USAGE_COLUMNS, batches, budgets, chunks, costs, deliveries, holds, jobs

MOST = 10_000
PROJECTS = 200
STUCK_SECONDS = 600.0
STUCK_LOOKED_AT = 1000
LIVE_JOB_STATES = tuple(state for state in JobState if state is not JobState.ACCOUNTED)
SINCE = {  # what tells since when a row is in this state; the oldest of them shows that a step stalls
    BatchState.VALIDATING: batches.c.created_at,
    BatchState.FINALIZING: batches.c.finalizing_at,
    JobState.PLANNED: jobs.c.planned_at,
    JobState.SUBMITTING: jobs.c.submitting_at,
    JobState.ENDED: jobs.c.ended_at,
    JobState.COLLECTED: jobs.c.collected_at,
}


class Census(msgspec.Struct, kw_only=True):
    """Amounts are pico-dollars, ages seconds. Ages of what there is none of are 0."""

    batches: dict[str, int]
    jobs: dict[str, int]
    chunks: dict[str, int]
    oldest: dict[str, float]
    poll_delay: float
    near_deadline: int
    holds: int
    held: int
    stuck: int
    deliveries: dict[str, int]


def census(tx: Connection, accounts: Iterable[str], now: float) -> Census:
    """What there is now; `accounts` are those whose chunks are counted."""
    open_hold = holds.c.settled_at.is_(None)
    open_holds, held = tx.execute(
        select(func.count(), func.coalesce(func.sum(holds.c.amount), 0)).where(open_hold)
    ).one()
    return Census(
        batches=_counts(tx, {state: batches.c.status == state for state in LIVE_BATCH_STATES}),
        jobs=_counts(tx, {state: jobs.c.status == state for state in LIVE_JOB_STATES}),
        chunks=_counts(tx, {name: and_(chunks.c.done_at.is_(None), chunks.c.account == name) for name in accounts}),
        oldest={state: _age(tx, column, column.table.c.status == state, now) for state, column in SINCE.items()},
        poll_delay=_poll_delay(tx, now),
        near_deadline=_near_deadline(tx, now),
        holds=open_holds,
        held=int(held),
        stuck=_stuck(tx, now),
        deliveries=_counts(tx, {word: deliveries.c.status == word for word in ("waiting", "dead")}),
    )


def present_budgets(tx: Connection, now: float) -> tuple[list[Budget], float]:
    """The budgets of the gateway and of at most `PROJECTS` projects; and the highest used part of any key's."""
    named = or_(budgets.c.owner == GATEWAY, _starts_with("project:"))
    owners = tx.execute(select(budgets.c.owner).where(named).order_by(budgets.c.owner).limit(PROJECTS + 1)).scalars()
    found = [budget for owner in owners.all() if (budget := budget_rows.budget_of(tx, owner, now)) is not None]
    present = or_(*(and_(budgets.c.period == word, budgets.c.starts_at >= period_start(word, now)) for word in PERIODS))
    some = select(budgets.c.held + budgets.c.settled, budgets.c.amount).where(_starts_with("key:"), present)
    used = (float(part) / amount for part, amount in tx.execute(some.limit(MOST)) if amount)
    return found, max(used, default=0.0)


def first_day(tx: Connection) -> int | None:
    """The first day of which the ledger has entries, in days since 1970."""
    return tx.execute(select(func.min(costs.c.day))).scalar_one()


def sums_of_days(tx: Connection, days: Sequence[int]) -> list[dict[str, Any]]:
    """The ledger of these days by route (account, model, lane) and by project, those that came first before others."""
    return [
        dict(row)
        for columns in ((costs.c.account, costs.c.model, costs.c.lane), (costs.c.project,))
        for row in tx.execute(_sums(days, columns)).mappings()
    ]


def _sums(days: Sequence[int], columns: Sequence[Column[str]]) -> Select[Any]:
    figures = [func.sum(costs.c[name]).label(name) for name in ("unknown", "lines", *USAGE_COLUMNS, "amount")]
    query = select(*columns, *figures).where(costs.c.day.in_(days), costs.c.tag == "").group_by(*columns)
    return query.order_by(func.min(costs.c.day), *columns)


def _counts(tx: Connection, kinds: dict[Any, ColumnElement[bool]]) -> dict[str, int]:
    if not kinds:
        return {}
    parts = [select(literal(str(name)), _number(condition)) for name, condition in kinds.items()]
    return {row[0]: row[1] for row in tx.execute(union_all(*parts))}


def _number(condition: ColumnElement[bool]) -> Any:
    return select(func.count()).select_from(_some(select(literal(1).label("one")).where(condition))).scalar_subquery()


def _some(query: Select[Any]) -> Any:
    return query.limit(MOST).subquery()


def _age(tx: Connection, column: Any, condition: ColumnElement[bool], now: float) -> float:
    found = _some(select(column.label("at")).where(condition))
    oldest = tx.execute(select(func.min(found.c.at))).scalar_one()
    return 0.0 if oldest is None else max(0.0, now - oldest)


def _poll_delay(tx: Connection, now: float) -> float:
    due = tx.execute(select(func.min(jobs.c.poll_at)).where(jobs.c.status == JobState.RUNNING)).scalar_one()
    return 0.0 if not due else max(0.0, now - due)


def _near_deadline(tx: Connection, now: float) -> int:
    soon = (
        batches.c.status.in_(sorted(LIVE_BATCH_STATES)),
        batches.c.expires_at < now + 3600,
        batches.c.expires_at < now + 0.1 * batches.c.window_seconds,
    )
    return tx.execute(select(_number(and_(*soon)))).scalar_one()


def _stuck(tx: Connection, now: float) -> int:
    eldest = select(holds.c.batch_id).where(holds.c.settled_at.is_(None), holds.c.opened_at < now - STUCK_SECONDS)
    some = eldest.order_by(holds.c.opened_at).limit(STUCK_LOOKED_AT).subquery()
    ended_at = func.coalesce(*(batches.c[f"{state}_at"] for state in sorted(FINAL_BATCH_STATES)))
    query = select(func.count()).select_from(some.join(batches, batches.c.id == some.c.batch_id))
    ended = batches.c.status.in_(sorted(FINAL_BATCH_STATES)), ended_at < now - STUCK_SECONDS
    return tx.execute(query.where(*ended)).scalar_one()


def _starts_with(prefix: str) -> ColumnElement[bool]:
    """By the index on owners, which LIKE would not take."""
    after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return and_(budgets.c.owner >= prefix, budgets.c.owner < after)
