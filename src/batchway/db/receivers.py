"""Statements over receivers: how far each has been told, what it could not take, how far behind it is.

A receiver's `position` is that of the last event it knows; it only grows, so a process that was frozen while another
took over cannot set it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, select, update

from batchway.core.errors import NotFound
from batchway.core.events import Event
from batchway.db import outbox
from batchway.db.once import insert_once
from batchway.db.schema import dead_letters, projects, receivers
from batchway.db.schema import outbox as events

WELL = {"failures": 0, "failing_since": None, "not_before": 0.0, "last_error": None}
LONGEST_ERROR = 500  # characters


class Lag(msgspec.Struct, frozen=True):
    """How far a receiver is behind: events that it does not know yet, and the age of the oldest of them in seconds."""

    name: str
    events: int
    seconds: float
    failures: int  # in a row
    dead: int  # events that it refused, or could not take for days


def remember(tx: Connection, name: str, now: float, *, from_start: bool) -> RowMapping:
    """The receiver's row. A new one knows the whole past, or with `from_start` nothing of it."""
    found = tx.execute(select(receivers).where(receivers.c.name == name)).mappings().first()
    if found is not None:
        return found
    position = 0 if from_start else outbox.end(tx)
    insert_once(tx, receivers, {"name": name, "position": position, "told_at": now, **WELL})
    return get(tx, name)


def get(tx: Connection, name: str) -> RowMapping:
    """The row of one receiver; NotFound when nobody of that name was ever told."""
    found = tx.execute(select(receivers).where(receivers.c.name == name)).mappings().first()
    if found is None:
        raise NotFound(f"No receiver '{name}' has been told of events; `batchway receivers list` shows those that are.")
    return found


def every(tx: Connection) -> list[RowMapping]:
    """All rows, by name."""
    return list(tx.execute(select(receivers).order_by(receivers.c.name)).mappings())


def move(tx: Connection, name: str, position: int, now: float) -> None:
    """It has been told of everything up to there, and is well."""
    further = (receivers.c.name == name) & (receivers.c.position < position)
    tx.execute(update(receivers).where(further).values(position=position, lines_told=0, told_at=now, **WELL))


def skip(tx: Connection, name: str, position: int, now: float) -> None:
    """It is told of what follows, although it did not take the event there: it stays as unwell as it is."""
    further = (receivers.c.name == name) & (receivers.c.position < position)
    tx.execute(update(receivers).where(further).values(position=position, lines_told=0, told_at=now))


def told_lines(tx: Connection, name: str, position: int, lines: int, now: float) -> None:
    """It has been told of so many line records of the event that follows `position`."""
    same = (receivers.c.name == name) & (receivers.c.position == position)
    tx.execute(update(receivers).where(same).values(lines_told=lines, told_at=now, **WELL))


def fail(tx: Connection, name: str, error: str, now: float, not_before: float) -> None:
    """Notes a failure; it is told again from `not_before` on."""
    since = func.coalesce(receivers.c.failing_since, now)
    noted = {"failures": receivers.c.failures + 1, "failing_since": since, "not_before": not_before}
    tx.execute(update(receivers).where(receivers.c.name == name).values(last_error=error[:LONGEST_ERROR], **noted))


def bury(tx: Connection, name: str, event: Event, error: str, now: float) -> None:
    """Keeps an event that the receiver did not take as a dead letter; a repeat keeps the last error."""
    values = {"event": msgspec.to_builtins(event), "error": error[:LONGEST_ERROR], "died_at": now, "again_at": None}
    if not insert_once(tx, dead_letters, {"receiver": name, "event_id": event.id, **values}):
        tx.execute(update(dead_letters).where(_letter(name, event.id)).values(values))


def redeliver(tx: Connection, name: str, now: float) -> int:
    """Asks for all dead letters of a receiver to be told again, and for its pause to end; how many there are."""
    get(tx, name)
    tx.execute(update(receivers).where(receivers.c.name == name).values(not_before=0.0))
    return tx.execute(update(dead_letters).where(dead_letters.c.receiver == name).values(again_at=now)).rowcount


def wanted(tx: Connection, name: str, limit: int) -> list[Event]:
    """Dead letters that are to be told again, oldest first."""
    query = select(dead_letters.c.event).where(dead_letters.c.receiver == name, dead_letters.c.again_at.is_not(None))
    rows: Iterable[Any] = tx.execute(query.order_by(dead_letters.c.died_at).limit(limit)).scalars()
    return msgspec.convert(list(rows), list[Event])


def unbury(tx: Connection, name: str, event_id: str) -> None:
    """A dead letter was taken after all."""
    tx.execute(delete(dead_letters).where(_letter(name, event_id)))


def known_by_all(tx: Connection) -> int | None:
    """The position up to which every receiver has been told; None when there is none."""
    return tx.execute(select(func.min(receivers.c.position))).scalar_one()


def forget(tx: Connection, configured: Iterable[str], gone_before: float, died_before: float) -> None:
    """Drops receivers that are not configured and were last told before then, and old dead letters (unix seconds)."""
    gone = receivers.c.name.not_in(list(configured)) & (receivers.c.told_at < gone_before)
    tx.execute(delete(receivers).where(gone))
    tx.execute(delete(dead_letters).where(dead_letters.c.died_at < died_before))


def redaction(tx: Connection, project: str) -> str:
    """What line records of a project may show: none (nothing is taken away), hash or drop."""
    found = tx.execute(select(projects.c.redaction).where(projects.c.name == project)).scalar()
    return found or "none"


def lag(tx: Connection, now: float) -> list[Lag]:
    """How far each receiver is behind, by name."""
    end, unplaced = outbox.end(tx), outbox.unplaced(tx)
    counted = select(dead_letters.c.receiver, func.count()).group_by(dead_letters.c.receiver)
    dead = {row[0]: row[1] for row in tx.execute(counted)}
    return [
        Lag(
            name=row["name"],
            events=max(0, end - row["position"]) + unplaced,
            seconds=_age(tx, row["position"], now),
            failures=row["failures"],
            dead=dead.get(row["name"], 0),
        )
        for row in every(tx)
    ]


def _age(tx: Connection, position: int, now: float) -> float:
    following = select(events.c.created_at).where(events.c.position > position).order_by(events.c.position).limit(1)
    oldest = tx.execute(following).scalar()
    if oldest is None:
        oldest = tx.execute(select(func.min(events.c.created_at)).where(events.c.position.is_(None))).scalar()
    return max(0.0, now - oldest) if oldest is not None else 0.0


def _letter(name: str, event_id: str) -> Any:
    return (dead_letters.c.receiver == name) & (dead_letters.c.event_id == event_id)
