from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import insert

from batchway.core.events import EventType
from batchway.db import outbox
from batchway.db.schema import projects
from batchway.integrations.protocol import ReceiverError
from batchway.providers.protocol import Answer
from tests.stages.ear import Ear, known, rounds, row_of, telling
from tests.stages.world import chat, either, world

__all__ = ["either", "world"]


async def accounted(world, count: int) -> str:
    """A batch whose job is accounted and told of, events placed."""
    batch_id = await world.ended(*chat(count))
    await world.settle(batch_id)
    await world.db.write(outbox.place, 1000)
    await known(world)
    return batch_id


async def test_lines_are_told_before_their_jobs_event_in_order_with_bodies_and_amounts(world) -> None:
    batch_id = await accounted(world, 20)
    ear = Ear(window=50, lines=True)
    await rounds(world, telling(world, ear))
    assert [record.number for record in ear.records] == list(range(1, 21))
    record = ear.records[4]
    assert (record.batch_id, record.custom_id, record.provider, record.ok) == (batch_id, "line-5", "alpha", True)
    assert b"say 5" in bytes(record.request)
    assert b"prompt_tokens" in bytes(record.response)
    row = await world.job(batch_id)
    assert sum(record.amount for record in ear.records) == row["amount"] > 0
    assert (
        sum(record.usage.total_tokens for record in ear.records)
        == row["usage"]["input_tokens"] + row["usage"]["output_tokens"]
    )


async def test_lines_are_told_only_to_those_who_want_them(world) -> None:
    await accounted(world, 3)
    ear = Ear(lines=False)
    await rounds(world, telling(world, ear))
    assert not ear.records
    await known(world, "elsewhere")
    ear = Ear(lines=True)
    await telling(world, ear, name="elsewhere", projects=("q",)).round()
    assert not ear.records


@pytest.mark.parametrize(("redaction", "shown"), [("none", b"say 1"), ("hash", b"sha256"), ("drop", None)])
async def test_a_projects_redaction_decides_what_bodies_show(world, redaction, shown) -> None:
    row = {"name": "p", "redaction": redaction, "created_at": world.now}
    await world.db.write(lambda tx: tx.execute(insert(projects).values(**row)))
    await accounted(world, 2)
    ear = Ear(lines=True)
    await rounds(world, telling(world, ear))
    for body in (ear.records[0].request, ear.records[0].response):
        if shown is None:
            assert body is None
        elif redaction == "hash":
            assert shown in bytes(body)
            assert len(msgspec.json.decode(body)["sha256"]) == 64
    if redaction != "none":
        assert not any(b"say" in bytes(record.request or b"") for record in ear.records)


async def test_lines_come_in_bounded_parts_and_a_crash_repeats_one_at_most(world, monkeypatch) -> None:
    monkeypatch.setattr("batchway.pipeline.line_records.PART_LINES", 7)
    monkeypatch.setattr("batchway.pipeline.telling.SMALL", 10)
    await accounted(world, 20)
    ear = Ear(lines=True)

    async def die_after_two(event, records) -> None:
        if len(ear.parts) == 2:
            raise ReceiverError("away")
        await Ear.tell_lines(ear, event, records)

    ear.tell_lines = die_after_two
    it = telling(world, ear)
    await it.round()
    assert ear.parts == [7, 7]
    assert (await row_of(world))["lines_told"] == 14
    fresh = Ear(lines=True)
    world.now += 10
    await rounds(world, telling(world, fresh))
    assert [record.number for record in fresh.records] == list(range(15, 21))
    assert (await row_of(world))["lines_told"] == 0


async def test_parts_are_bounded_in_bytes_too(world, monkeypatch) -> None:
    monkeypatch.setattr("batchway.pipeline.line_records.PART_BYTES", 100)
    await accounted(world, 5)
    ear = Ear(lines=True)
    await rounds(world, telling(world, ear))
    assert ear.parts == [1] * 5


async def test_lines_that_are_gone_do_not_hold_up_the_rest(world) -> None:
    batch_id = await accounted(world, 3)
    await world.storage.delete((await world.job(batch_id))["answers_key"])
    ear = Ear(lines=True)
    await rounds(world, telling(world, ear))
    assert not ear.records
    assert EventType.JOB_ACCOUNTED in [event.type for event in ear.heard]


async def test_an_answer_of_an_odd_form_is_shown_as_it_is(world) -> None:
    odd = b'{"id":"x","custom_id":"line-1","response":null,"error":{"code":null,"message":7}}'
    batch_id = await world.ended(*chat(1), answer=lambda name: Answer(name, ok=False, line=odd))
    await world.settle(batch_id)
    await world.db.write(outbox.place, 1000)
    await known(world)
    ear = Ear(lines=True)
    await rounds(world, telling(world, ear))
    (record,) = ear.records
    assert (record.ok, record.status, record.amount, bytes(record.response)) == (False, None, 0, odd)
