from __future__ import annotations

import asyncio

import msgspec
import pytest

from batchway.core.errors import Conflict, NotFound, OverBudget
from batchway.core.money import PICO
from batchway.core.principal import Limits, Sight
from batchway.db import batches
from batchway.db.schema import batches as table
from batchway.pipeline.cancel import cancel
from batchway.pipeline.resume import LATER, resume, resume_paused
from batchway.pipeline.show import one as show
from tests.stages.money import KEY, PROJECT, adds_up, budget, held, need, set_budget
from tests.stages.world import SIGHT, UNPRICED, WHO, chat, either, killed_everywhere, world

__all__ = ["either", "world"]

PATIENT = msgspec.structs.replace(WHO, pauses=True)
OTHER = msgspec.structs.replace(PATIENT, key_id="key_2")


async def status(world, *ids: str) -> list[str]:
    return [(await world.row(batch_id))["status"] for batch_id in ids]


async def test_a_batch_over_budget_waits_when_its_key_says_so(either):
    await set_budget(either, KEY, 0)
    batch_id = await either.batch(*chat(2), who=PATIENT)
    shown = await either.db.read(show, batch_id, SIGHT, either.now)
    assert (shown.status, shown.batchway.pause.reason) == ("paused", "budget")
    assert "key key_1 is $0 in all" in shown.batchway.pause.message
    assert await either.events(batch_id) == ["batch.created", "batch.paused"]
    assert await held(either, batch_id) is None
    for _ in range(3):
        await either.step()
        await resume_paused(either.trip)
    assert await status(either, batch_id) == ["paused"]
    assert not either.alpha.calls
    await adds_up(either)


async def test_it_goes_on_by_itself_after_a_top_up(either):
    await set_budget(either, KEY, 0)
    batch_id = await either.batch(*chat(2), who=PATIENT)
    await set_budget(either, KEY, PICO)
    await resume_paused(either.trip)
    row = await either.row(batch_id)
    assert (row["status"], row["pause"]) == ("validating", None)
    assert await held(either, batch_id) == await need()
    assert (await either.events(batch_id))[-1] == "batch.resumed"
    assert await either.drive(batch_id) == "completed"
    await adds_up(either)


async def test_it_goes_on_when_others_settle_and_when_a_day_begins(either):
    await set_budget(either, KEY, await need(), "day")
    first, second, third = [await either.batch(*chat(2), who=PATIENT) for _ in range(3)]
    assert await status(either, first, second, third) == ["validating", "paused", "paused"]
    await either.drive(first)
    await resume_paused(either.trip)
    assert await status(either, second, third) == ["paused", "paused"]  # what the first one cost is missing
    either.now = (await budget(either)).starts_at + 86400
    await resume_paused(either.trip)
    assert await status(either, second, third) == ["validating", "paused"]
    await adds_up(either)


async def test_the_oldest_goes_first_and_is_not_passed_by_smaller_ones(either):
    big, small = await need(*chat(40)), await need()
    await set_budget(either, KEY, 0)
    waiting = []
    for lines in (chat(40), chat(2)):
        waiting.append(await either.batch(*lines, who=PATIENT))
        either.now += 1
    await set_budget(either, KEY, big - 1)
    assert small < big - 1
    await resume_paused(either.trip)
    assert await status(either, *waiting) == ["paused", "paused"]
    await set_budget(either, KEY, big)
    await resume_paused(either.trip)
    assert await status(either, *waiting) == ["validating", "paused"]


async def test_a_key_without_money_does_not_keep_other_keys_waiting(either):
    await set_budget(either, KEY, 0)
    await set_budget(either, PROJECT, 0)
    poor = await either.batch(*chat(2), who=PATIENT)
    either.now += 1
    file_id = await either.file(*chat(2))
    rich = await either.batch(input_file_id=file_id, who=OTHER)
    await set_budget(either, PROJECT, PICO)
    await resume_paused(either.trip)
    assert await status(either, poor, rich) == ["paused", "validating"]


async def test_of_many_who_resume_at_once_as_many_go_on_as_there_is_money_for(either):
    await set_budget(either, KEY, 0)
    ids = [await either.batch(*chat(2), who=PATIENT) for _ in range(8)]
    await set_budget(either, KEY, 3 * await need())
    rounds = [resume_paused(either.trip) for _ in range(4)]
    asked = [resume(either.trip, batch_id, SIGHT) for batch_id in ids]
    await asyncio.gather(*rounds, *asked, return_exceptions=True)
    assert sorted(await status(either, *ids)) == ["paused"] * 5 + ["validating"] * 3
    await adds_up(either)


async def test_resuming_by_hand_is_refused_while_there_is_no_room(either):
    await set_budget(either, KEY, 0)
    batch_id = await either.batch(*chat(2), who=PATIENT)
    with pytest.raises(OverBudget):
        await resume(either.trip, batch_id, SIGHT)
    with pytest.raises(NotFound):
        await resume(either.trip, batch_id, Sight("another", "key_1"))
    await set_budget(either, KEY, PICO)
    await resume(either.trip, batch_id, SIGHT)
    with pytest.raises(Conflict, match="validating"):
        await resume(either.trip, batch_id, SIGHT)


async def test_a_paused_batch_can_be_cancelled_and_is_never_sent(either):
    await set_budget(either, KEY, 0)
    batch_id = await either.batch(*chat(3), who=PATIENT)
    await cancel(either.trip, batch_id, SIGHT)
    assert await either.drive(batch_id) == "cancelled"
    output, errors = await either.files_of(batch_id)
    assert (output, [found["error"]["code"] for found in errors]) == ([], ["batch_cancelled"] * 3)
    assert not either.alpha.calls["submit"]
    assert (await either.row(batch_id))["pause"] is None
    await adds_up(either)


async def test_a_paused_batch_whose_window_closes_ends_expired_and_is_never_sent(either):
    await set_budget(either, KEY, 0)
    batch_id = await either.batch(*chat(3), who=PATIENT)
    either.now += 86401
    assert await either.drive(batch_id) == "expired"
    output, errors = await either.files_of(batch_id)
    assert (output, [found["error"]["code"] for found in errors]) == ([], ["batch_expired"] * 3)
    assert not either.alpha.calls["submit"]
    assert (await either.row(batch_id))["amount"] == 0
    assert await held(either, batch_id) is None
    await adds_up(either)


async def test_a_batch_that_something_else_keeps_is_asked_for_again_later(world):
    await set_budget(world, KEY, 0)
    stuck = await world.batch(*chat(2), who=PATIENT)
    free = await world.batch(*chat(2), who=PATIENT)
    await set_budget(world, KEY, PICO)

    def reprice(tx):
        tx.execute(table.update().where(table.c.id == stuck).values(model=UNPRICED))

    await world.db.write(reprice)
    await resume_paused(world.trip)
    assert await status(world, stuck, free) == ["paused", "validating"]
    assert (await world.row(stuck))["not_before"] == world.now + LATER
    assert await world.db.read(batches.next_paused, world.now, set()) is None


async def test_a_batch_whose_models_lost_their_routes_goes_on_and_fails(world):
    await set_budget(world, KEY, 0)
    batch_id = await world.batch(*chat(2, "alias"), who=PATIENT)
    del world.trip.accounts._names["alias"]
    await resume_paused(world.trip)
    assert await world.drive(batch_id) == "failed"
    await adds_up(world)


async def test_paused_batches_are_live_to_the_limits_of_their_key(world):
    await set_budget(world, KEY, 0)
    who = msgspec.structs.replace(PATIENT, limits=Limits(active_batches=1))
    await world.batch(*chat(2), who=who)
    with pytest.raises(Exception, match="active"):
        await world.batch(*chat(2), who=who)


async def test_a_death_anywhere_while_it_resumes_holds_once():
    async def before(world):
        await set_budget(world, KEY, 0)
        batch_id = await world.batch(*chat(2), who=PATIENT)
        await set_budget(world, KEY, PICO)
        return batch_id

    async def stage(world, _):
        await resume_paused(world.trip)

    async def after(world, batch_id):
        assert await status(world, batch_id) == ["validating"]
        assert (await budget(world)).held == await need()
        await adds_up(world)

    assert await killed_everywhere(before, stage, after) == ["before _go_on", "after _go_on"]
