"""What is known of the past: how long answers of a key's lines were, and how long jobs of a route took."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from batchway.core.jobs import Route
from batchway.core.states import JobState, Outcome
from batchway.db.schema import costs, jobs


class Usual(NamedTuple):
    """Sums over the answered lines of a key on a route."""

    lines: int
    output_tokens: int
    milliseconds: int


def usual(tx: Connection, key_id: str, route: Route, days: range) -> Usual:
    """What this key's lines had of the route's model, in either lane, on these days (since 1970)."""
    sums = (func.coalesce(func.sum(costs.c[name]), 0) for name in Usual._fields)
    found = select(*sums).where(
        costs.c.tag == "",
        costs.c.day.in_(days),  # each day and tag is a range of the primary key; all days would be every tag's rows
        costs.c.key_id == key_id,
        costs.c.account == route.account,
        costs.c.model == route.model,
    )
    return Usual(*map(int, tx.execute(found).one()))


def latest_jobs(tx: Connection, route: Route, since: float, limit: int) -> list[tuple[int, float]]:
    """(lines, seconds from planning to end) of the route's latest jobs that ended well since then, newest first."""
    found = (
        select(jobs.c.lines, jobs.c.ended_at - jobs.c.planned_at)
        .where(
            jobs.c.account == route.account,
            jobs.c.model == route.model,
            jobs.c.ended_at >= since,
            jobs.c.lane == route.lane,
            jobs.c.status == JobState.ACCOUNTED,
            jobs.c.outcome == Outcome.SUCCEEDED,
        )
        .order_by(jobs.c.ended_at.desc())
        .limit(limit)
    )
    return [(lines, seconds) for lines, seconds in tx.execute(found)]
