"""A job's tokens become money in the ledger, once.

The ledger's unique key (job, kind, model) makes a repeat a no-op, and the entry, the job's step to `accounted` and the
settling of the hold are one transaction. It runs for every ending: what was answered was paid, also in a batch that
expired, failed or was cancelled. Each line is priced by itself, since prices may depend on a line's length; the price
is kept with the job, so that a later one never changes what a line is said to cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.billing.prices import Price
from batchway.core.answers import Stored
from batchway.core.states import JobState
from batchway.core.usage import NO_USAGE, Usage, line_usage
from batchway.db import batches, holds, jobs, ledger
from batchway.db.transitions import move_job
from batchway.pipeline.answers import read_answers
from batchway.pipeline.routing import price_of
from batchway.pipeline.trip import Trip


async def account(trip: Trip, job_id: str) -> None:
    """Leaves a collected job accounted."""
    row = await trip.db.read(jobs.get, job_id)
    if row["status"] != JobState.COLLECTED:
        return
    price = price_of(trip, row)
    usage, amount, answered = NO_USAGE, 0, 0
    async for window in _answers(trip, row):
        for answer in window:
            if answer.ok:
                spent = line_usage(answer.line, answer.milliseconds)
                usage, answered = usage + spent, answered + 1
                amount += price.amount(spent) if price else 0
        await asyncio.sleep(0)  # a window is a few milliseconds of work: let the others in
    await trip.db.write(_post, row, usage, (amount if price else None, answered, price), trip.clock())
    trip.bells.work.set()
    trip.bells.money.set()


def _answers(trip: Trip, row: RowMapping) -> AsyncIterator[list[Stored]]:
    return read_answers(trip.storage, row["answers_key"]) if row["answers_key"] else _none()


async def _none() -> AsyncIterator[list[Stored]]:
    """Those of a job that another one took over."""
    for window in ():
        yield window


def _post(
    tx: Connection, row: RowMapping, usage: Usage, priced: tuple[int | None, int, Price | None], now: float
) -> None:
    amount, answered, price = priced
    batch = batches.get(tx, row["batch_id"])
    if answered:
        ledger.post(tx, _entry(row, batch, usage, answered), amount, price.source if price else None, now)
    values: dict[str, Any] = {
        "usage": msgspec.to_builtins(usage),
        "amount": amount if answered else 0,
        "price": price.to_json() if price else None,
    }
    move_job(tx, row["id"], JobState.COLLECTED, JobState.ACCOUNTED, now, values)
    if all(job["status"] == JobState.ACCOUNTED for job in jobs.of_batch(tx, row["batch_id"])):
        holds.settle_hold(tx, row["batch_id"], now)


def _entry(row: RowMapping, batch: RowMapping, usage: Usage, answered: int) -> ledger.Entry:
    return ledger.Entry(
        job_id=row["id"],
        first_line=row["first_line"],
        batch_id=row["batch_id"],
        project=batch["project"],
        key_id=batch["key_id"],
        account=row["account"],
        model=row["model"],
        lane=row["lane"],
        lines=answered,
        usage=usage,
    )
