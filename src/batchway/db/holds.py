"""Statements over holds: money set aside for a batch when it is accepted, settled when it ends.

One hold a batch, opened once and settled once; repeats of either change nothing, so every ending may settle.
"""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, select, update

from batchway.db.once import insert_once
from batchway.db.schema import holds


def open_hold(tx: Connection, batch: RowMapping, amount: int | None, now: float) -> None:
    """Sets `amount` pico-dollars aside; None when a price is unknown."""
    owner = {"batch_id": batch["id"], "project": batch["project"], "key_id": batch["key_id"]}
    insert_once(tx, holds, {**owner, "amount": amount, "opened_at": now})


def settle_hold(tx: Connection, batch_id: str, amount: int | None, now: float) -> None:
    """Replaces the batch's open hold, if it has one, by what was spent; None when no amount is known."""
    still_open = (holds.c.batch_id == batch_id, holds.c.settled_at.is_(None))
    tx.execute(update(holds).where(*still_open).values(settled_at=now, settled_amount=amount))


def open_holds(tx: Connection) -> list[RowMapping]:
    """The holds that are not settled, oldest first."""
    query = select(holds).where(holds.c.settled_at.is_(None)).order_by(holds.c.opened_at, holds.c.batch_id)
    return list(tx.execute(query).mappings())
