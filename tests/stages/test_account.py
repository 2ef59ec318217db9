from __future__ import annotations

import pytest

from batchway.core.states import Outcome
from batchway.core.usage import Usage
from batchway.db import holds
from batchway.pipeline.account import account
from batchway.pipeline.collect import collect
from batchway.providers.protocol import Answer
from tests.stages.memory_provider import answer_line, bad, good
from tests.stages.world import PRICED, SERVED, UNPRICED, at_once, chat, either, killed_everywhere, world

__all__ = ["either", "world"]


async def collected(world, *lines, **how):
    batch_id = await world.ended(*lines, **how)
    for row in await world.jobs(batch_id):
        await collect(world.trip, row["id"])
    return batch_id


async def account_all(world, batch_id):
    for row in await world.jobs(batch_id):
        await account(world.trip, row["id"])


def cost(world, lines: int) -> int:
    price = world.trip.prices.price("openai", PRICED, "native", world.now)
    return lines * price.amount(Usage(input_tokens=10, output_tokens=5))


async def test_tokens_become_money_and_the_hold_is_settled(either):
    batch_id = await collected(either, *chat(5), answer=lambda name: bad(name) if name == "line-2" else good(name))
    await account_all(either, batch_id)
    job = await either.job(batch_id)
    (entry,) = await either.entries(batch_id)
    assert (job["status"], job["amount"]) == ("accounted", cost(either, 4))
    assert (entry["job_id"], entry["lines"], entry["input_tokens"], entry["output_tokens"]) == (job["id"], 4, 40, 20)
    assert (entry["amount"], entry["project"], entry["key_id"]) == (cost(either, 4), "p", "key_1")
    assert entry["price_source"]
    assert not await either.db.read(holds.open_holds)
    assert (await either.events(batch_id))[-1] == "job.accounted"


async def test_twice_and_at_once_is_once(either):
    batch_id = await collected(either, *chat(5))
    job = await either.job(batch_id)
    await at_once(lambda: account(either.trip, job["id"]))
    before = dict(await either.job(batch_id)), await either.entries(batch_id)
    either.now += 5
    await account(either.trip, job["id"])
    assert (dict(await either.job(batch_id)), await either.entries(batch_id)) == before
    assert len(before[1]) == 1
    assert (await either.events(batch_id)).count("job.accounted") == 1


async def test_jobs_that_are_accounted_at_once_leave_no_hold_open(either):
    batch_id = await collected(either, *chat(600))
    rows = await either.jobs(batch_id)
    await at_once(lambda: account_all(either, batch_id), times=len(rows))
    assert await either.drive(batch_id) == "completed"
    assert not await either.db.read(holds.open_holds)
    assert (await either.row(batch_id))["amount"] == cost(either, 600)


async def test_the_hold_waits_for_the_last_job(world):
    batch_id = await collected(world, *chat(300))
    first, second = await world.jobs(batch_id)
    await account(world.trip, first["id"])
    assert len(await world.db.read(holds.open_holds)) == 1
    await account(world.trip, second["id"])
    assert not await world.db.read(holds.open_holds)


async def test_an_unknown_price_stays_unknown(either):
    batch_id = await collected(either, *chat(4, UNPRICED))
    await account_all(either, batch_id)
    (entry,) = await either.entries(batch_id)
    assert (entry["amount"], entry["price_source"], entry["lines"]) == (None, None, 4)
    assert (await either.job(batch_id))["amount"] is None
    assert await either.drive(batch_id) == "completed"
    row = await either.row(batch_id)
    assert (row["amount"], row["amount_known"]) == (None, False)


async def test_a_job_without_an_answer_costs_nothing_whatever_its_price(world):
    batch_id = await collected(world, *chat(4, UNPRICED), answer=bad)
    await account_all(world, batch_id)
    assert not await world.entries(batch_id)
    assert (await world.job(batch_id))["amount"] == 0
    assert await world.drive(batch_id) == "completed"
    assert (await world.row(batch_id))["amount_known"] is True


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.CANCELLED, Outcome.FAILED])
async def test_what_was_answered_is_paid_whatever_became_of_the_job(world, outcome):
    batch_id = await collected(
        world, *chat(4), outcome=outcome, answer=lambda name: good(name) if name == "line-1" else None
    )
    await account_all(world, batch_id)
    assert [entry["amount"] for entry in await world.entries(batch_id)] == [cost(world, 1)]


async def test_each_line_is_priced_by_itself_and_adds_up(world):
    tokens = {f"line-{number}": (number * 1000, number) for number in range(1, 6)}

    def answer(name: str) -> Answer:
        return Answer(name, ok=True, line=answer_line(name, tokens=tokens[name]))

    batch_id = await collected(world, *chat(5), answer=answer)
    await account_all(world, batch_id)
    price = world.trip.prices.price("openai", PRICED, "native", world.now)
    (entry,) = await world.entries(batch_id)
    assert entry["amount"] == sum(price.amount(Usage(input_tokens=i, output_tokens=o)) for i, o in tokens.values())
    assert entry["input_tokens"] == 15_000


async def test_each_route_is_an_entry(world):
    batch_id = await collected(world, *chat(6, PRICED, UNPRICED, SERVED))
    await account_all(world, batch_id)
    entries = await world.entries(batch_id)
    assert [(entry["account"], entry["lane"], entry["lines"]) for entry in entries] == [
        ("alpha", "native", 2),
        ("beta", "native", 2),
        ("gamma", "executed", 2),
    ]


async def test_an_account_that_left_the_settings_costs_an_unknown_amount(world):
    batch_id = await collected(world, *chat(2))
    world.trip.accounts._accounts.pop("alpha")
    await account_all(world, batch_id)
    assert [entry["amount"] for entry in await world.entries(batch_id)] == [None]


async def test_a_job_that_is_not_collected_is_not_accounted(world):
    batch_id = await world.ended(*chat(2))
    await account_all(world, batch_id)
    assert (await world.job(batch_id))["status"] == "ended"
    assert not await world.entries(batch_id)


async def test_a_death_anywhere_bills_once():
    async def before(world):
        return await collected(world, *chat(300))

    async def after(world, batch_id):
        assert [entry["lines"] for entry in await world.entries(batch_id)] == [256, 44]
        assert [row["status"] for row in await world.jobs(batch_id)] == ["accounted", "accounted"]
        assert not await world.db.read(holds.open_holds)
        assert (await world.events(batch_id)).count("job.accounted") == 2

    names = await killed_everywhere(before, account_all, after)
    assert names == ["before _post", "after _post"] * 2
