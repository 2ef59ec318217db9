"""Statements over the ledger: one entry for a job, kind and model. Entries are added, never changed.

The unique key (job, kind, model) makes a repeat a no-op, so billing happens once whoever does it, however often.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, RowMapping, select

from batchway.core.usage import Usage
from batchway.db import costs
from batchway.db.once import insert_once
from batchway.db.schema import ledger

USAGE = "usage"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's answered lines used. `model` is the provider's name for it, `lines` those with an answer."""

    job_id: str
    first_line: int
    batch_id: str
    project: str
    key_id: str
    account: str
    model: str
    lane: str
    lines: int
    usage: Usage


def post(tx: Connection, entry: Entry, amount: int | None, source: str | None, now: float) -> bool:
    """Adds an entry; False when the job's usage of this model was posted before, which then stays as it is.

    `amount` is in pico-dollars, None when the price is unknown; `source` says where the price stands.
    """
    values = {
        "job_id": entry.job_id,
        "first_line": entry.first_line,
        "batch_id": entry.batch_id,
        "project": entry.project,
        "key_id": entry.key_id,
        "kind": USAGE,
        "account": entry.account,
        "model": entry.model,
        "lane": entry.lane,
        "lines": entry.lines,
        **msgspec.structs.asdict(entry.usage),
        "amount": amount,
        "price_source": source,
        "created_at": now,
    }
    if not insert_once(tx, ledger, values):
        return False
    costs.add(tx, values)
    return True


def of_batch(tx: Connection, batch_id: str) -> list[RowMapping]:
    """The entries of a batch in the order they were posted."""
    return list(tx.execute(select(ledger).where(ledger.c.batch_id == batch_id).order_by(ledger.c.id)).mappings())
