from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from batchway.core.errors import BatchwayError
from batchway.core.spans import span_lines
from batchway.db import jobs
from batchway.pipeline.cancel import cancel, expire
from batchway.pipeline.split import split
from batchway.pipeline.validate import validate
from tests.stages.world import (
    PRICED,
    SERVED,
    SIGHT,
    UNPRICED,
    chat,
    either,
    killed_everywhere,
    line,
    open_world,
    world,
)

__all__ = ["either", "world"]


async def split_batch(world, *lines, **wanted):
    batch_id = await world.batch(*lines, **wanted)
    await validate(world.trip, batch_id)
    await split(world.trip, batch_id)
    return batch_id


async def numbers(world, row) -> list[int]:
    """The lines that a job reads back from its span."""
    span = jobs.spec(row).span
    chunks = world.storage.read(span.file_key, span.start, span.end)
    return [found.number async for window in span_lines(chunks, span) for found in window]


async def test_a_validated_batch_is_in_progress_with_its_jobs_planned(either):
    batch_id = await split_batch(either, *chat(6, PRICED, UNPRICED))
    row = await either.row(batch_id)
    assert (row["status"], row["in_progress_at"], row["prepared_at"]) == ("in_progress", either.now, either.now)
    first, second = await either.jobs(batch_id)
    assert [(job["account"], job["model"], job["lane"]) for job in (first, second)] == [
        ("alpha", PRICED, "native"),
        ("beta", UNPRICED, "native"),
    ]
    for ordinal, job in enumerate((first, second)):
        assert (job["ordinal"], job["status"], job["lines"]) == (ordinal, "planned", 3)
        assert (job["deadline"], job["window_seconds"]) == (row["expires_at"], 86400)
    assert await numbers(either, first) == [1, 3, 5]
    assert await numbers(either, second) == [2, 4, 6]
    assert await either.events(batch_id) == ["batch.created", "batch.validated", "batch.in_progress"]


async def test_twice_and_at_once_is_once(either):
    batch_id = await either.batch(*chat(600))
    await validate(either.trip, batch_id)
    ends = await asyncio.gather(*(split(either.trip, batch_id) for _ in range(3)), return_exceptions=True)
    # The unique ordinals let one of those who meet commit; the worker runs the others again.
    assert {type(end) for end in ends} <= {type(None), IntegrityError}
    assert None in ends
    before = await either.jobs(batch_id)
    await split(either.trip, batch_id)
    assert await either.jobs(batch_id) == before
    assert [job["lines"] for job in before] == [256, 256, 88]
    assert len({job["token"] for job in before}) == 3
    assert await either.events(batch_id) == ["batch.created", "batch.validated", "batch.in_progress"]


async def test_a_batch_may_be_larger_than_its_provider_allows(world):
    batch_id = await split_batch(world, *chat(1000))
    rows = await world.jobs(batch_id)
    assert [job["first_line"] for job in rows] == [1, 257, 513, 769]
    assert [number for job in rows for number in await numbers(world, job)] == list(range(1, 1001))


async def test_bytes_cut_as_lines_do():
    lines = [line(number, body={"model": PRICED, "messages": [], "x": "y" * 4000}) for number in range(1, 1025)]
    async with open_world(lines=50_000, size=2_300_000) as world:
        rows = await world.jobs(await split_batch(world, *lines))
        assert [job["lines"] for job in rows] == [512, 512]
        assert all(job["bytes"] <= 2_300_000 for job in rows)


async def test_a_name_that_grows_when_it_is_rewritten_leaves_room_for_it():
    lines = [line(number, "alias", pad="y" * 4000) for number in range(1, 769)]
    async with open_world(lines=512, size=2_200_000) as world:
        rows = await world.jobs(await split_batch(world, *lines))
        growth = len(PRICED) - len("alias")
        assert all(job["bytes"] + growth * job["lines"] <= 2_200_000 for job in rows)


async def test_lines_of_several_names_for_one_route_share_a_job(world):
    (job,) = await world.jobs(await split_batch(world, *chat(6, PRICED, "alias", f"alpha/{PRICED}")))
    assert job["models"] == sorted(["alias", f"alpha/{PRICED}", PRICED])
    assert await numbers(world, job) == [1, 2, 3, 4, 5, 6]


async def test_a_model_of_the_batch_sends_every_line_to_one_route(world):
    lines = chat(4, PRICED, "none-such")
    del lines[3]["body"]["model"]
    (job,) = await world.jobs(await split_batch(world, *lines, model="gpt-4o"))
    assert (job["model"], job["models"], job["lines"]) == ("gpt-4o", [], 4)
    assert await numbers(world, job) == [1, 2, 3, 4]


async def test_a_window_too_short_for_the_native_lane_is_executed_or_refused(world):
    batch_id = await split_batch(world, *chat(2, SERVED), completion_window="10m")
    (job,) = await world.jobs(batch_id)
    assert (job["lane"], job["window_seconds"], job["deadline"]) == ("executed", 600, world.now + 600)
    batch_id = await world.batch(*chat(2), completion_window="10m")
    await validate(world.trip, batch_id)
    assert (await world.row(batch_id))["status"] == "failed"


async def test_a_window_longer_than_the_providers_is_served_by_its_longest(world):
    (job,) = await world.jobs(await split_batch(world, *chat(2), completion_window="3d"))
    assert (job["lane"], job["window_seconds"], job["deadline"]) == ("native", 86400, world.now + 3 * 86400)


async def test_a_cancelled_batch_gets_its_jobs_to_end_them(either):
    batch_id = await either.batch(*chat(3))
    await cancel(either.trip, batch_id, SIGHT)
    await validate(either.trip, batch_id)
    await split(either.trip, batch_id)
    assert (await either.row(batch_id))["status"] == "cancelling"
    assert await either.drive(batch_id) == "cancelled"
    assert [found["error"]["code"] for found in (await either.files_of(batch_id))[1]] == ["batch_cancelled"] * 3
    assert not either.alpha.calls["submit"]


async def test_a_batch_whose_window_closed_before_it_was_split_expires_unsent(world):
    batch_id = await world.batch(*chat(3))
    await expire(world.trip, batch_id)
    assert await world.drive(batch_id) == "expired"
    assert [found["error"]["code"] for found in (await world.files_of(batch_id))[1]] == ["batch_expired"] * 3
    assert not world.alpha.calls["submit"]


async def test_a_death_anywhere_splits_entirely_or_not_at_all():
    async def before(world):
        batch_id = await world.batch(*chat(300))
        await validate(world.trip, batch_id)
        return batch_id

    async def stage(world, batch_id):
        await split(world.trip, batch_id)

    async def after(world, batch_id):
        assert [job["lines"] for job in await world.jobs(batch_id)] == [256, 44]
        assert await world.events(batch_id) == ["batch.created", "batch.validated", "batch.in_progress"]

    assert await killed_everywhere(before, stage, after) == ["before _store", "after _store"]


async def test_routes_that_change_between_validation_and_split_lose_no_line(either):
    """The line whose model has no route any more would get no job: validation, which comes first again, names it."""
    batch_id = await either.batch(line(1), line(2, "alias"))
    await validate(either.trip, batch_id)
    del either.trip.accounts._names["alias"]
    with pytest.raises(BatchwayError, match="routes"):
        await split(either.trip, batch_id)
    row = await either.row(batch_id)
    assert (row["status"], row["prepared_at"], await either.jobs(batch_id)) == ("validating", None, [])
    assert await either.drive(batch_id) == "failed"
    assert [fault["line"] for fault in (await either.row(batch_id))["errors"]] == [2]
