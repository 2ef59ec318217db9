"""Statements over budgets: set, dropped, locked, drawn on, recounted.

The invariant: `held` and `settled` of a row are the sums over the holds of its owner that were opened at or after
`starts_at`; whoever changes a hold changes these in the same transaction, through `db/holds.py`. `check` recounts.

Rows are locked before holds are touched, in the order of their owners' names. Setting or dropping a budget locks the
whole table on PostgreSQL, since a row that is not there yet cannot be locked: no hold may come in between the recount
and the row. `starts_at` only moves forward, so processes whose clocks differ agree on the period.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, case, delete, func, insert, select, text, true, update

from batchway.core.budgets import MOST, Budget, Period, owners, period_start
from batchway.core.events import EventType
from batchway.core.states import FINAL_BATCH_STATES
from batchway.db.once import insert_once
from batchway.db.outbox import About, tell
from batchway.db.schema import batches, budgets, holds, keys, ledger

NOBODY = ""


def set_budget(tx: Connection, owner: str, amount: int, period: Period, now: float) -> Budget:
    """The owner's budget from now on, with what it has spent in the period so far; ValueError for an amount of no use.

    `amount` is in pico-dollars. Thresholds that a higher amount is above of again can be told of again.
    """
    if not 0 <= amount <= MOST:
        raise ValueError(f"a budget is between 0 and {MOST} pico-dollars")
    _lock_table(tx)
    old = _find(tx, owner)
    starts_at = period_start(period, now)
    told = 0
    if old is not None and old.period == period:
        starts_at = max(starts_at, old.starts_at)
        told = old.told if starts_at == old.starts_at else 0
    held, settled = _recount(tx, owner, starts_at)
    budget = Budget(owner=owner, amount=amount, period=period, starts_at=starts_at, held=held, settled=settled)
    still = [percent for percent in budget.reached() if percent <= told]
    budget = _tell(tx, msgspec.structs.replace(budget, told=max(still, default=0)), now)
    tx.execute(delete(budgets).where(budgets.c.owner == owner))
    tx.execute(insert(budgets).values(msgspec.structs.asdict(budget)))
    return budget


def drop_budget(tx: Connection, owner: str) -> bool:
    """Whether there was one; from now on this owner is not limited."""
    _lock_table(tx)
    return tx.execute(delete(budgets).where(budgets.c.owner == owner)).rowcount == 1


def budget_of(tx: Connection, owner: str, now: float) -> Budget | None:
    """The owner's budget as it is in the period of `now`; writes nothing."""
    budget = _find(tx, owner)
    return None if budget is None else _rolled(tx, budget, now)


def applies(tx: Connection, project: str, key_id: str) -> bool:
    """Whether any budget limits what this key makes."""
    paying = budgets.c.owner.in_(owners(project, key_id))
    return tx.execute(select(budgets.c.owner).where(paying).limit(1)).first() is not None


def lock(tx: Connection, project: str, key_id: str, now: float) -> tuple[list[Budget], float]:
    """The budgets that pay for what this key makes, nobody else's until the end of the transaction; and the time.

    The time is `now`, but never before the period that another process, by its own clock, has begun already.
    """
    paying = select(budgets).where(budgets.c.owner.in_(owners(project, key_id)))
    rows = tx.execute(paying.order_by(budgets.c.owner).with_for_update()).mappings()
    found = [Budget(**row) for row in rows]
    at = max([now, *(budget.starts_at for budget in found)])
    present: list[Budget] = []
    for budget in found:
        rolled = _rolled(tx, budget, at)
        if rolled is not budget:
            _write(tx, rolled)
        present.append(rolled)
    return present, at


def add(tx: Connection, budget: Budget, now: float, *, held: int = 0, settled: int = 0) -> None:
    """Draws on a locked budget, or gives back; tells of the thresholds that are reached by it."""
    drawn = msgspec.structs.replace(budget, held=budget.held + held, settled=budget.settled + settled)
    _write(tx, _tell(tx, drawn, now))


def lock_hold(tx: Connection, batch_id: str, now: float) -> tuple[RowMapping | None, list[Budget]]:
    """The batch's hold and the budgets that pay for it, all of them nobody else's until the end of the transaction."""
    mine = select(holds).where(holds.c.batch_id == batch_id)
    hold = tx.execute(mine).mappings().one_or_none()
    if hold is None:
        return None, []
    paying, _ = lock(tx, hold["project"], hold["key_id"], now)
    return tx.execute(mine.with_for_update()).mappings().one(), paying


def adjust(tx: Connection, batch_id: str, pico: int, now: float) -> None:
    """After a correction of so much was posted to the ledger: the settled hold and its budgets follow it.

    An open hold needs nothing, since it is settled with all that was posted. A batch that never held anything gets a
    settled hold, so that its owners' budgets count the correction too.
    """
    hold, paying = lock_hold(tx, batch_id, now)
    if hold is None:
        batch = tx.execute(select(batches.c.project, batches.c.key_id).where(batches.c.id == batch_id)).mappings().one()
        paying, at = lock(tx, batch["project"], batch["key_id"], now)
        row = {"batch_id": batch_id, **batch, "amount": 0, "opened_at": at, "settled_at": now, "settled_amount": pico}
        if not insert_once(tx, holds, row):
            adjust(tx, batch_id, pico, now)  # it was admitted this moment
            return
        opened_at = at
    elif hold["settled_at"] is None:
        return
    else:
        opened_at = hold["opened_at"]
        grown = func.coalesce(holds.c.settled_amount, 0) + pico
        tx.execute(update(holds).where(holds.c.batch_id == batch_id).values(settled_amount=grown))
    for budget in paying:
        if opened_at >= budget.starts_at:
            add(tx, budget, now, settled=pico)


def check(tx: Connection) -> list[str]:
    """Whatever does not hold of budgets, holds, batches and the ledger: sentences, none when all is well."""
    found: list[str] = []
    for row in tx.execute(select(budgets)).mappings():
        recounted = _recount(tx, row["owner"], row["starts_at"])
        if (row["held"], row["settled"]) != recounted:
            found.append(f"budget {row['owner']} says {row['held']} held, {row['settled']} settled, not {recounted}")
    ended = select(holds.c.batch_id).join(batches, batches.c.id == holds.c.batch_id)
    ended = ended.where(holds.c.settled_at.is_(None), batches.c.status.in_(FINAL_BATCH_STATES))
    found += [f"the hold of {batch_id} is open, and the batch has ended" for batch_id in tx.execute(ended).scalars()]
    paid = select(func.sum(ledger.c.amount)).where(ledger.c.batch_id == holds.c.batch_id).scalar_subquery()
    settled = select(holds.c.batch_id, holds.c.settled_amount, paid).where(
        holds.c.settled_at.is_not(None), func.coalesce(holds.c.settled_amount, 0) != func.coalesce(paid, 0)
    )
    for batch_id, amount, posted in tx.execute(settled):
        found.append(f"the hold of {batch_id} was settled with {amount}, the ledger says {posted}")
    return found


def _find(tx: Connection, owner: str) -> Budget | None:
    row = tx.execute(select(budgets).where(budgets.c.owner == owner)).mappings().one_or_none()
    return None if row is None else Budget(**row)


def _rolled(tx: Connection, budget: Budget, at: float) -> Budget:
    """The budget in the period of `at`, or itself when that is not later than its own."""
    starts_at = period_start(budget.period, at)
    if starts_at <= budget.starts_at:
        return budget
    held, settled = _recount(tx, budget.owner, starts_at)
    return msgspec.structs.replace(budget, starts_at=starts_at, held=held, settled=settled, told=0)


def _recount(tx: Connection, owner: str, starts_at: float) -> tuple[int, int]:
    """(held, settled) of all holds that were opened since then."""
    still_held = case((holds.c.settled_at.is_(None), holds.c.amount), else_=0)
    sums = select(func.coalesce(func.sum(still_held), 0), func.coalesce(func.sum(holds.c.settled_amount), 0))
    held, settled = tx.execute(sums.where(_of(owner), holds.c.opened_at >= starts_at)).one()
    return int(held), int(settled)


def _of(owner: str) -> ColumnElement[bool]:
    kind, _, name = owner.partition(":")
    if kind == "key":
        return holds.c.key_id == name
    return holds.c.project == name if kind == "project" else true()


def _write(tx: Connection, budget: Budget) -> None:
    tx.execute(update(budgets).where(budgets.c.owner == budget.owner).values(msgspec.structs.asdict(budget)))


def _tell(tx: Connection, budget: Budget, now: float) -> Budget:
    """The budget with every threshold told of that it has reached."""
    new: Sequence[int] = [percent for percent in budget.reached() if percent > budget.told]
    for percent in new:
        data = msgspec.structs.asdict(budget) | {"percent": percent, "remainder": budget.remainder}
        del data["told"]
        tell(tx, EventType.BUDGET_THRESHOLD, _about(tx, budget.owner), now, data)
    return msgspec.structs.replace(budget, told=max(new)) if new else budget


def _about(tx: Connection, owner: str) -> About:
    kind, _, name = owner.partition(":")
    if kind != "key":
        return About(owner, name if kind == "project" else NOBODY, NOBODY)
    project = tx.execute(select(keys.c.project).where(keys.c.id == name)).scalar_one_or_none()
    return About(owner, project or NOBODY, name)


def _lock_table(tx: Connection) -> None:
    """Waits for every transaction that asked for budgets, also those that found none, and keeps new ones waiting."""
    if tx.dialect.name == "postgresql":
        tx.execute(text("LOCK TABLE budgets IN EXCLUSIVE MODE"))
