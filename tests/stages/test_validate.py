from __future__ import annotations

from sqlalchemy import select

from batchway.core.states import BatchState
from batchway.db import holds
from batchway.db.schema import holds as holds_table
from batchway.pipeline.cancel import cancel
from batchway.pipeline.validate import validate
from tests.stages.world import PRICED, SIGHT, UNPRICED, at_once, chat, either, killed_everywhere, line, world

__all__ = ["either", "world"]


async def all_holds(world):
    return await world.db.read(lambda tx: tx.execute(select(holds_table)).mappings().all())


async def test_a_good_batch_keeps_validating_with_its_total_and_its_hold(either):
    batch_id = await either.batch(*chat(5))
    await validate(either.trip, batch_id)
    row = await either.row(batch_id)
    assert (row["status"], row["total"], row["errors"], row["prepared_at"]) == ("validating", 5, None, None)
    (hold,) = await either.db.read(holds.open_holds)
    assert (hold["batch_id"], hold["project"]) == (batch_id, "p")
    assert hold["amount"] > 0
    assert await either.events(batch_id) == ["batch.created", "batch.validated"]


async def test_twice_and_at_once_is_once(either):
    batch_id = await either.batch(*chat(5))
    await at_once(lambda: validate(either.trip, batch_id))
    before = dict(await either.row(batch_id)), await all_holds(either)
    await validate(either.trip, batch_id)
    assert (dict(await either.row(batch_id)), await all_holds(either)) == before
    assert len(before[1]) == 1


async def test_an_unknown_price_holds_an_unknown_amount(world):
    batch_id = await world.batch(*chat(4, PRICED, UNPRICED))
    await validate(world.trip, batch_id)
    (hold,) = await all_holds(world)
    assert hold["amount"] is None


async def test_every_fault_is_named_by_its_line_and_nothing_is_held(either):
    lines = [line(1), line(2, "none-such"), line(3, url="/v1/embeddings"), line(1), line(5)]
    lines[2]["body"] = {"model": PRICED, "input": "x"}
    batch_id = await either.batch(*lines)
    await at_once(lambda: validate(either.trip, batch_id))
    row = await either.row(batch_id)
    assert row["status"] == BatchState.FAILED
    assert row["failed_at"] == row["prepared_at"] == either.now
    assert [(fault["line"], fault["code"]) for fault in row["errors"]] == [
        (2, "model_not_found"),
        (3, "invalid_url"),
        (4, "duplicate_custom_id"),
    ]
    assert not await all_holds(either)
    assert await either.events(batch_id) == ["batch.created", "batch.failed"]
    assert not either.alpha.calls


async def test_a_foreign_url_alone_fails_the_batch(world):
    batch_id = await world.batch(*chat(2), endpoint="/v1/embeddings")
    await validate(world.trip, batch_id)
    row = await world.row(batch_id)
    assert [(fault["line"], fault["code"], fault["param"]) for fault in row["errors"]] == [
        (1, "invalid_url", "url"),
        (2, "invalid_url", "url"),
    ]


async def test_a_model_whose_provider_lacks_the_endpoint_is_told_so(world):
    lines = [line(1, url="/v1/embeddings", body={"model": PRICED, "input": "x"})]
    batch_id = await world.batch(*lines, endpoint="/v1/embeddings")
    await validate(world.trip, batch_id)
    (fault,) = (await world.row(batch_id))["errors"]
    assert (fault["line"], fault["code"], fault["param"]) == (1, "invalid_url", "body.model")
    assert "/v1/embeddings" in fault["message"]


async def test_a_file_that_is_not_there_fails_the_batch(world):
    batch_id = await world.batch(input_file_id="file-none")
    await validate(world.trip, batch_id)
    row = await world.row(batch_id)
    assert (row["status"], row["total"]) == ("failed", 0)
    (fault,) = row["errors"]
    assert (fault["code"], fault["param"], fault["line"]) == ("invalid_request", "file_id", None)


async def test_a_model_of_the_batch_stands_in_for_that_of_the_lines(world):
    lines = [line(1, "none-such"), line(2)]
    del lines[1]["body"]["model"]
    batch_id = await world.batch(*lines, model=PRICED)
    await validate(world.trip, batch_id)
    row = await world.row(batch_id)
    assert (row["status"], row["errors"], row["total"]) == ("validating", None, 2)


async def test_a_line_without_a_model_is_a_fault_when_the_batch_names_none(world):
    lines = [line(1), line(2)]
    del lines[1]["body"]["model"]
    batch_id = await world.batch(*lines)
    await validate(world.trip, batch_id)
    assert [fault["line"] for fault in (await world.row(batch_id))["errors"]] == [2]


async def test_a_batch_cancelled_meanwhile_keeps_its_faults_and_ends_as_cancelled(either):
    batch_id = await either.batch(line(1, "none-such"))
    await cancel(either.trip, batch_id, SIGHT)
    await validate(either.trip, batch_id)
    row = await either.row(batch_id)
    assert (row["status"], row["errors"][0]["code"]) == ("cancelling", "model_not_found")
    assert await either.drive(batch_id) == "cancelled"
    assert await either.files_of(batch_id) == ([], [])
    assert not await either.db.read(holds.open_holds)


async def test_an_alias_of_the_settings_leads_somewhere(world):
    batch_id = await world.batch(line(1, "alias"), line(2, f"alpha/{PRICED}"))
    await validate(world.trip, batch_id)
    assert (await world.row(batch_id))["errors"] is None


async def test_a_death_anywhere_leaves_nothing_wrong():
    async def good(world):
        return await world.batch(*chat(3))

    async def faulty(world):
        return await world.batch(line(1, "none-such"))

    async def stage(world, batch_id):
        await validate(world.trip, batch_id)

    async def accepted(world, batch_id):
        assert (await world.row(batch_id))["total"] == 3
        assert len(await all_holds(world)) == 1

    async def failed(world, batch_id):
        assert await world.events(batch_id) == ["batch.created", "batch.failed"]
        assert not await all_holds(world)

    assert await killed_everywhere(good, stage, accepted) == ["before _accept", "after _accept"]
    assert await killed_everywhere(faulty, stage, failed) == ["before _record_failure", "after _record_failure"]
