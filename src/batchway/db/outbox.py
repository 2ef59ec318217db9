"""Statements of the outbox: events are stored in the transaction of the change they tell of, and put in order later.

`seq` is drawn while a transaction runs, so on PostgreSQL a lower one may be committed after a higher one was read, and
whoever reads by `seq` skips it. So committed events are given `position`s, gapless from 1, by one process at a time:
`place` runs in the transaction that holds the lease of that process (`db/leases.py`), hence sees every position given
before. An event that was committed before another began comes before it: causes come before their effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from batchway.core.events import CALL_TYPES, Event, EventType
from batchway.core.ids import new_id
from batchway.db.engine import TOLD
from batchway.db.schema import outbox


class About(msgspec.Struct, frozen=True):
    """Whom an event concerns: the batch, file, key or budget, and the project and key that it belongs to."""

    subject: str
    project: str
    key_id: str


def tell(tx: Connection, kind: EventType, about: About, now: float, data: dict[str, Any]) -> None:
    """Appends one event."""
    if kind in CALL_TYPES:
        data = {**data, "call_type": CALL_TYPES[kind]}
    values = {"id": new_id("evt_"), "type": kind, "data": data, "created_at": now}
    tx.execute(insert(outbox).values(**values, **msgspec.structs.asdict(about)))
    tx.info[TOLD] = True


def place(tx: Connection, limit: int) -> int:
    """Gives the oldest committed events without a position the next ones, at most `limit`; how many there were."""
    waiting = select(outbox.c.seq).where(outbox.c.position.is_(None)).order_by(outbox.c.seq).limit(limit).subquery()
    new = select(waiting.c.seq, func.row_number().over(order_by=waiting.c.seq).label("place")).subquery()
    placed = update(outbox).where(outbox.c.seq == new.c.seq).values(position=end(tx) + new.c.place)
    return tx.execute(placed).rowcount


def unplaced(tx: Connection) -> int:
    """How many events have no position yet."""
    return tx.execute(select(func.count()).select_from(outbox).where(outbox.c.position.is_(None))).scalar_one()


def end(tx: Connection) -> int:
    """The last position given; 0 before the first."""
    return tx.execute(select(func.max(outbox.c.position))).scalar_one() or 0


def after(tx: Connection, position: int, limit: int) -> list[Event]:
    """The events that follow a position, in order."""
    following = select(outbox).where(outbox.c.position > position).order_by(outbox.c.position).limit(limit)
    return [_event(row) for row in tx.execute(following).mappings()]


def of_subject(tx: Connection, subject: str) -> list[Event]:
    """Every event about one batch or file, oldest first."""
    rows = tx.execute(select(outbox).where(outbox.c.subject == subject).order_by(outbox.c.seq)).mappings()
    return [_event(row) for row in rows]


def of_subjects(tx: Connection, subjects: Sequence[str], position: int, upto: int) -> list[Event]:
    """The events about any of these that follow `position`, up to and including the position `upto`, in order."""
    if upto <= position:
        return []
    within = outbox.c.position > position, outbox.c.position <= upto, outbox.c.subject.in_(subjects)
    return [_event(row) for row in tx.execute(select(outbox).where(*within).order_by(outbox.c.position)).mappings()]


def of_subject_after(tx: Connection, subject: str, event_id: str, limit: int) -> list[Event]:
    """The placed events about a subject that follow the event `event_id`; all of them when that one is not known."""
    known = select(outbox.c.position).where(outbox.c.id == event_id, outbox.c.subject == subject).scalar_subquery()
    following = select(outbox).where(outbox.c.subject == subject, outbox.c.position > func.coalesce(known, 0))
    return [_event(row) for row in tx.execute(following.order_by(outbox.c.position).limit(limit)).mappings()]


def prune(tx: Connection, told: int | None, before: float) -> int:
    """Deletes events from before then (unix seconds) up to the position `told` (None: whatever their position).

    The newest one stays, since positions are counted on from it.
    """
    last = end(tx)
    upto = last - 1 if told is None else min(told, last - 1)
    old = (outbox.c.created_at < before) & (outbox.c.position <= upto)
    return tx.execute(delete(outbox).where(old)).rowcount


def _event(row: Any) -> Event:
    return Event(
        id=row["id"],
        type=EventType(row["type"]),
        subject=row["subject"],
        project=row["project"],
        key_id=row["key_id"],
        position=row["position"],
        created_at=row["created_at"],
        data=row["data"],
    )
