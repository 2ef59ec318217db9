"""Statements of the outbox: events are stored in the transaction of the change they tell of."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from batchway.core.events import CALL_TYPES, Event, EventType
from batchway.core.ids import new_id
from batchway.db.schema import outbox


class About(msgspec.Struct, frozen=True):
    """Whom an event concerns: the batch, file, key or budget, and the project and key that it belongs to."""

    subject: str
    project: str
    key_id: str


def tell(tx: Connection, kind: EventType, about: About, now: float, data: dict[str, Any]) -> None:
    """Appends one event."""
    if kind in CALL_TYPES:
        data = {"call_type": CALL_TYPES[kind], **data}
    values = {"id": new_id("evt_"), "type": kind, "data": data, "created_at": now}
    tx.execute(insert(outbox).values(**values, **msgspec.structs.asdict(about)))


def of_subject(tx: Connection, subject: str) -> list[Event]:
    """Every event about one batch or file, oldest first."""
    rows = tx.execute(select(outbox).where(outbox.c.subject == subject).order_by(outbox.c.seq)).mappings()
    return [_event(row) for row in rows]


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
