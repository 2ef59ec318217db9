"""Statements over holds: money set aside for a batch when it is admitted, settled when it ends.

One hold a batch, opened once and settled once; repeats of either change nothing, so every ending may settle. A hold
counts in the budgets of its owners, in the period it was opened in: both change in one transaction, budgets first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select, update

from batchway.core.budgets import MOST
from batchway.db import budgets
from batchway.db.once import insert_once
from batchway.db.schema import holds, ledger


def open_hold(tx: Connection, batch: RowMapping | Mapping[str, Any], amount: int | None, now: float) -> None:
    """Sets `amount` pico-dollars aside; None when a price is unknown. Whether there is as much is asked before."""
    paying, at = budgets.lock(tx, batch["project"], batch["key_id"], now)
    amount = amount if amount is None else min(amount, MOST)
    owner = {"batch_id": batch["id"], "project": batch["project"], "key_id": batch["key_id"]}
    if insert_once(tx, holds, {**owner, "amount": amount, "opened_at": at}):
        for budget in paying:
            budgets.add(tx, budget, now, held=amount or 0)


def settle_hold(tx: Connection, batch_id: str, now: float) -> None:
    """Replaces the batch's open hold, if it has one, by what the ledger says; None when no amount is known."""
    hold, paying = budgets.lock_hold(tx, batch_id, now)
    if hold is None or hold["settled_at"] is not None:
        return
    posted = tx.execute(select(func.sum(ledger.c.amount)).where(ledger.c.batch_id == batch_id)).scalar_one()
    amount = None if posted is None else int(posted)
    tx.execute(update(holds).where(holds.c.batch_id == batch_id).values(settled_at=now, settled_amount=amount))
    for budget in paying:
        if hold["opened_at"] >= budget.starts_at:
            budgets.add(tx, budget, now, held=-(hold["amount"] or 0), settled=amount or 0)


def of_batch(tx: Connection, batch_id: str) -> RowMapping | None:
    """The batch's hold, open or settled."""
    return tx.execute(select(holds).where(holds.c.batch_id == batch_id)).mappings().one_or_none()


def cap(tx: Connection, batch_id: str) -> int | None:
    """Pico-dollars after which nothing more is paid for a batch; None when nothing limits it, or nobody knows."""
    hold = of_batch(tx, batch_id)
    if hold is None or hold["amount"] is None or not budgets.applies(tx, hold["project"], hold["key_id"]):
        return None
    return hold["amount"]


def open_holds(tx: Connection) -> list[RowMapping]:
    """The holds that are not settled, oldest first."""
    query = select(holds).where(holds.c.settled_at.is_(None)).order_by(holds.c.opened_at, holds.c.batch_id)
    return list(tx.execute(query).mappings())
