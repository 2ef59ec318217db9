from __future__ import annotations

import json
from decimal import Decimal

import pytest

from batchway.billing.prices import Price
from batchway.core.errors import Conflict, NotFound, RequestError
from batchway.core.money import PICO
from batchway.core.principal import Sight
from batchway.core.states import Outcome
from batchway.pipeline.collect import collect
from batchway.pipeline.results import results
from batchway.wire.batches import ResultsFilter
from tests.stages.memory_provider import bad, good
from tests.stages.world import PRICED, SIGHT, UNPRICED, chat, either, world

__all__ = ["either", "world"]


STATUS = {None: None, True: "completed", False: "failed"}


async def read(world, batch_id, after=None, *, ok=None, sight=SIGHT, order="finished"):
    wanted = ResultsFilter(after=after, status=STATUS[ok], order=order)
    windows = [window async for window in results(world.trip, sight, batch_id, wanted)]
    return [json.loads(line) for line in b"".join(windows).splitlines()]


def some(name: str):
    return bad(name) if name.endswith("3") else good(name)


async def test_answers_come_as_soon_as_their_job_is_collected(either):
    batch_id = await either.prepared(*chat(6, PRICED, UNPRICED))
    assert await read(either, batch_id) == []
    either.beta.end()
    await either.look()
    await either.settle(batch_id)
    early = await read(either, batch_id)
    assert [found["custom_id"] for found in early] == ["line-2", "line-4", "line-6"]
    either.alpha.end()
    assert await either.drive(batch_id) == "completed"
    rest = await read(either, batch_id, early[-1]["cursor"])
    assert [found["custom_id"] for found in rest] == ["line-1", "line-3", "line-5"]
    assert await read(either, batch_id) == early + rest


async def test_every_line_is_given_once_whatever_cursor_one_goes_on_from(world):
    batch_id = await world.ended(
        *chat(300), outcome=Outcome.EXPIRED, answer=lambda n: None if n == "line-9" else some(n)
    )
    await world.drive(batch_id)
    everything = await read(world, batch_id)
    assert sorted(found["custom_id"] for found in everything) == sorted(f"line-{n}" for n in range(1, 301))
    for at in (0, 1, 100, 255, 256, 298):
        assert await read(world, batch_id, everything[at]["cursor"]) == everything[at + 1 :]
    assert await read(world, batch_id, everything[-1]["cursor"]) == []


async def test_they_are_the_lines_of_the_files(world):
    batch_id = await world.ended(*chat(30), answer=some)
    await world.drive(batch_id)
    output, errors = await world.files_of(batch_id)
    for ok, wanted in ((True, output), (False, errors)):
        found = await read(world, batch_id, ok=ok)
        assert [without(line, "cursor", "amount_usd") for line in found] == wanted


async def test_after_the_end_they_come_in_input_order_too(world):
    batch_id = await world.ended(*chat(300, PRICED, UNPRICED), answer=some)
    await world.drive(batch_id)
    everything = await read(world, batch_id, order="input")
    assert [found["custom_id"] for found in everything] == [f"line-{n}" for n in range(1, 301)]
    assert await read(world, batch_id, everything[99]["cursor"], order="input") == everything[100:]
    stored = await read(world, batch_id)
    assert sorted(without(line, "cursor")["id"] for line in stored) == sorted(line["id"] for line in everything)


async def test_input_order_before_the_end_is_a_conflict(world):
    batch_id = await world.prepared(*chat(6))
    with pytest.raises(Conflict, match="after its end"):
        await read(world, batch_id, order="input")


async def test_the_amounts_of_the_lines_add_up_to_the_batchs(world):
    batch_id = await world.ended(*chat(300), answer=some)
    await world.drive(batch_id)
    amounts = [Decimal(line["amount_usd"]) for line in await read(world, batch_id, ok=True)]
    batch = await world.row(batch_id)
    assert len(amounts) == batch["completed"]
    assert sum(amounts) == Decimal(batch["amount"]) / PICO > 0
    assert not any("amount_usd" in line for line in await read(world, batch_id, ok=False))


def without(line, *keys):
    return {key: value for key, value in line.items() if key not in keys}


async def test_a_narrowed_list_goes_on_from_its_own_cursors(world):
    batch_id = await world.ended(*chat(30), answer=some)
    await world.drive(batch_id)
    failed = await read(world, batch_id, ok=False)
    assert [found["custom_id"] for found in failed] == ["line-3", "line-13", "line-23"]
    assert await read(world, batch_id, failed[0]["cursor"], ok=False) == failed[1:]


@pytest.mark.parametrize("cursor", ["x", "1", "1.", "-1.0", "1.2.3", "9" * 30 + ".1", "1.1 "])
async def test_a_cursor_that_is_none_is_refused(world, cursor):
    batch_id = await world.prepared(*chat(2))
    with pytest.raises(RequestError) as refused:
        await read(world, batch_id, cursor)
    assert refused.value.param == "after"


async def test_somebody_elses_are_not_found(world):
    batch_id = await world.ended(*chat(2))
    with pytest.raises(NotFound):
        await read(world, batch_id, sight=Sight("another", "key_1"))
    await world.drive(batch_id)
    assert len(await read(world, batch_id, sight=None)) == 2


async def test_a_later_price_changes_no_line_of_what_is_accounted(world, monkeypatch):
    batch_id = await world.ended(*chat(6, PRICED, UNPRICED))
    await world.drive(batch_id)
    before = await read(world, batch_id)
    assert sum("amount_usd" in line for line in before) == 3
    dearer = Price(input=7, cached=7, cache_write=7, output=7, source="later")
    monkeypatch.setattr(world.trip.prices, "of_route", lambda *_: dearer)
    assert await read(world, batch_id) == before


async def test_a_running_batchs_lines_show_todays_price(world, monkeypatch):
    batch_id = await world.ended(*chat(2))
    for job in await world.jobs(batch_id):
        await collect(world.trip, job["id"])
    today = Price(input=1, cached=0, cache_write=0, output=0, source="today")
    monkeypatch.setattr(world.trip.prices, "of_route", lambda *_: today)
    assert [line["amount_usd"] for line in await read(world, batch_id)] == ["0.00000000001"] * 2
