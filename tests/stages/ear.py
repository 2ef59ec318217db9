"""A receiver in memory that fails as it is told to, and what tells it: for tests of the teller."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from sqlalchemy import select

from batchway.core.events import Event, EventType
from batchway.db import outbox, receivers
from batchway.db.outbox import About, tell
from batchway.db.schema import dead_letters
from batchway.integrations.protocol import Entry
from batchway.pipeline.telling import Telling

DAY = 86400.0


async def forever(_events) -> None:
    """Hangs."""
    await asyncio.Event().wait()


class Ear:
    """A receiver in memory that fails as it is told to."""

    def __init__(self, window: int = 10, *, lines: bool = False) -> None:
        self.window, self.lines = window, lines
        self.heard: list[Event] = []
        self.records: list = []
        self.parts: list[int] = []
        self.fails: dict[str, Exception] = {}  # by event id
        self.deaf: Exception | None = None
        self.closed = 0
        self.news = asyncio.Event()

    async def tell(self, events: Sequence[Event]) -> None:
        assert 1 <= len(events) <= self.window
        if self.deaf:
            raise self.deaf
        for event in events:
            if event.id in self.fails:
                raise self.fails[event.id]
            self.heard.append(event)
            self.news.set()

    async def has_heard(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.heard) < count:
                self.news.clear()
                await self.news.wait()

    async def tell_lines(self, event: Event, records: Sequence) -> None:
        if self.deaf:
            raise self.deaf
        self.parts.append(len(records))
        self.records += records

    async def close(self) -> None:
        self.closed += 1

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.heard]

    @property
    def numbers(self) -> list[int]:
        return [event.data["n"] for event in self.heard]


def telling(world, ear: Ear, *, leads: bool = True, **entry) -> Telling:
    entry = Entry(**{"name": "ear", "kind": "ear", **entry})

    async def read(position: int, limit: int):
        return await world.db.read(outbox.after, position, limit)

    return Telling(world.trip, entry, ear, read, lambda: leads, Random(1))


async def happen(world, count: int, *, subject: str = "batch_1", project: str = "p", start: int = 0) -> list[str]:
    """That many events, placed; their ids."""

    def store(tx) -> None:
        for number in range(start, start + count):
            tell(tx, EventType.JOB_ENDED, About(subject, project, "key_1"), world.now, {"n": number})

    await world.db.write(store)
    await world.db.write(outbox.place, 1000)
    return [event.id for event in await world.db.read(outbox.of_subject, subject)][-count:]


async def known(world, name: str = "ear", *, from_start: bool = True) -> None:
    await world.db.write(receivers.remember, name, world.now, from_start=from_start)


async def rounds(world, it: Telling, most: int = 50) -> None:
    """Until nothing waits, whatever time that takes."""
    for _ in range(most):
        row = await world.db.read(receivers.get, "ear")
        world.now = max(world.now, row["not_before"])
        if await it.round() and row["position"] == await world.db.read(outbox.end):
            return
    raise AssertionError("it is never done")


async def row_of(world):
    return await world.db.read(receivers.get, "ear")


async def dead(world) -> list[str]:
    return await world.db.read(lambda tx: list(tx.execute(select(dead_letters.c.event_id)).scalars()))


async def happen_unplaced(world, count: int) -> None:
    def store(tx) -> None:
        for _ in range(count):
            tell(tx, EventType.JOB_ENDED, About("batch_1", "p", "k"), world.now, {})

    await world.db.write(store)
