"""An endpoint that the operator pays by the second: its busy time is counted from the answer to the bill."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from decimal import Decimal

import msgspec

from batchway.billing.own import own_rows
from batchway.billing.prices import Prices
from batchway.core.money import PICO
from batchway.core.states import BatchState
from batchway.pipeline.results import results
from batchway.providers.protocol import Answer
from batchway.wire.batches import ResultsFilter
from tests.stages.memory_provider import answer_line, bad
from tests.stages.world import SERVED, chat, either

__all__ = ["either"]

PER_SECOND = {"gamma/*": {"per_second": "0.0004", "input": "1"}}  # dollars; and a dollar a million tokens


def busy(name: str) -> Answer:
    number = int(name.partition("-")[2])
    if number == 3:
        return msgspec.structs.replace(bad(name), milliseconds=9)
    return Answer(name, ok=True, line=answer_line(name, tokens=(10, 5)), milliseconds=number * 100)


async def test_the_milliseconds_of_every_answer_are_paid_for_once(either):
    either.trip = dataclasses.replace(either.trip, prices=Prices(own=own_rows(PER_SECOND, date(2026, 11, 22))))
    batch_id = await either.ended(*chat(5, SERVED), answer=busy)
    assert await either.drive(batch_id) == BatchState.COMPLETED
    (entry,) = await either.entries(batch_id)
    spent = 100 + 200 + 400 + 500
    assert (entry["lines"], entry["milliseconds"], entry["input_tokens"]) == (4, spent, 40)
    assert entry["amount"] == spent * 4 * PICO // 10_000_000 + 40 * PICO // 10**6
    lines = [
        json.loads(line)
        async for window in results(either.trip, None, batch_id, ResultsFilter(order="input", status="completed"))
        for line in window.splitlines()
    ]
    assert sum(Decimal(line["amount_usd"]) for line in lines) * PICO == entry["amount"]
    assert (await either.row(batch_id))["amount"] == entry["amount"]
