from __future__ import annotations

import pytest

from batchway.core.errors import Conflict, Fault, NotFound, ProviderError
from batchway.core.principal import Sight
from batchway.db import batches
from batchway.pipeline.cancel import ASK_AGAIN, cancel, expire, stop
from tests.stages.world import PRICED, SERVED, SIGHT, UNPRICED, at_once, chat, either, killed_everywhere, line, world

__all__ = ["either", "world"]


async def due(world) -> list[str]:
    return await world.db.read(batches.to_stop, world.now, 10)


async def test_a_cancelled_batch_ends_with_what_was_answered(either):
    batch_id = await either.prepared(*chat(6, PRICED, SERVED))
    await cancel(either.trip, batch_id, SIGHT)
    row = await either.row(batch_id)
    assert (row["status"], row["cancelling_at"]) == ("cancelling", either.now)
    assert await due(either) == [batch_id]
    await stop(either.trip, batch_id)
    assert [job["cancel_at"] for job in await either.jobs(batch_id)] == [either.now] * 2
    assert not await due(either)
    assert await either.drive(batch_id) == "cancelled"
    output, errors = await either.files_of(batch_id)
    assert [line["custom_id"] for line in output] == ["line-1", "line-2"]
    assert [line["error"]["code"] for line in errors] == ["batch_cancelled"] * 4
    row = await either.row(batch_id)
    assert (row["total"], row["completed"], row["failed"]) == (6, 2, 0)
    assert sum(entry["lines"] for entry in await either.entries(batch_id)) == 2


async def test_twice_and_at_once_is_once(either):
    batch_id = await either.prepared(*chat(3))
    await at_once(lambda: cancel(either.trip, batch_id, SIGHT))
    await cancel(either.trip, batch_id, SIGHT)
    for _ in range(2):
        await stop(either.trip, batch_id)
    assert (await either.events(batch_id)).count("batch.cancelling") == 1
    assert either.alpha.calls["cancel"] == 1
    assert await either.drive(batch_id) == "cancelled"
    await cancel(either.trip, batch_id, SIGHT)
    assert (await either.events(batch_id)).count("batch.cancelled") == 1


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
async def test_a_batch_that_has_ended_otherwise_cannot_be_cancelled(world, status):
    lines = [line(1, "none-such")] if status == "failed" else chat(2)
    batch_id = await world.prepared(*lines)
    if status == "expired":
        await expire(world.trip, batch_id)
    await world.drive(batch_id)
    with pytest.raises(Conflict, match=f"status '{status}'"):
        await cancel(world.trip, batch_id, SIGHT)
    assert (await world.row(batch_id))["status"] == status


async def test_somebody_elses_batch_is_not_found(either):
    batch_id = await either.prepared(*chat(2))
    with pytest.raises(NotFound):
        await cancel(either.trip, batch_id, Sight("another", "key_1"))
    await cancel(either.trip, batch_id, None)  # an admin's
    assert (await either.row(batch_id))["status"] == "cancelling"


async def test_a_batch_that_is_being_validated_can_be_cancelled(world):
    batch_id = await world.batch(*chat(2))
    await cancel(world.trip, batch_id, SIGHT)
    assert await world.drive(batch_id) == "cancelled"
    assert not world.alpha.jobs
    row = await world.row(batch_id)
    assert (row["total"], row["completed"], row["failed"]) == (2, 0, 0)


async def test_a_provider_that_refuses_is_asked_again_and_the_others_stop_meanwhile(either):
    either.alpha.trouble["cancel"] = [ProviderError("busy", fault=Fault.TRANSIENT)]
    batch_id = await either.prepared(*chat(4, PRICED, UNPRICED))
    await cancel(either.trip, batch_id, SIGHT)
    await stop(either.trip, batch_id)
    assert [job["cancel_at"] is None for job in await either.jobs(batch_id)] == [True, False]
    assert not await due(either)
    either.now += ASK_AGAIN
    assert await due(either) == [batch_id]
    await stop(either.trip, batch_id)
    assert either.alpha.calls["cancel"] == 2
    assert either.beta.calls["cancel"] == 1


async def test_a_poisoned_job_stops_no_other(world):
    batch_id = await world.prepared(*chat(4, PRICED, UNPRICED))
    world.alpha.poisoned.add((await world.jobs(batch_id))[0]["id"])
    await cancel(world.trip, batch_id, SIGHT)
    await stop(world.trip, batch_id)
    assert [job["cancel_at"] is None for job in await world.jobs(batch_id)] == [True, False]
    world.alpha.poisoned.clear()
    assert await world.drive(batch_id) == "cancelled"


async def test_a_batch_past_its_window_expires_with_what_was_answered(either):
    batch_id = await either.prepared(*chat(4))
    assert not await either.db.read(batches.past_deadline, either.now + 86399, 10)
    either.now += 86400
    assert await either.db.read(batches.past_deadline, either.now, 10) == [batch_id]
    await expire(either.trip, batch_id)
    assert not await either.db.read(batches.past_deadline, either.now, 10)
    await stop(either.trip, batch_id)
    assert await either.drive(batch_id) == "expired"
    output, errors = await either.files_of(batch_id)
    assert [len(output), len(errors)] == [2, 2]
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}
    row = await either.row(batch_id)
    assert (row["completed"], row["failed"], row["expired_at"] is not None) == (2, 0, True)


async def test_a_job_that_ended_first_is_left_as_it_is(world):
    batch_id = await world.ended(*chat(4))
    await cancel(world.trip, batch_id, SIGHT)
    assert not await due(world)
    await stop(world.trip, batch_id)
    assert not world.alpha.calls["cancel"]
    assert await world.drive(batch_id) == "cancelled"
    assert [len(found) for found in await world.files_of(batch_id)] == [4, 0]


async def test_a_death_anywhere_stops_every_job():
    async def before(world):
        return await world.prepared(*chat(4, PRICED, UNPRICED))

    async def stage(world, batch_id):
        await cancel(world.trip, batch_id, SIGHT)
        await stop(world.trip, batch_id)

    async def after(world, batch_id):
        assert not world.alpha.running
        assert not world.beta.running
        assert await world.drive(batch_id) == "cancelled"
        assert (await world.events(batch_id)).count("batch.cancelled") == 1

    await killed_everywhere(before, stage, after)
