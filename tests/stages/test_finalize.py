from __future__ import annotations

import hashlib
import json

import pytest

from batchway.core.states import Outcome
from batchway.db import files, holds
from batchway.pipeline.cancel import cancel, expire
from batchway.pipeline.finalize import KEEP_SECONDS, finalize
from tests.stages.memory_provider import bad, good
from tests.stages.world import PRICED, SIGHT, UNPRICED, at_once, chat, either, killed_everywhere, world

__all__ = ["either", "world"]


async def accounted(world, *lines, **how):
    batch_id = await world.ended(*lines, **how)
    await world.settle(batch_id)
    return batch_id


async def stored(world) -> list[str]:
    return sorted([key async for key in world.storage.list("files")])


def mixed(name: str):
    number = int(name.removeprefix("line-"))
    return None if number % 5 == 0 else bad(name) if number % 3 == 0 else good(name)


async def test_every_line_stands_in_exactly_one_file_in_input_order(either):
    batch_id = await accounted(either, *chat(600, PRICED, UNPRICED), answer=mixed)
    await finalize(either.trip, batch_id)
    output, errors = await either.files_of(batch_id)
    numbers = [[int(line["custom_id"].removeprefix("line-")) for line in lines] for lines in (output, errors)]
    assert numbers == [sorted(numbers[0]), sorted(numbers[1])]
    assert sorted(numbers[0] + numbers[1]) == list(range(1, 601))
    row = await either.row(batch_id)
    assert (row["status"], row["total"], row["completed"], row["failed"]) == (
        "completed", 600, len(output), len(errors),
    )  # fmt: skip
    assert row["completed_at"] == either.now
    assert row["usage"]["input_tokens"] == 10 * len(output)
    assert row["amount"] == sum(entry["amount"] or 0 for entry in await either.entries(batch_id))
    assert row["amount_known"] is False
    assert (await either.events(batch_id))[-2:] == ["batch.finalizing", "batch.completed"]


async def test_the_rows_of_the_files_describe_their_bytes(world):
    batch_id = await accounted(world, *chat(4), answer=mixed)
    await finalize(world.trip, batch_id)
    row = await world.row(batch_id)
    for name, lines in (("output", 3), ("error", 1)):
        file = await world.db.read(files.get, row[f"{name}_file_id"], SIGHT)
        data = await world.storage.get(file["storage_key"])
        assert (file["bytes"], file["sha256"], file["lines"]) == (len(data), hashlib.sha256(data).hexdigest(), lines)
        assert (file["purpose"], file["batch_id"], file["key_id"]) == ("batch_output", batch_id, "key_1")
        assert file["filename"] == f"{batch_id}_{name}.jsonl"
        assert file["expires_at"] == world.now + KEEP_SECONDS
        assert data.endswith(b"\n")


async def test_files_are_kept_as_long_as_the_batch_says(world):
    file_id = await world.file(*chat(1))
    batch_id = await world.prepared(
        input_file_id=file_id, output_expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert await world.drive(batch_id) == "completed"
    row = await world.row(batch_id)
    file = await world.db.read(files.get, row["output_file_id"], SIGHT)
    assert file["expires_at"] == file["created_at"] + 3600


@pytest.mark.parametrize(("answer", "there"), [(good, (True, False)), (bad, (False, True))])
async def test_a_file_that_would_be_empty_does_not_exist(either, answer, there):
    batch_id = await accounted(either, *chat(3), answer=answer)
    before = await stored(either)
    await finalize(either.trip, batch_id)
    row = await either.row(batch_id)
    assert (row["output_file_id"] is not None, row["error_file_id"] is not None) == there
    assert len(await stored(either)) == len(before) + 1
    assert row["status"] == "completed"  # all lines failed is a batch that completed, as at OpenAI


async def test_twice_and_at_once_is_once(either):
    batch_id = await accounted(either, *chat(20), answer=mixed)
    await at_once(lambda: finalize(either.trip, batch_id))
    before = dict(await either.row(batch_id)), await stored(either), await either.events(batch_id)
    either.now += 5
    await finalize(either.trip, batch_id)
    assert (dict(await either.row(batch_id)), await stored(either), await either.events(batch_id)) == before
    assert before[2].count("batch.completed") == 1


async def test_it_waits_for_the_last_job(world):
    batch_id = await world.ended(*chat(300))
    first, second = await world.jobs(batch_id)
    await world.settle(batch_id)
    assert (await world.row(batch_id))["status"] == "in_progress"
    batch_id = await world.ended(*chat(3))
    await finalize(world.trip, batch_id)
    assert (await world.row(batch_id))["status"] == "in_progress"
    assert (first["status"], second["status"]) == ("ended", "ended")


async def test_a_batch_without_jobs_is_not_ready_before_it_is_prepared(world):
    batch_id = await world.batch(*chat(3))
    await finalize(world.trip, batch_id)
    assert (await world.row(batch_id))["status"] == "validating"


@pytest.mark.parametrize(
    ("outcome", "status", "code", "counted"),
    [
        (Outcome.EXPIRED, "expired", "batch_expired", 0),
        (Outcome.CANCELLED, "completed", "batch_cancelled", 0),
        (Outcome.FAILED, "completed", "job_failed", 4),
        (Outcome.REJECTED, "completed", "job_failed", 4),
        (Outcome.SUCCEEDED, "completed", "missing_answer", 4),
    ],
)
async def test_what_becomes_of_a_batch_whose_job_ended_so(either, outcome, status, code, counted):
    batch_id = await accounted(
        either, *chat(6), outcome=outcome, answer=lambda name: good(name) if name < "line-3" else None
    )
    await finalize(either.trip, batch_id)
    row = await either.row(batch_id)
    assert (row["status"], row["completed"], row["failed"]) == (status, 2, counted)
    assert row[f"{status}_at"] == either.now
    output, errors = await either.files_of(batch_id)
    assert [line["custom_id"] for line in output] == ["line-1", "line-2"]
    assert [line["error"]["code"] for line in errors] == [code] * 4
    assert all(line["response"] is None and line["error"]["message"] for line in errors)
    assert not await either.db.read(holds.open_holds)


@pytest.mark.parametrize(("end", "status"), [(cancel, "cancelled"), (expire, "expired")])
async def test_a_batch_that_was_ended_early_ends_so_with_its_files(either, end, status):
    batch_id = await accounted(either, *chat(4), answer=mixed)
    await (end(either.trip, batch_id, SIGHT) if end is cancel else end(either.trip, batch_id))
    await finalize(either.trip, batch_id)
    row = await either.row(batch_id)
    assert (row["status"], row["completed"], row["failed"]) == (status, 3, 1)
    assert [len(lines) for lines in await either.files_of(batch_id)] == [3, 1]
    assert (await either.events(batch_id))[-1] == f"batch.{status}"


async def test_a_cancel_while_the_files_are_written_ends_as_cancelled(world):
    batch_id = await accounted(world, *chat(4))
    world.points.kill_at(3)
    with pytest.raises(BaseException, match="is whole"):
        await finalize(world.trip, batch_id)
    world.points.kill_at(None)
    assert (await world.row(batch_id))["status"] == "finalizing"
    await cancel(world.trip, batch_id, SIGHT)
    await finalize(world.trip, batch_id)
    assert (await world.row(batch_id))["status"] == "cancelled"
    assert [len(lines) for lines in await world.files_of(batch_id)] == [4, 0]


async def test_a_death_anywhere_writes_the_same_files_and_leaves_no_others():
    async def before(world):
        return await accounted(world, *chat(30))

    async def stage(world, batch_id):
        await finalize(world.trip, batch_id)

    async def after(world, batch_id):
        row = await world.row(batch_id)
        assert (row["status"], row["completed"], row["error_file_id"]) == ("completed", 30, None)
        input_key = f"files/{row['input_file_id']}"
        assert await stored(world) == sorted([input_key, f"{input_key}.index", f"files/{row['output_file_id']}"])
        output, _ = await world.files_of(batch_id)
        assert [line["custom_id"] for line in output] == [f"line-{number}" for number in range(1, 31)]
        assert (await world.events(batch_id))[-2:] == ["batch.finalizing", "batch.completed"]

    assert len(await killed_everywhere(before, stage, after)) >= 8


def test_the_mixture_has_all_kinds():
    assert {json.dumps(found.ok if (found := mixed(f"line-{n}")) else None) for n in range(1, 16)} == {
        "true", "false", "null",
    }  # fmt: skip
