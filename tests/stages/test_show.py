from __future__ import annotations

import msgspec
import pytest

from batchway.core.errors import NotFound
from batchway.core.jobs import Counts
from batchway.core.money import PICO
from batchway.core.principal import Sight
from batchway.db import jobs
from batchway.pipeline.finalize import finalize
from batchway.pipeline.show import one, page
from batchway.wire.batches import Batch, BatchFilter
from tests.stages.memory_provider import bad, good
from tests.stages.world import PRICED, SIGHT, UNPRICED, chat, either, line, world

__all__ = ["either", "world"]


async def show(world, batch_id, sight=SIGHT):
    shown = await world.db.read(one, batch_id, sight, world.now)
    return msgspec.json.decode(msgspec.json.encode(shown), type=Batch)


async def listed(world, sight=SIGHT, **wanted):
    found = await world.db.read(page, sight, msgspec.convert(wanted, BatchFilter))
    return found, [batch.id for batch in found.data]


async def test_counts_are_live_and_the_end_is_estimated(either):
    batch_id = await either.prepared(*chat(10))
    (remote,) = either.alpha.jobs.values()
    remote.counts = Counts(4, 1)
    await either.look()
    shown = await show(either, batch_id)
    counts = shown.request_counts
    assert (counts.total, counts.completed, counts.failed) == (10, 4, 1)
    assert shown.batchway.estimated_end == int(either.now + 120)  # half was done in the 120 s since it was split
    assert (shown.batchway.amount_usd, shown.batchway.amount_status) == (None, "pending")
    (job,) = shown.batchway.jobs
    assert (job.provider, job.model, job.lane, job.status, job.remote_id) == (
        "alpha", PRICED, "native", "running", remote.id,
    )  # fmt: skip
    assert (job.remote_status, job.request_counts.completed) == ("in_progress", 4)


async def test_an_ended_batch_shows_its_files_its_usage_and_its_amount(either):
    batch_id = await either.ended(*chat(5), answer=lambda name: bad(name) if name == "line-2" else good(name))
    assert (await show(either, batch_id)).output_file_id is None
    await either.drive(batch_id)
    shown, row = await show(either, batch_id), await either.row(batch_id)
    assert (shown.status, shown.output_file_id, shown.error_file_id) == (
        "completed", row["output_file_id"], row["error_file_id"],
    )  # fmt: skip
    assert (shown.request_counts.completed, shown.request_counts.failed) == (4, 1)
    assert (shown.usage.input_tokens, shown.usage.output_tokens, shown.usage.total_tokens) == (40, 20, 60)
    assert (float(shown.batchway.amount_usd) * PICO, shown.batchway.amount_status) == (row["amount"], "final")
    assert shown.completed_at == int(row["completed_at"])
    assert shown.batchway.estimated_end is None


async def test_files_show_only_at_the_end(world):
    batch_id = await world.ended(*chat(3))
    await world.settle(batch_id)
    world.points.kill_at(3)
    with pytest.raises(BaseException, match="whole"):
        await finalize(world.trip, batch_id)
    world.points.kill_at(None)
    shown = await show(world, batch_id)
    assert (shown.status, shown.output_file_id) == ("finalizing", None)
    assert shown.batchway.amount_status == "partial"


async def test_an_unknown_amount_is_unknown_and_never_zero(world):
    batch_id = await world.ended(*chat(4, PRICED, UNPRICED))
    first, second = await world.jobs(batch_id)
    assert first["account"] == "alpha"
    await world.settle(batch_id)
    details = (await show(world, batch_id)).batchway
    assert (details.amount_usd, details.amount_status) == (None, "unknown")
    await world.drive(batch_id)
    details = (await show(world, batch_id)).batchway
    assert (details.amount_usd, details.amount_status) == (None, "unknown")
    assert second["account"] == "beta"


async def test_a_batch_that_cost_nothing_says_zero(world):
    batch_id = await world.ended(*chat(2), answer=bad)
    await world.drive(batch_id)
    details = (await show(world, batch_id)).batchway
    assert (details.amount_usd, details.amount_status) == ("0", "final")


async def test_a_failed_batch_shows_its_faults(world):
    batch_id = await world.prepared(line(1), line(2, "none-such"))
    shown = await show(world, batch_id)
    assert (shown.status, shown.failed_at) == ("failed", int(world.now))
    assert [(fault.line, fault.code) for fault in shown.errors.data] == [(2, "model_not_found")]


async def test_somebody_elses_batch_is_not_found(either):
    batch_id = await either.batch(*chat(1))
    with pytest.raises(NotFound):
        await show(either, batch_id, Sight("another", "key_1"))
    assert (await show(either, batch_id, None)).id == batch_id


async def test_pages_follow_each_other_without_gap_or_repeat(either):
    made = []
    for number in range(5):
        made.append(await either.batch(input_file_id=f"file-{number}"))
        either.now += number % 2  # some share their second
    newest_first = made[::-1]
    found, ids = await listed(either, limit=2)
    assert (ids, found.has_more, found.first_id, found.last_id) == (newest_first[:2], True, ids[0], ids[1])
    _, more = await listed(either, limit=2, after=ids[-1])
    found, last = await listed(either, limit=2, after=more[-1])
    assert (ids + more + last, found.has_more) == (newest_first, False)
    _, oldest_first = await listed(either, order="asc")
    assert oldest_first == made
    assert (await listed(either, sight=Sight("another", "key_1")))[1] == []
    with pytest.raises(NotFound):
        await listed(either, after="batch_none")


async def test_every_filter_narrows(either):
    names = {"team": "a", 'odd "name".x[0]': "ü'%"}
    marked = await either.batch(*chat(2, UNPRICED), metadata=names, priority=1)
    await either.drive(marked)
    either.now += 100
    plain = await either.prepared(*chat(2))
    for wanted, ids in [
        ({"status": "completed"}, [marked]),
        ({"status": "in_progress"}, [plain]),
        ({"metadata": {"team": "a"}}, [marked]),
        ({"metadata": {"team": "b"}}, []),
        ({"metadata": {'odd "name".x[0]': "ü'%"}}, [marked]),
        ({"metadata": {"team": "a", "none": "x"}}, []),
        ({"provider": "beta"}, [marked]),
        ({"model": PRICED}, [plain]),
        ({"created_after": int(either.now) - 5000, "created_before": int(either.now) + 1}, [plain, marked]),
        ({"created_before": 5}, []),
    ]:
        assert (await listed(either, **wanted))[1] == ids, wanted


async def test_a_page_counts_as_the_batch_itself_does(world):
    batch_id = await world.ended(*chat(300), answer=lambda name: bad(name) if name == "line-7" else good(name))
    await world.settle(batch_id)
    (batch,) = (await listed(world))[0].data
    assert batch.request_counts == (await show(world, batch_id)).request_counts
    assert await world.db.read(jobs.counts, [batch_id]) == {batch_id: (299, 1)}
