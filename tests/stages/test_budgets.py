from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, update

from batchway.core.budgets import MOST, checked_amount, owners, period_end, period_start
from batchway.core.errors import OverBudget
from batchway.core.money import PICO
from batchway.db import budgets, holds, ledger
from batchway.db.outbox import of_subject
from batchway.db.schema import budgets as table
from batchway.db.schema import ledger as entries
from tests.stages.money import GATEWAY, KEY, PROJECT, adds_up, budget, held, need, set_budget
from tests.stages.test_ledger import entry
from tests.stages.world import chat, either, open_world, world

__all__ = ["either", "world"]

DAY = 86400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# Periods --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("day", "2026-11-22 23:59:59", "2026-11-22", "2026-11-23"),
        ("day", "2026-11-22 00:00:00", "2026-11-22", "2026-11-23"),
        ("month", "2026-12-31 12:00:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29 12:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_are_those_of_utc(period, now, start, end):
    assert (period_start(period, at(now)), period_end(period, at(now))) == (at(start), at(end))


def test_all_time_has_no_end():
    assert (period_start("total", at("2026-11-22")), period_end("total", at("2026-11-22"))) == (0, None)


def test_a_key_and_a_project_of_one_name_are_two_owners():
    assert len(set(owners("a", "a"))) == 3


@pytest.mark.parametrize("text", ["", "one", "-1", "NaN", "Infinity", "1e30", "0.0000000000001"])
def test_what_is_no_amount_of_a_budget(text):
    with pytest.raises(ValueError, match=r"budget|dollars"):
        checked_amount(text)


def test_an_amount_is_exact():
    assert checked_amount("12.500000000001") == 12_500_000_000_001


# Setting and dropping -------------------------------------------------------------------------------------------------


async def test_a_new_budget_knows_what_was_spent_before_it(either):
    first = await either.batch(*chat(5))
    await either.drive(first)
    second = await either.batch(*chat(5))
    await set_budget(either, KEY, PICO)
    found = await budget(either)
    row = await either.row(first)
    assert row["amount"] > 0
    assert (found.held, found.settled) == (await held(either, second), row["amount"])
    assert found.remainder == PICO - found.held - found.settled
    await adds_up(either)


async def test_a_budget_of_another_owner_is_not_touched(either):
    await set_budget(either, "key:key_2", PICO)
    await set_budget(either, "project:q", PICO)
    await set_budget(either, PROJECT, PICO)
    await either.batch(*chat(5))
    assert (await budget(either, "key:key_2")).used == (await budget(either, "project:q")).used == 0
    assert (await budget(either, PROJECT)).held > 0


async def test_a_dropped_budget_limits_nothing(either):
    await set_budget(either, KEY, 0)
    with pytest.raises(OverBudget):
        await either.batch(*chat(2))
    assert await either.db.write(budgets.drop_budget, KEY)
    assert not await either.db.write(budgets.drop_budget, KEY)
    await either.batch(*chat(2))
    assert await either.db.read(budgets.budget_of, KEY, either.now) is None


async def test_an_amount_that_no_sum_could_hold_is_refused(world):
    for amount in (-1, MOST + 1):
        with pytest.raises(ValueError, match="between"):
            await set_budget(world, KEY, amount)


async def test_a_budget_that_is_set_while_batches_come_in_counts_every_one(either):
    file_id = await either.file(*chat(2))
    makers = [either.batch(input_file_id=file_id) for _ in range(20)]
    setters = [set_budget(either, owner, PICO) for owner in (KEY, PROJECT, GATEWAY)]
    await asyncio.gather(*makers[:10], *setters, *makers[10:])
    await adds_up(either)
    assert (await budget(either)).held == 20 * await need()


# Periods that change --------------------------------------------------------------------------------------------------


async def test_a_day_begins_anew_and_what_began_before_it_counts_before_it(either):
    one = await need()
    await set_budget(either, KEY, one, "day")
    early = await either.batch(*chat(2), completion_window="72h")
    with pytest.raises(OverBudget):
        await either.batch(*chat(2))
    either.now += DAY
    assert (await budget(either)).used == 0
    late = await either.batch(*chat(2))
    assert (await budget(either)).held == one
    for batch_id in (early, late):
        assert await either.drive(batch_id) == "completed"
        assert (await either.row(batch_id))["amount"] > 0
    assert (await budget(either)).settled == (await either.row(late))["amount"]
    assert (await budget(either)).held == 0
    await adds_up(either)


async def test_a_process_whose_clock_is_behind_stays_in_the_period_that_has_begun(either):
    await set_budget(either, KEY, PICO, "day")
    await set_budget(either, GATEWAY, PICO, "month")
    either.now += DAY
    await either.batch(*chat(2))
    ahead = (await budget(either)).starts_at
    either.now = ahead - 1
    behind = await either.batch(*chat(2))
    assert (await either.db.read(holds.of_batch, behind))["opened_at"] == ahead
    assert (await budget(either)).held == 2 * await need()
    await adds_up(either)
    await either.drive(behind)
    await adds_up(either)


async def test_another_period_recounts(either):
    await set_budget(either, KEY, PICO, "total")
    await either.drive(await either.batch(*chat(2)))
    either.now += DAY
    await set_budget(either, KEY, PICO, "day")
    assert (await budget(either)).settled == 0
    await set_budget(either, KEY, PICO, "total")
    assert (await budget(either)).settled > 0


# Thresholds -----------------------------------------------------------------------------------------------------------


async def told(world, owner: str = KEY) -> list[int]:
    return [event.data["percent"] for event in await world.db.read(of_subject, owner)]


async def test_each_threshold_is_told_of_once_in_a_period(either):
    one = await need()
    await set_budget(either, KEY, 4 * one, "day")
    seen = []
    for _ in range(4):
        await either.batch(*chat(2))
        seen.append(await told(either))
    assert seen == [[], [50], [50], [50, 80, 100]]
    either.now += DAY
    for _ in range(2):
        await either.batch(*chat(2))
    assert await told(either) == [50, 80, 100, 50]
    (event, *_) = await either.db.read(of_subject, KEY)
    assert (event.key_id, event.data["amount"], event.data["held"]) == ("key_1", 4 * one, 2 * one)


async def test_thresholds_can_be_reached_again_after_a_top_up(either):
    one = await need()
    await set_budget(either, KEY, one)
    await either.batch(*chat(2))
    await set_budget(either, KEY, 2 * one)
    assert await told(either) == [50, 80, 100]
    await either.batch(*chat(2))
    assert await told(either) == [50, 80, 100, 80, 100]


async def test_a_lower_budget_tells_what_it_has_reached(either):
    await set_budget(either, GATEWAY, 100 * await need())
    await either.batch(*chat(2))
    await set_budget(either, GATEWAY, await need())
    assert await told(either, GATEWAY) == [50, 80, 100]


# Corrections ----------------------------------------------------------------------------------------------------------


async def test_a_correction_of_a_settled_batch_moves_its_budgets(either):
    for owner in (KEY, PROJECT, GATEWAY):
        await set_budget(either, owner, PICO)
    batch_id = await either.batch(*chat(5))
    await either.drive(batch_id)
    before = (await budget(either)).settled

    def correct(tx):
        assert ledger.post(tx, entry("correction", batch_id=batch_id), -7, "s", either.now)
        budgets.adjust(tx, batch_id, -7, either.now)

    await either.db.write(correct)
    for owner in (KEY, PROJECT, GATEWAY):
        assert (await budget(either, owner)).settled == before - 7
    await adds_up(either)


async def test_a_correction_while_the_batch_runs_is_settled_with_it(either):
    await set_budget(either, KEY, PICO)
    batch_id = await either.batch(*chat(5))

    def correct(tx):
        assert ledger.post(tx, entry("correction", batch_id=batch_id), 9, "s", either.now)
        budgets.adjust(tx, batch_id, 9, either.now)

    await either.db.write(correct)
    assert (await budget(either)).settled == 0
    await either.drive(batch_id)
    amounts = [one["amount"] for one in await either.entries(batch_id)]
    assert (await budget(either)).settled == sum(amounts)
    await adds_up(either)


async def test_a_correction_of_a_batch_that_held_nothing_counts(either):
    await set_budget(either, KEY, PICO)
    batch_id = await either.batch(input_file_id="file-none")
    await either.drive(batch_id)

    def correct(tx):
        assert ledger.post(tx, entry("correction", batch_id=batch_id), 9, "s", either.now)
        budgets.adjust(tx, batch_id, 9, either.now)

    await either.db.write(correct)
    assert (await budget(either)).settled == 9
    await adds_up(either)


# The recount ----------------------------------------------------------------------------------------------------------


async def test_the_check_finds_what_does_not_add_up():
    async with open_world() as world:
        await set_budget(world, KEY, PICO)
        batch_id = await world.batch(*chat(5))
        await world.drive(batch_id)
        await adds_up(world)
        await world.db.write(lambda tx: tx.execute(update(table).values(settled=table.c.settled + 1)))
        assert len(await world.db.read(budgets.check)) == 1
        await world.db.write(lambda tx: tx.execute(delete(entries)))
        assert len(await world.db.read(budgets.check)) == 2
        await world.db.write(
            lambda tx: tx.execute(update(holds.holds).values(settled_at=None, settled_amount=None)),
        )
        assert any("is open" in sentence for sentence in await world.db.read(budgets.check))
