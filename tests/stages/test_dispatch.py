from __future__ import annotations

import asyncio
import dataclasses

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.db import batches
from batchway.pipeline.cancel import cancel, expire
from batchway.pipeline.dispatch import SETTLES, dispatch
from batchway.pipeline.split import split
from batchway.pipeline.validate import validate
from tests.stages.world import PRICED, SIGHT, UNPRICED, at_once, chat, either, killed_everywhere, line, world

__all__ = ["either", "world"]


async def planned(world, *lines, **wanted):
    batch_id = await world.batch(*lines, **wanted)
    await validate(world.trip, batch_id)
    await split(world.trip, batch_id)
    return batch_id


async def test_each_job_is_submitted_with_its_token_and_its_own_lines(either):
    batch_id = await planned(either, *chat(6, PRICED, UNPRICED))
    await dispatch(either.trip, batch_id)
    for job, provider, wanted in zip(
        await either.jobs(batch_id),
        (either.alpha, either.beta),
        (["line-1", "line-3", "line-5"], ["line-2", "line-4", "line-6"]),
        strict=True,
    ):
        (remote,) = provider.jobs.values()
        assert (job["status"], job["remote_id"], job["token"]) == ("running", remote.id, remote.token)
        assert [custom_id for custom_id, _ in remote.lines] == wanted
        assert job["submitting_at"] == job["running_at"] == either.now
        assert job["poll_at"] == either.now + either.trip.poll_seconds
    assert (await either.events(batch_id))[3:] == ["job.submitted", "job.submitted"]


async def test_twice_is_once(either):
    batch_id = await planned(either, *chat(300))
    await dispatch(either.trip, batch_id)
    await dispatch(either.trip, batch_id)
    assert either.alpha.calls["submit"] == len(either.alpha.jobs) == 2
    assert (await either.events(batch_id)).count("job.submitted") == 2


async def test_at_once_is_once(either):
    batch_id = await planned(either, *chat(300))
    await at_once(lambda: dispatch(either.trip, batch_id))
    while any(job["status"] != "running" for job in await either.jobs(batch_id)):
        either.now += 1
        await dispatch(either.trip, batch_id)
    assert len(either.alpha.jobs) == 2
    assert {job["remote_id"] for job in await either.jobs(batch_id)} == set(either.alpha.jobs)


async def test_a_lost_submit_is_found_by_its_token(either):
    either.alpha.lies = 1
    batch_id = await planned(either, *chat(2))
    await dispatch(either.trip, batch_id)
    job = await either.job(batch_id)
    assert (job["status"], job["not_before"]) == ("submitting", either.now + SETTLES)
    await dispatch(either.trip, batch_id)
    assert not either.alpha.calls["find"]  # it is not due
    either.now += SETTLES
    await dispatch(either.trip, batch_id)
    assert (await either.job(batch_id))["status"] == "running"
    assert either.alpha.calls["submit"] == 1


async def test_a_submit_that_surely_never_arrived_is_made_again_under_the_same_token(either):
    either.alpha.trouble["submit"] = [ProviderError("no answer", fault=Fault.LOST)]
    batch_id = await planned(either, *chat(2))
    await dispatch(either.trip, batch_id)
    token = (await either.job(batch_id))["token"]
    either.now += SETTLES
    await dispatch(either.trip, batch_id)
    (remote,) = either.alpha.jobs.values()
    assert remote.token == token
    assert (await either.job(batch_id))["remote_id"] == remote.id


async def test_not_found_is_not_believed_at_once(world):
    batch_id = await planned(world, *chat(2))
    world.points.kill_at(world.points.names.count("") + 4)  # the fourth point: the provider has the job, we do not know
    with pytest.raises(BaseException, match="after submit"):
        await dispatch(world.trip, batch_id)
    world.points.kill_at(None)
    hidden = dict(world.alpha.jobs)
    world.alpha.jobs.clear()  # it does not show yet
    world.now += 1
    await dispatch(world.trip, batch_id)
    job = await world.job(batch_id)
    assert job["status"] == "submitting"
    assert world.now < job["not_before"] <= world.now + SETTLES
    world.alpha.jobs.update(hidden)
    world.now += SETTLES
    await dispatch(world.trip, batch_id)
    assert (await world.job(batch_id))["status"] == "running"
    assert world.alpha.calls["submit"] == 1


async def test_a_find_that_fails_decides_nothing(world):
    world.alpha.lies = 1
    world.alpha.trouble["find"] = [ProviderError("busy", fault=Fault.TRANSIENT)] * 3
    batch_id = await planned(world, *chat(2))
    for _ in range(10):
        await dispatch(world.trip, batch_id)
        world.now += SETTLES
    assert (await world.job(batch_id))["status"] == "running"
    assert (world.alpha.calls["submit"], world.alpha.calls["find"]) == (1, 4)


@pytest.mark.parametrize(("fault", "retry_after", "wait"), [(Fault.TRANSIENT, None, 1), (Fault.THROTTLED, 17.0, 17)])
async def test_a_passing_refusal_is_tried_again_after_a_while(world, fault, retry_after, wait):
    world.alpha.trouble["submit"] = [ProviderError("later", fault=fault, retry_after=retry_after)]
    batch_id = await planned(world, *chat(2))
    await dispatch(world.trip, batch_id)
    job = await world.job(batch_id)
    assert (job["status"], job["not_before"], job["attempts"]) == ("planned", world.now + wait, 1)
    await dispatch(world.trip, batch_id)
    assert world.alpha.calls["submit"] == 1
    assert not await world.db.read(batches.to_prepare, world.now, 10)
    world.now += wait
    assert await world.db.read(batches.to_prepare, world.now, 10) == [batch_id]
    await dispatch(world.trip, batch_id)
    assert (await world.job(batch_id))["status"] == "running"


async def test_waits_grow_and_stay_bounded(world):
    world.alpha.trouble["submit"] = [ProviderError("later", fault=Fault.TRANSIENT) for _ in range(14)]
    batch_id = await planned(world, *chat(1))
    waits = []
    for _ in range(14):
        await dispatch(world.trip, batch_id)
        waits.append((await world.job(batch_id))["not_before"] - world.now)
        world.now += waits[-1]
    assert waits[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(waits[9:]) == {300}


@pytest.mark.parametrize(("fault", "code"), [(Fault.REJECTED, "too_big"), (Fault.DENIED, None)])
async def test_a_lasting_refusal_ends_the_job_with_its_reason(either, fault, code):
    either.alpha.trouble["submit"] = [ProviderError("never", fault=fault, code=code)]
    batch_id = await planned(either, *chat(2))
    await dispatch(either.trip, batch_id)
    job = await either.job(batch_id)
    assert (job["status"], job["outcome"], job["code"], job["message"]) == (
        "ended", "rejected", code or str(fault), "never",
    )  # fmt: skip
    assert await either.drive(batch_id) == "completed"
    output, errors = await either.files_of(batch_id)
    assert (output, [found["error"]["code"] for found in errors]) == ([], [code or str(fault)] * 2)
    row = await either.row(batch_id)
    assert (row["completed"], row["failed"], row["amount"], row["amount_known"]) == (0, 2, 0, True)


async def test_one_job_that_cannot_be_submitted_stops_no_other(world):
    world.alpha.trouble["submit"] = [ProviderError("later", fault=Fault.TRANSIENT)]
    batch_id = await planned(world, *chat(4, PRICED, UNPRICED))
    await dispatch(world.trip, batch_id)
    assert [job["status"] for job in await world.jobs(batch_id)] == ["planned", "running"]


async def test_a_job_whose_account_left_the_settings_waits_and_stops_no_other(world):
    batch_id = await planned(world, *chat(4, PRICED, UNPRICED))
    gone = world.trip.accounts._accounts.pop("alpha")
    await dispatch(world.trip, batch_id)
    assert [job["status"] for job in await world.jobs(batch_id)] == ["planned", "running"]
    world.trip.accounts._accounts["alpha"] = gone
    world.now += 5
    await dispatch(world.trip, batch_id)
    assert [job["status"] for job in await world.jobs(batch_id)] == ["running", "running"]


async def test_a_poisoned_job_stops_no_other(world):
    batch_id = await planned(world, *chat(4, PRICED, UNPRICED))
    world.alpha.poisoned.add((await world.jobs(batch_id))[0]["id"])
    await dispatch(world.trip, batch_id)
    assert (await world.jobs(batch_id))[1]["status"] == "running"


@pytest.mark.parametrize(("end", "code"), [("cancel", "batch_cancelled"), ("expire", "batch_expired")])
async def test_a_batch_that_is_ending_submits_nothing(either, end, code):
    either.alpha.trouble["submit"] = [ProviderError("later", fault=Fault.TRANSIENT)]
    batch_id = await planned(either, *chat(4))
    await dispatch(either.trip, batch_id)
    await (cancel(either.trip, batch_id, SIGHT) if end == "cancel" else expire(either.trip, batch_id))
    assert await either.drive(batch_id) == {"cancel": "cancelled", "expire": "expired"}[end]
    assert (either.alpha.calls["submit"], either.alpha.jobs) == (1, {})
    assert [found["error"]["code"] for found in (await either.files_of(batch_id))[1]] == [code] * 4


async def test_a_lost_submit_of_a_cancelled_batch_is_found_and_stopped(either):
    either.alpha.lies = 1
    batch_id = await planned(either, *chat(4))
    await dispatch(either.trip, batch_id)
    await cancel(either.trip, batch_id, SIGHT)
    for _ in range(4):
        await either.step()
        either.now += SETTLES
    (remote,) = either.alpha.jobs.values()
    assert remote.outcome == "cancelled"
    assert await either.drive(batch_id) == "cancelled"
    assert [len(found) for found in await either.files_of(batch_id)] == [2, 2]


async def test_a_process_without_its_lease_sends_nothing(world):
    batch_id = await planned(world, *chat(2))
    world.lives = False
    await dispatch(world.trip, batch_id)
    assert (await world.job(batch_id))["status"] == "planned"
    assert not world.alpha.calls


async def test_a_submit_rings_for_the_poller(world):
    batch_id = await planned(world, line(1))
    world.trip.bells.polls.clear()
    await dispatch(world.trip, batch_id)
    async with asyncio.timeout(1):
        await world.trip.bells.polls.wait()


async def test_a_death_anywhere_leaves_one_job_at_the_provider_and_none_unknown():
    async def before(world):
        return await planned(world, *chat(300))

    async def stage(world, batch_id):
        for _ in range(3):
            await dispatch(world.trip, batch_id)
            world.now += SETTLES

    async def after(world, batch_id):
        rows = await world.jobs(batch_id)
        assert {row["remote_id"] for row in rows} == set(world.alpha.jobs)
        assert [row["status"] for row in rows] == ["running", "running"]
        assert (await world.events(batch_id)).count("job.submitted") == 2

    names = await killed_everywhere(before, stage, after)
    assert names[:6] == ["before move_job", "after move_job", "before submit", "after submit", *names[:2]]


async def test_who_loses_the_lease_while_uploading_submits_nothing(world):
    batch_id = await planned(world, *chat(4))
    alive = iter([True, False, False])
    await dispatch(dataclasses.replace(world.trip, alive=lambda: next(alive)), batch_id)
    assert world.alpha.jobs == {}
    assert (await world.job(batch_id))["status"] == "submitting"
    for _ in range(5):
        world.now += 10
        await world.step()
    assert len(world.alpha.jobs) == 1
    world.alpha.end()
    assert await world.drive(batch_id) == "completed"
