"""Statements over tallies: how often something was done in a stretch of time, counted up to a limit.

A tally has one row for its present stretch; the first count of a new stretch deletes the rows of earlier ones.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, update
from sqlalchemy.dialects import postgresql, sqlite

from batchway.db.schema import tallies


def take(tx: Connection, name: str, starts_at: float, limit: int) -> int | None:
    """The count with this one (1..limit); None, and nothing is counted, when `limit` is reached."""
    if limit < 1:
        return None
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    statement = (
        insert(tallies)
        .values(name=name, starts_at=starts_at, count=1)
        .on_conflict_do_update(
            index_elements=[tallies.c.name, tallies.c.starts_at],
            set_={"count": tallies.c.count + 1},
            where=tallies.c.count < limit,
        )
        .returning(tallies.c.count)
    )
    count = tx.execute(statement).scalar_one_or_none()
    if count == 1:
        tx.execute(delete(tallies).where(tallies.c.name == name, tallies.c.starts_at < starts_at))
    return count


def give_back(tx: Connection, name: str, starts_at: float) -> None:
    """One less: what was counted came to nothing."""
    mine = (tallies.c.name == name, tallies.c.starts_at == starts_at, tallies.c.count > 0)
    tx.execute(update(tallies).where(*mine).values(count=tallies.c.count - 1))
