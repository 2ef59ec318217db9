"""A job that was refused whole goes to the next route, or waits: its lines are answered by exactly one job."""

from __future__ import annotations

from collections import Counter

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.core.states import Outcome
from batchway.pipeline.cancel import cancel
from tests.stages.world import BOTH, PRICED, SIGHT, UNPRICED, chat, either, world

__all__ = ["either", "world"]


def refused(code: str = "model_not_found") -> ProviderError:
    return ProviderError("refused", fault=Fault.REJECTED, status=400, code=code)


async def custom_ids(world, batch_id) -> list[str]:
    output, errors = await world.files_of(batch_id)
    return [line["custom_id"] for line in output + errors]


async def finish(world, batch_id) -> str:
    """Drives the batch, ending every job that gets to a provider."""
    for _ in range(20):
        await world.step()
        for provider in world.providers:
            provider.end()
        world.now += 700
    return await world.drive(batch_id)


async def test_the_jobs_of_a_name_with_several_routes_are_spread_over_them(world):
    batch_id = await world.prepared(*chat(1024, BOTH))
    accounts = Counter(row["account"] for row in await world.jobs(batch_id))
    assert accounts == {"alpha": 2, "beta": 2}
    assert await finish(world, batch_id) == "completed"
    assert await custom_ids(world, batch_id) == [f"line-{n}" for n in range(1, 1025)]


async def test_a_job_refused_at_submit_is_taken_over_by_the_next_route(either):
    either.alpha.trouble["submit"] = [refused()]
    batch_id = await either.prepared(*chat(6, BOTH))
    assert await finish(either, batch_id) == "completed"
    first, second = await either.jobs(batch_id)
    assert (first["account"], first["outcome"], first["answers_key"]) == ("alpha", "rejected", None)
    assert (second["account"], second["model"], second["completed"]) == ("beta", UNPRICED, 6)
    assert await custom_ids(either, batch_id) == [f"line-{n}" for n in range(1, 7)]
    assert [entry["job_id"] for entry in await either.entries(batch_id)] == [second["id"]]
    assert (await either.row(batch_id))["completed"] == 6


async def test_a_job_refused_later_is_taken_over_too(world):
    batch_id = await world.prepared(*chat(6, BOTH))
    world.alpha.end(Outcome.REJECTED, lambda _: None)
    assert await finish(world, batch_id) == "completed"
    assert [row["account"] for row in await world.jobs(batch_id)] == ["alpha", "beta"]
    assert await custom_ids(world, batch_id) == [f"line-{n}" for n in range(1, 7)]


async def test_when_every_route_refuses_the_lines_say_so(world):
    world.alpha.trouble["submit"] = [refused()]
    world.beta.trouble["submit"] = [refused("invalid_request")]
    batch_id = await world.prepared(*chat(3, BOTH))
    assert await finish(world, batch_id) == "completed"
    output, errors = await world.files_of(batch_id)
    assert not output
    assert [line["error"]["code"] for line in errors] == ["invalid_request"] * 3
    assert (await world.row(batch_id))["failed"] == 3


async def test_a_full_provider_is_asked_again_later(world):
    world.alpha.trouble["submit"] = [refused("token_limit_exceeded"), refused("token_limit_exceeded")]
    batch_id = await world.prepared(*chat(3, PRICED))
    assert await finish(world, batch_id) == "completed"
    jobs = await world.jobs(batch_id)
    assert [row["account"] for row in jobs] == ["alpha"] * 3
    waits = [later["planned_at"] < later["submitting_at"] for later in jobs[1:]]
    assert all(waits)
    assert await custom_ids(world, batch_id) == ["line-1", "line-2", "line-3"]


async def test_a_full_provider_is_not_waited_for_past_the_deadline(world):
    world.alpha.trouble["submit"] = [refused("token_limit_exceeded")] * 1000
    batch_id = await world.prepared(*chat(3, PRICED))
    for _ in range(400):
        await world.step()
        world.now += 600
    _, errors = await world.files_of(batch_id)
    assert len(errors) == 3
    assert {line["error"]["code"] for line in errors} <= {"token_limit_exceeded", "batch_expired"}


@pytest.mark.parametrize("ending", ["cancel", "expire"])
async def test_a_batch_that_is_ending_starts_nothing_anew(world, ending):
    world.alpha.trouble["submit"] = [refused()]
    batch_id = await world.prepared(*chat(3, BOTH))
    if ending == "cancel":
        await cancel(world.trip, batch_id, SIGHT)
    else:
        world.now += 90_000
        await world.step()
    await world.drive(batch_id)
    assert [row["account"] for row in await world.jobs(batch_id)] == ["alpha"]
    assert len((await world.files_of(batch_id))[1]) == 3


async def test_rerouting_twice_plans_one_job(either):
    either.alpha.trouble["submit"] = [refused()]
    batch_id = await either.prepared(*chat(3, BOTH))
    await either.settle(batch_id)
    await either.settle(batch_id)
    assert len(await either.jobs(batch_id)) == 2
