from __future__ import annotations

import json

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.core.states import Outcome
from batchway.db import jobs, segments
from batchway.pipeline.cancel import cancel, expire, stop
from batchway.pipeline.collect import GIVE_UP, collect
from batchway.pipeline.merge import merge
from batchway.providers.protocol import Answer
from tests.stages.memory_provider import answer_line, bad, good
from tests.stages.world import PRICED, SERVED, SIGHT, UNPRICED, at_once, chat, either, killed_everywhere, world

__all__ = ["either", "world"]


async def collect_all(world, batch_id):
    for row in await world.jobs(batch_id):
        await collect(world.trip, row["id"])
    return [answer async for window in merge(world.storage, await world.jobs(batch_id)) for answer in window]


def codes(answers) -> list[str | None]:
    return [None if answer.ok else (json.loads(answer.line)["error"] or {}).get("code") for answer in answers]


async def test_answers_in_any_order_come_back_in_input_order(either):
    batch_id = await either.ended(*chat(600), answer=lambda name: bad(name) if name.endswith("7") else good(name))
    answers = await collect_all(either, batch_id)
    assert [answer.number for answer in answers] == list(range(1, 601))
    assert all(json.loads(answer.line)["custom_id"] == f"line-{answer.number}" for answer in answers)
    assert [answer.number for answer in answers if not answer.ok] == list(range(7, 600, 10))
    rows = await either.jobs(batch_id)
    assert {row["status"] for row in rows} == {"collected"}
    assert (sum(row["completed"] for row in rows), sum(row["failed"] for row in rows)) == (540, 60)


async def test_twice_and_at_once_is_once(either):
    batch_id = await either.ended(*chat(20))
    (job,) = await either.jobs(batch_id)
    await at_once(lambda: collect(either.trip, job["id"]))
    before = dict(await either.job(batch_id)), await either.storage.get(f"answers/{batch_id}/{job['id']}.jsonl")
    await collect(either.trip, job["id"])
    assert (dict(await either.job(batch_id)), await either.storage.get(before[0]["answers_key"])) == before
    (segment,) = await either.db.read(segments.of_job, job["id"])
    assert (segment["completed"], segment["failed"], segment["bytes"]) == (20, 0, len(before[1]))


async def test_foreign_and_doubled_answers_are_dropped_and_the_first_one_holds(world):
    batch_id = await world.prepared(*chat(3))
    (remote,) = world.alpha.jobs.values()
    world.alpha.end()
    second = Answer("line-2", ok=False, line=answer_line("line-2", 500))
    remote.answers = [good("line-2"), good("nobody"), second, good("line-1"), good("line-3"), good("line-3")]
    await world.look()
    answers = await collect_all(world, batch_id)
    assert [(answer.number, answer.ok) for answer in answers] == [(1, True), (2, True), (3, True)]


async def test_lines_without_an_answer_of_a_job_that_succeeded_have_failed(either):
    batch_id = await either.ended(*chat(4), answer=lambda name: None if name == "line-2" else good(name))
    answers = await collect_all(either, batch_id)
    assert codes(answers) == [None, "missing_answer", None, None]
    job = await either.job(batch_id)
    assert (job["completed"], job["failed"]) == (3, 1)


@pytest.mark.parametrize(
    ("outcome", "code", "failed"),
    [
        (Outcome.EXPIRED, "batch_expired", 0),
        (Outcome.CANCELLED, "batch_cancelled", 0),
        (Outcome.FAILED, "job_failed", 2),
        (Outcome.REJECTED, "job_failed", 2),
    ],
)
async def test_what_was_answered_is_kept_whatever_became_of_the_job(world, outcome, code, failed):
    batch_id = await world.ended(
        *chat(4), outcome=outcome, answer=lambda name: good(name) if name in ("line-1", "line-4") else None
    )
    assert codes(await collect_all(world, batch_id)) == [None, code, code, None]
    job = await world.job(batch_id)
    assert (job["completed"], job["failed"]) == (2, failed)  # a line that was never run has not failed


@pytest.mark.parametrize(
    ("end", "code", "status"), [("cancel", "batch_cancelled", "cancelled"), ("expire", "batch_expired", "expired")]
)
async def test_the_reason_for_stopping_is_the_reason_of_each_line(either, end, code, status):
    batch_id = await either.prepared(*chat(4, PRICED, SERVED))
    await (cancel(either.trip, batch_id, SIGHT) if end == "cancel" else expire(either.trip, batch_id))
    await stop(either.trip, batch_id)
    await either.look()
    assert [row["outcome"] for row in await either.jobs(batch_id)] == ["cancelled", "cancelled"]
    assert codes(await collect_all(either, batch_id)) == [None, None, code, code]
    assert await either.drive(batch_id) == status


async def test_a_job_that_never_left_asks_no_provider(world):
    world.alpha.trouble["submit"] = [ProviderError("no", fault=Fault.REJECTED, code="too_big")]
    batch_id = await world.prepared(*chat(3))
    assert codes(await collect_all(world, batch_id)) == ["too_big"] * 3
    assert not world.alpha.calls["answers"]


async def test_an_executed_job_adds_only_what_was_never_sent_to_the_results(world):
    """Its answers are in the results already, segment by segment."""
    batch_id = await world.ended(
        *chat(4, SERVED), outcome=Outcome.EXPIRED, answer=lambda name: good(name) if name == "line-3" else None
    )
    await collect_all(world, batch_id)
    (row,) = await world.db.read(segments.after, batch_id, 0, 10)
    assert (row["completed"], row["failed"]) == (0, 0)
    text = (await world.storage.get(row["storage_key"])).decode()
    assert [line.split(" ")[0] for line in text.splitlines()] == ["1", "2", "4"]


async def test_an_executed_job_that_answered_all_adds_nothing(world):
    batch_id = await world.ended(*chat(4, SERVED))
    await collect_all(world, batch_id)
    assert not await world.db.read(segments.after, batch_id, 0, 10)


async def test_a_provider_that_fails_leaves_the_job_for_the_next_time(world):
    world.alpha.trouble["answers"] = [ProviderError("busy", fault=Fault.TRANSIENT)]
    batch_id = await world.ended(*chat(3))
    with pytest.raises(ProviderError):
        await collect_all(world, batch_id)
    assert (await world.job(batch_id))["status"] == "ended"
    assert codes(await collect_all(world, batch_id)) == [None] * 3


async def test_answers_that_are_too_many_for_memory_go_to_the_scratch_folder_and_leave_it_empty(world):
    wide = json.dumps({"x": "y" * 40_000})

    def answer(name: str) -> Answer:
        return Answer(name, ok=True, line=f'{{"custom_id":"{name}","response":{wide}}}'.encode())

    batch_id = await world.ended(*chat(200), answer=answer)
    answers = await collect_all(world, batch_id)
    assert [json.loads(found.line)["custom_id"] for found in answers] == [f"line-{n}" for n in range(1, 201)]
    assert not list(world.trip.scratch.iterdir())


async def test_jobs_of_several_routes_interleave_by_line(world):
    batch_id = await world.ended(*chat(900, PRICED, UNPRICED, SERVED))
    answers = await collect_all(world, batch_id)
    assert [answer.number for answer in answers] == list(range(1, 901))


async def test_a_death_anywhere_leaves_each_line_one_answer():
    async def before(world):
        return await world.ended(*chat(300), answer=lambda name: None if name == "line-2" else good(name))

    async def stage(world, batch_id):
        await collect_all(world, batch_id)

    async def after(world, batch_id):
        answers = [found async for window in merge(world.storage, await world.jobs(batch_id)) for found in window]
        assert [found.number for found in answers] == list(range(1, 301))
        rows = await world.db.read(segments.after, batch_id, 0, 10)
        assert [(row["seq"], row["completed"], row["failed"]) for row in rows] == [(1, 255, 1), (2, 44, 0)]
        assert not list(world.trip.scratch.iterdir())

    assert len(await killed_everywhere(before, stage, after)) == 10


async def test_results_that_are_gone_at_the_provider_do_not_hold_the_batch_for_ever(world):
    batch_id = await world.ended(*chat(3))
    job = await world.job(batch_id)
    world.alpha.trouble["answers"] = [ProviderError("gone", fault=Fault.REJECTED, status=404)] * 20
    for attempts in range(GIVE_UP):
        await world.db.write(jobs.note, job["id"], {"attempts": attempts})
        with pytest.raises(ProviderError):
            await collect(world.trip, job["id"])
    await world.db.write(jobs.note, job["id"], {"attempts": GIVE_UP})
    await collect(world.trip, job["id"])
    assert await world.drive(batch_id) == "completed"
    assert [line["error"]["code"] for line in (await world.files_of(batch_id))[1]] == ["missing_answer"] * 3
