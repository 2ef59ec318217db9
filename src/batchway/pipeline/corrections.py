"""Corrections and refunds: entries added to the ledger of an ended batch. Not a stage.

Nothing posted is ever changed. One transaction holds the entry, its part of the daily sums, the settled amounts of the
budgets, the event and whatever else the caller puts there. A reference is posted once for a batch, whoever repeats it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import Conflict, RequestError
from batchway.core.events import EventType
from batchway.core.ids import IdMaker
from batchway.core.money import PICO, to_dollars, to_pico
from batchway.core.states import FINAL_BATCH_STATES
from batchway.db import batches, budgets, costs, jobs, ledger
from batchway.db.outbox import About, tell
from batchway.wire.costs import Correction, CorrectionCreate

AMOUNT = re.compile(r"[+-]?[0-9]{1,7}(\.[0-9]{1,12})?")
MOST = 1_000_000 * PICO  # of one correction


def correct(tx: Connection, wanted: CorrectionCreate, now: float, ids: IdMaker) -> tuple[Correction, bool]:
    """The correction, and whether it is new. NotFound, Conflict or RequestError when it cannot be posted."""
    amount = _amount(wanted)
    batch = batches.get(tx, wanted.batch_id, hold=True)  # two with one reference come one after the other
    if batch["status"] not in FINAL_BATCH_STATES:
        message = f"Batch '{batch['id']}' has status '{batch['status']}': correct its amount after its end."
        raise Conflict(message, code="batch_not_ended", param="batch_id")
    entries = ledger.of_batch(tx, batch["id"])
    earlier = [row for row in entries if row["kind"] != ledger.USAGE and row["reference"] == wanted.reference]
    if earlier:
        return _repeated(earlier[0], wanted, amount, _sum(entries)), False
    values = _values(tx, batch, wanted) | {"amount": amount, "created_at": now}
    values["reference"] = wanted.reference or ids("correction_")
    costs.post_correction(tx, values)
    budgets.adjust(tx, batch["id"], amount, now)
    made = _to_wire(values, _sum(entries) + amount)
    data = {"amount": amount, **msgspec.to_builtins(made)}
    tell(tx, EventType.COST_CORRECTED, About(batch["id"], batch["project"], batch["key_id"]), now, data)
    return made, True


def _amount(wanted: CorrectionCreate) -> int:
    """In pico-dollars."""
    if not AMOUNT.fullmatch(wanted.amount_usd):
        message = "Invalid 'amount_usd': write decimal dollars such as '-1.25', with at most 12 decimals."
        raise RequestError(message, code="invalid_value", param="amount_usd")
    amount = to_pico(wanted.amount_usd)
    if amount == 0 or abs(amount) > MOST or (wanted.kind == "refund" and amount > 0):
        message = "Invalid 'amount_usd': it must not be 0, nor beyond 1000000, and a refund is negative."
        raise RequestError(message, code="invalid_value", param="amount_usd")
    return amount


def _values(tx: Connection, batch: RowMapping, wanted: CorrectionCreate) -> dict[str, Any]:
    """The entry's owner and route: what all jobs that it may be about have in common."""
    routes = {(job["account"], job["model"], job["lane"]) for job in jobs.of_batch(tx, batch["id"])}
    meant = [route for route in routes if wanted.provider in (None, route[0]) and wanted.model in (None, route[1])]
    if not meant and (wanted.provider or wanted.model):
        there = ", ".join(sorted(f"{account}/{model}" for account, model, _ in routes)) or "none"
        message = f"No job of batch '{batch['id']}' is of this 'provider' and 'model'; its jobs are of: {there}."
        raise RequestError(message, code="invalid_value", param="provider" if wanted.provider else "model")
    common = [parts.pop() if len(parts := set(part)) == 1 else "" for part in zip(*meant, strict=True)] or ["", "", ""]
    return {
        "batch_id": batch["id"],
        "project": batch["project"],
        "key_id": batch["key_id"],
        "kind": wanted.kind,
        "note": wanted.note,
        **dict(zip(("account", "model", "lane"), common, strict=True)),
    }


def _repeated(row: RowMapping, wanted: CorrectionCreate, amount: int, total: int) -> Correction:
    if (row["kind"], row["amount"]) != (wanted.kind, amount):
        message = f"The reference '{row['reference']}' was used for this batch with another amount or kind."
        raise Conflict(message, code="reference_used", param="reference")
    return _to_wire(row, total)


def _sum(entries: list[RowMapping]) -> int:
    return sum(row["amount"] for row in entries if row["kind"] != ledger.USAGE)


def _to_wire(row: Any, total: int) -> Correction:
    return Correction(
        batch_id=row["batch_id"],
        kind=row["kind"],
        reference=row["reference"],
        amount_usd=to_dollars(row["amount"]),
        note=row["note"],
        provider=row["account"] or None,
        model=row["model"] or None,
        created_at=int(row["created_at"]),
        corrections_usd=to_dollars(total),
    )
