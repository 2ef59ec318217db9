from __future__ import annotations

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.db import files, segments, uploads
from batchway.pipeline.housekeeping import KEEP_SECONDS, keep_house, tidy
from tests.stages.world import PRICED, SERVED, UNPRICED, chat, either, killed_everywhere, world

__all__ = ["either", "world"]


async def objects(world, folder: str) -> list[str]:
    return sorted([key async for key in world.storage.list(folder)])


async def completed(world, *lines):
    batch_id = await world.prepared(*(lines or chat(4)))
    assert await world.drive(batch_id) == "completed"
    return batch_id


async def test_what_an_ended_batch_left_goes_after_its_time_and_its_ledger_stays(either):
    batch_id = await completed(either, *chat(6, PRICED, SERVED))
    entries = await either.entries(batch_id)
    await keep_house(either.trip)
    assert await objects(either, "answers")
    assert (await either.row(batch_id))["tidied_at"] is None
    either.now += KEEP_SECONDS + 60
    await keep_house(either.trip)
    assert not await objects(either, "answers")
    assert not either.alpha.jobs
    assert not either.executed.jobs
    assert not await either.db.read(segments.after, batch_id, 0, 10)
    assert (await either.row(batch_id))["tidied_at"] == either.now
    assert await either.entries(batch_id) == entries
    assert not await objects(either, "files")  # they were kept for as long


async def test_twice_is_once(world):
    batch_id = await completed(world)
    world.now += KEEP_SECONDS + 60
    await keep_house(world.trip)
    before = dict(await world.row(batch_id))
    world.now += 60
    await keep_house(world.trip)
    assert dict(await world.row(batch_id)) == before
    assert world.alpha.calls["clean"] == 1


async def test_a_live_batch_loses_nothing_however_old_it_is(world):
    batch_id = await world.prepared(*chat(4))
    world.now += KEEP_SECONDS * 2
    await keep_house(world.trip)
    assert len(await objects(world, "files")) == 2
    assert await world.drive(batch_id) == "expired"


@pytest.mark.parametrize("trouble", ["refused", "poisoned", "account gone"])
async def test_a_provider_that_fails_keeps_neither_its_batch_nor_the_others_from_being_tidied(world, trouble):
    first, second = await completed(world), await completed(world, *chat(2, UNPRICED))
    job = await world.job(first)
    if trouble == "refused":
        world.alpha.trouble["clean"] = [ProviderError("no", fault=Fault.DENIED, status=403)]
    elif trouble == "poisoned":
        world.alpha.poisoned.add(job["id"])
    else:
        world.trip.accounts._accounts.pop("alpha")
    world.now += KEEP_SECONDS + 60
    await keep_house(world.trip)
    assert [(await world.row(batch_id))["tidied_at"] for batch_id in (first, second)] == [world.now] * 2
    assert not world.beta.jobs


async def test_a_batch_that_was_never_sent_asks_no_provider(world):
    batch_id = await world.batch(input_file_id="file-none")
    assert await world.drive(batch_id) == "failed"
    await tidy(world.trip, batch_id)
    assert not world.alpha.calls
    assert (await world.row(batch_id))["tidied_at"] == world.now


async def test_overdue_uploads_and_files_go(either):
    file_id = await either.file(*chat(2))
    values = {
        "id": "upload_1", "project": "p", "key_id": "k", "filename": "a.jsonl", "purpose": "batch", "bytes": 3,
        "mime_type": "x", "created_at": either.now, "expires_at": either.now + 3600,
    }  # fmt: skip
    await either.db.write(uploads.add, values)
    await either.storage.put("uploads/upload_1/part_1", b"abc")
    await keep_house(either.trip)
    assert await objects(either, "uploads")
    either.now += 3600
    await keep_house(either.trip)
    assert not await objects(either, "uploads")
    assert (await either.db.read(uploads.get, "upload_1"))["status"] == "expired"
    either.now += KEEP_SECONDS
    await keep_house(either.trip)
    assert await either.db.read(files.find, file_id) is None
    assert not await objects(either, "files")


async def test_a_death_anywhere_is_made_good_by_the_next_round():
    async def before(world):
        batch_id = await completed(world)
        world.now += KEEP_SECONDS + 60
        return batch_id

    async def stage(world, _):
        await keep_house(world.trip)

    async def after(world, batch_id):
        assert (await world.row(batch_id))["tidied_at"]
        assert not world.alpha.jobs
        assert not await objects(world, "answers")

    await killed_everywhere(before, stage, after)
