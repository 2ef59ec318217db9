from __future__ import annotations

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Counts, Look
from batchway.core.states import JobState, Outcome
from batchway.db import jobs
from batchway.db.transitions import move_job
from batchway.pipeline.poll import LEASE, LOST_AFTER, SLOWEST, _record, poll
from tests.stages.memory_provider import bad
from tests.stages.world import PRICED, UNPRICED, at_once, chat, either, killed_everywhere, world

__all__ = ["either", "world"]

GONE = ProviderError("no such job", fault=Fault.REJECTED, status=404)
BUSY = ProviderError("busy", fault=Fault.TRANSIENT, status=500)


async def test_a_running_job_shows_its_counts_and_comes_up_again(either):
    batch_id = await either.prepared(*chat(10))
    either.now += 2
    (remote,) = either.alpha.jobs.values()
    remote.counts, remote.status = Counts(4, 1), "in_progress"
    assert await poll(either.trip) == 1
    job = await either.job(batch_id)
    assert (job["status"], job["completed"], job["failed"], job["remote_status"]) == ("running", 4, 1, "in_progress")
    assert job["poll_at"] == either.now + 1
    assert await poll(either.trip) == 0


async def test_counts_only_grow(either):
    batch_id = await either.prepared(*chat(10))
    (remote,) = either.alpha.jobs.values()
    for told, shown in ((Counts(4, 1), (4, 1)), (Counts(3, 2), (4, 2)), (Counts(0, 0), (4, 2)), (Counts(7, 0), (7, 2))):
        remote.counts = told
        await either.look()
        job = await either.job(batch_id)
        assert (job["completed"], job["failed"]) == shown


async def test_an_ended_job_says_how_and_where_its_answers_are(either):
    batch_id = await either.ended(*chat(3))
    job = await either.job(batch_id)
    (remote,) = either.alpha.jobs.values()
    assert (job["status"], job["outcome"], job["results"]) == ("ended", "succeeded", [remote.id])
    assert job["ended_at"] == either.now
    assert (await either.events(batch_id))[-1] == "job.ended"


async def test_twice_and_at_once_is_once(either):
    batch_id = await either.prepared(*chat(300))
    either.alpha.end()
    either.now += 2
    await at_once(lambda: poll(either.trip))
    assert await poll(either.trip) == 0
    assert either.alpha.calls["look"] == 2
    assert (await either.events(batch_id)).count("job.ended") == 2


async def test_a_claimed_look_is_taken_up_again_when_its_poller_died(world):
    await world.prepared(*chat(3))
    world.now += 2
    assert len(await world.db.write(jobs.claim_polls, world.now, LEASE, 10)) == 1
    assert await poll(world.trip) == 0
    world.now += LEASE
    assert await poll(world.trip) == 1


async def test_a_word_nobody_knows_is_running(world):
    batch_id = await world.prepared(*chat(3))
    (remote,) = world.alpha.jobs.values()
    remote.status = "pondering"
    await world.look()
    job = await world.job(batch_id)
    assert (job["status"], job["remote_status"], job["outcome"]) == ("running", "pondering", None)


async def test_looks_become_rarer_with_age_and_stay_bounded(world):
    batch_id = await world.prepared(*chat(3))
    waits = []
    for age in (2, 200, 1000, 80_000):
        world.now = (await world.job(batch_id))["running_at"] + age
        await poll(world.trip)
        waits.append((await world.job(batch_id))["poll_at"] - world.now)
    assert waits == [1, 10, 50, SLOWEST]


async def test_an_outage_ends_no_job(world):
    batch_id = await world.prepared(*chat(3))
    world.alpha.trouble["look"] = [BUSY] * 20
    for _ in range(20):
        await world.look()
    job = await world.job(batch_id)
    assert (job["status"], job["attempts"]) == ("running", 20)
    assert job["poll_at"] == world.now + SLOWEST
    await world.look()
    assert (await world.job(batch_id))["attempts"] == 0


async def test_retry_after_is_obeyed(world):
    batch_id = await world.prepared(*chat(3))
    world.alpha.trouble["look"] = [ProviderError("slow", fault=Fault.THROTTLED, status=429, retry_after=90.0)]
    await world.look()
    assert (await world.job(batch_id))["poll_at"] == world.now + 90


async def test_a_job_that_the_provider_denies_again_and_again_is_lost(either):
    batch_id = await either.prepared(*chat(3))
    either.alpha.jobs.clear()
    for _ in range(LOST_AFTER - 1):
        await either.look()
    assert (await either.job(batch_id))["status"] == "running"
    await either.look()
    job = await either.job(batch_id)
    assert (job["status"], job["outcome"], job["code"]) == ("ended", "failed", "job_lost")
    assert await either.drive(batch_id) == "completed"
    assert [found["error"]["code"] for found in (await either.files_of(batch_id))[1]] == ["job_lost"] * 3


async def test_an_outage_before_a_single_denial_is_no_loss(world):
    batch_id = await world.prepared(*chat(3))
    world.alpha.trouble["look"] = [BUSY] * (LOST_AFTER - 1) + [GONE, BUSY, GONE, BUSY, GONE]
    for _ in range(LOST_AFTER + 4):
        await world.look()
    assert (await world.job(batch_id))["status"] == "running"


async def test_a_job_whose_account_left_the_settings_waits(world):
    batch_id = await world.prepared(*chat(3))
    gone = world.trip.accounts._accounts.pop("alpha")
    await world.look()
    assert (await world.job(batch_id))["poll_at"] == world.now + SLOWEST
    world.trip.accounts._accounts["alpha"] = gone
    assert await world.drive(batch_id) == "completed"


async def test_a_poisoned_job_stops_no_other(world):
    batch_id = await world.prepared(*chat(6, PRICED, UNPRICED))
    poisoned, other = await world.jobs(batch_id)
    world.alpha.poisoned.add(poisoned["id"])
    world.beta.end()
    world.now += 2
    assert await poll(world.trip) == 2
    poisoned, other = await world.jobs(batch_id)
    assert (poisoned["status"], other["status"]) == ("running", "ended")
    assert poisoned["poll_at"] > world.now
    world.alpha.poisoned.clear()
    assert await world.drive(batch_id) == "completed"


async def test_a_look_from_before_the_end_changes_nothing_after_it(either):
    batch_id = await either.ended(*chat(3), answer=bad)
    job = await either.job(batch_id)
    await either.settle(batch_id)
    before = dict(await either.job(batch_id))
    late = Look(remote_id=job["remote_id"], status="in_progress", counts=Counts(3, 3))
    await either.db.write(_record, job, late, either.now, 1.0)
    assert dict(await either.job(batch_id)) == before
    assert not await either.db.write(
        move_job, job["id"], JobState.RUNNING, JobState.ENDED, either.now, {"outcome": Outcome.FAILED}
    )


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REJECTED, Outcome.EXPIRED, Outcome.CANCELLED])
async def test_every_way_to_end_is_kept(world, outcome):
    batch_id = await world.ended(*chat(3), outcome=outcome, answer=lambda _: None)
    assert (await world.job(batch_id))["outcome"] == outcome


async def test_a_death_anywhere_costs_a_look():
    async def before(world):
        batch_id = await world.prepared(*chat(3))
        world.alpha.end()
        return batch_id

    async def stage(world, batch_id):
        for _ in range(2):
            world.now += LEASE
            await poll(world.trip)

    async def after(world, batch_id):
        assert (await world.job(batch_id))["outcome"] == "succeeded"
        assert (await world.events(batch_id)).count("job.ended") == 1

    await killed_everywhere(before, stage, after)
