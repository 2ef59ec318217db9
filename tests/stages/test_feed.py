from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event as sql

from batchway import pipeline
from batchway.core.events import EventType
from batchway.db import outbox
from batchway.db.outbox import About, tell
from batchway.server import feed as module
from batchway.server.feed import Feed
from tests.stages.world import chat, either, world

__all__ = ["either", "world"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.01)


class Stream:
    """One watcher; `told` are its frames as dicts."""

    def __init__(self, feed: Feed, batch_id: str, last: str | None = None) -> None:
        self.frames = feed.stream(batch_id, last)
        self.told: list[dict] = []

    async def next(self) -> dict:
        async with asyncio.timeout(20):
            frame = await anext(self.frames)
        fields = dict(line.split(": ", 1) for line in frame.decode().strip().splitlines())
        fields["data"] = json.loads(fields["data"]) if "data" in fields else None
        self.told.append(fields)
        return fields

    async def until(self, kind: str) -> dict:
        while (fields := await self.next()).get("event") != kind:
            pass
        return fields

    async def rest(self) -> list[str]:
        """The kinds of all frames until the stream ends by itself."""
        async with asyncio.timeout(20):
            async for frame in self.frames:
                fields = dict(line.split(": ", 1) for line in frame.decode().strip().splitlines())
                self.told.append(fields)
        return [fields.get("event", "comment") for fields in self.told]


@asynccontextmanager
async def watching(feed: Feed, batch_id: str, last: str | None = None):
    made = Stream(feed, batch_id, last)
    try:
        yield made
    finally:
        await made.frames.aclose()


async def placed(world) -> None:
    await world.db.write(outbox.place, 1000)


async def finished(world, batch_id: str) -> None:
    for provider in world.providers:
        provider.end()
    await world.look()
    await world.settle(batch_id)
    await pipeline.finish(world.trip, batch_id)
    await placed(world)


async def test_a_stream_tells_progress_and_events_until_the_end(either) -> None:
    feed = Feed(either.db)
    batch_id = await either.batch(*chat(4))
    await placed(either)
    async with watching(feed, batch_id) as stream:
        first = await stream.next()
        assert (first["event"], first["data"]["status"]) == ("batch", "validating")
        await pipeline.prepare(either.trip, batch_id)
        await placed(either)
        submitted = await stream.until("job.submitted")
        assert submitted["data"]["subject"] == batch_id
        assert submitted["id"] == submitted["data"]["id"]
        await finished(either, batch_id)
        kinds = await stream.rest()
    assert [kind for kind in kinds if kind != "batch"] == [
        "batch.validated", "batch.in_progress", "job.submitted", "job.ended", "job.accounted", "batch.finalizing",
        "batch.completed",
    ]  # fmt: skip
    last = json.loads([fields for fields in stream.told if fields["event"] == "batch"][-1]["data"])
    assert last == {
        "id": batch_id, "status": "completed", "request_counts": {"total": 4, "completed": 4, "failed": 0}
    }  # fmt: skip


async def test_who_comes_back_gets_what_was_missed_and_nothing_twice(either) -> None:
    feed = Feed(either.db)
    batch_id = await either.prepared(*chat(4))
    await placed(either)
    events = await either.db.read(outbox.of_subject, batch_id)
    async with watching(feed, batch_id, events[1].id) as stream:
        assert (await stream.next())["id"] == events[2].id
        await finished(either, batch_id)
        await stream.rest()
    every = [event.id for event in await either.db.read(outbox.of_subject, batch_id)]
    assert [fields["id"] for fields in stream.told if "id" in fields] == every[2:]
    async with watching(feed, batch_id, "evt_that_was_pruned") as stream:
        await stream.rest()
    assert [fields["id"] for fields in stream.told if "id" in fields] == every


async def test_a_stream_of_an_ended_batch_tells_its_end_and_ends(world) -> None:
    batch_id = await world.prepared(*chat(2))
    await finished(world, batch_id)
    async with watching(Feed(world.db), batch_id) as stream:
        assert await stream.rest() == ["batch"]


async def test_a_watcher_hears_of_its_own_batch_only(world) -> None:
    feed = Feed(world.db)
    mine, other = await world.batch(*chat(1)), await world.batch(*chat(1))
    await placed(world)
    async with watching(feed, mine) as stream, watching(feed, other) as theirs:
        await stream.next()
        await theirs.next()
        await pipeline.prepare(world.trip, other)
        await placed(world)
        await theirs.until("batch.in_progress")
        await pipeline.prepare(world.trip, mine)
        await placed(world)
        await stream.until("batch.in_progress")
    assert {fields["data"].get("subject", mine) for fields in stream.told} == {mine}


async def test_one_that_reads_too_slowly_is_sent_away_and_the_others_are_not(world, monkeypatch) -> None:
    monkeypatch.setattr(module, "QUEUE", 3)
    feed = Feed(world.db)
    batch_id = await world.batch(*chat(1))
    await placed(world)
    async with watching(feed, batch_id) as slow, watching(feed, batch_id) as quick:
        await slow.next()
        await quick.next()

        def store(tx) -> None:
            tell(tx, EventType.JOB_ENDED, About(batch_id, "p", "k"), world.now, {})

        for _ in range(6):
            await world.db.write(store)
            await placed(world)
            await quick.until("job.ended")
        assert (await slow.rest())[-1] == "comment"
        await world.db.write(store)
        await placed(world)
        await quick.until("job.ended")


async def test_a_silent_stream_is_kept_open(world, monkeypatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.02)
    batch_id = await world.batch(*chat(1))
    async with watching(Feed(world.db), batch_id) as stream:
        await stream.next()
        assert (await stream.next())["data"] is None


async def test_the_last_word_is_not_waited_for_for_ever(world, monkeypatch) -> None:
    monkeypatch.setattr(module, "LAST_WORD", 0.05)
    batch_id = await world.prepared(*chat(1))
    async with watching(Feed(world.db), batch_id) as stream:
        await stream.next()
        for provider in world.providers:
            provider.end()
        await world.look()
        await world.settle(batch_id)
        await pipeline.finish(world.trip, batch_id)  # nobody places its events
        assert (await stream.rest())[-1] == "batch"


async def test_a_thousand_watchers_cost_what_one_does_and_nobody_costs_nothing(world, monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 60)
    feed = Feed(world.db)
    batch_id = await world.batch(*chat(1))
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    sql.listen(world.db._reader, "before_cursor_execute", note)

    async def cost(watchers: int) -> int:
        streams = [Stream(feed, batch_id) for _ in range(watchers)]
        for stream in streams:
            await stream.next()
        statements.clear()
        await feed._look()
        for stream in streams:
            await stream.frames.aclose()
        return len(statements)

    assert await cost(1) == await cost(1000) <= 3
    assert feed._reading is None
    assert not feed._watchers


async def test_an_outage_of_the_database_is_a_pause(world, monkeypatch, caplog) -> None:
    feed = Feed(world.db)
    batch_id = await world.batch(*chat(1))
    await placed(world)
    async with watching(feed, batch_id) as stream:
        await stream.next()
        failed = asyncio.Event()
        look = Feed._look

        async def broken(self) -> None:
            failed.set()
            raise ConnectionError

        monkeypatch.setattr(Feed, "_look", broken)
        await asyncio.wait_for(failed.wait(), 20)
        monkeypatch.setattr(Feed, "_look", look)
        await pipeline.prepare(world.trip, batch_id)
        await placed(world)
        await stream.until("batch.in_progress")
    assert "the feed of events failed" in caplog.text
