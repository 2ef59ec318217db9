"""Events leave the outbox for whoever asked: one process gives them their places and tells every receiver.

That process holds a lease; on SQLite it is the only one. Each receiver has a task of its own (see telling.py), so a
slow, failing or hanging one holds up no other, and never a batch: batches only write to the outbox. Whoever stores an
event in this process rings the bell; for those of other processes there is the tick.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random

from sqlalchemy import Connection

from batchway.core.events import Event
from batchway.db import leases, outbox, receivers
from batchway.db.engine import Database
from batchway.integrations.protocol import Receiver, Tools
from batchway.integrations.registry import Listed
from batchway.pipeline.telling import Telling
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

LEASE = "teller"
LEASE_SECONDS = 15.0
PLACE = 500  # events a transaction
LED_ELSEWHERE = 1.0  # seconds between two tries to lead
PACE = 0.5  # seconds between two placings, so that one telling takes many events
RECENT = 1000  # events
PRUNE_SECONDS = 60.0
KEPT = 7 * 86400.0  # told events, for who resumes a stream; and the place of a receiver that is gone
DEAD_KEPT = 30 * 86400.0
FIRST_RETRY, LAST_RETRY = 1.0, 60.0  # seconds until a receiver that cannot be opened is tried again
CLOSE_SECONDS = 10.0


class Teller:
    """The telling of one process. `once` is called after each ring of `bell`, and every second."""

    def __init__(self, trip: Trip, listed: Sequence[Listed], tools: Tools, random: Random) -> None:
        self.bell = asyncio.Event()
        self._trip, self._listed, self._tools, self._random = trip, listed, tools, random
        self._holder = trip.new_id("teller_")
        self._alone = trip.db.is_sqlite
        self._recent = _Recent(trip.db)
        self._next = 0.0  # by the loop's clock, as the next two
        self._leads_until = 0.0
        self._pruned_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._bells: list[asyncio.Event] = []

    async def once(self) -> None:
        """Places new events and has them told, when this is the process that does."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._next - clock())  # what happens at once is told at once
        started = clock()
        if self._alone and not await self._trip.db.read(outbox.unplaced):
            placed = 0  # nothing is written while nothing happens
        else:
            placed = await self._trip.db.write(_place, self._holder, self._trip.clock(), alone=self._alone)
        if placed is None:
            self._next = started + LED_ELSEWHERE
            await self._stop_telling()
            return
        self._leads_until = started + LEASE_SECONDS
        if not self._tasks:
            await self._start_telling()
        if placed:
            self._next = started + PACE
        if await self._recent.grow():
            for bell in self._bells:
                bell.set()
        if placed == PLACE:
            self.bell.set()
        if started > self._pruned_at + PRUNE_SECONDS:
            self._pruned_at = started
            names = [one.entry.name for one in self._listed]
            await self._trip.db.write(_prune, names, self._trip.clock())

    async def close(self) -> None:
        """Stops telling and lets another process lead at once."""
        await self._stop_telling()
        try:
            if not self._alone:
                await self._trip.db.write(leases.give_back, self._holder)
        except Exception:
            log.exception("the teller's lease is not given back: it runs out")  # the database is away, mostly

    def _leads(self) -> bool:
        return self._alone or asyncio.get_running_loop().time() < self._leads_until

    async def _start_telling(self) -> None:
        now = self._trip.clock()
        await self._recent.begin()
        for one in self._listed:
            from_start = one.entry.start == "start"
            await self._trip.db.write(receivers.remember, one.entry.name, now, from_start=from_start)
        for one in self._listed:
            bell = asyncio.Event()
            self._bells.append(bell)
            self._tasks.append(asyncio.create_task(self._tell(one, bell), name=f"tells {one.entry.name}"))

    async def _stop_telling(self) -> None:
        tasks, self._tasks, self._bells = self._tasks, [], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, one: Listed, bell: asyncio.Event) -> None:
        """One receiver, as long as this process leads."""
        receiver = await self._opened(one)
        telling = Telling(self._trip, one.entry, receiver, self._recent.after, self._leads, self._random)
        try:
            while True:
                bell.clear()
                try:
                    pause = await telling.round()
                except Exception:
                    log.exception("telling %s failed; it goes on", one.entry.name)  # the database is away, mostly
                    pause = FIRST_RETRY
                if pause:
                    await _rung(bell, pause)
        finally:
            await _closed(one.entry.name, receiver)

    async def _opened(self, one: Listed) -> Receiver:
        pause = FIRST_RETRY
        while True:
            try:
                return one.open(self._tools)
            except Exception as error:  # noqa: BLE001 - it must not end the others, and its words may hold a secret
                log.error("receiver %s cannot be opened: %s", one.entry.name, type(error).__name__)  # noqa: TRY400
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RETRY)


class _Recent:
    """The newest events, read once for all receivers: most of them are that far. Positions have no gaps."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._events: list[Event] = []
        self._last = 0  # the position of the last one, or of the one before the first

    async def begin(self) -> None:
        """Nothing is kept of what this process was not there for."""
        self._events, self._last = [], await self._db.read(outbox.end)

    async def grow(self) -> bool:
        """Reads what was placed since, by a commit whose answer was lost too; whether there was anything."""
        before = self._last
        while new := await self._db.read(outbox.after, self._last, PLACE):
            self._events = [*self._events, *new][-RECENT:]
            self._last = new[-1].position or self._last
        return self._last > before

    async def after(self, position: int, limit: int) -> Sequence[Event]:
        """The events that follow a position, at most so many."""
        start = position - (self._last - len(self._events))
        if start < 0:
            return await self._db.read(outbox.after, position, limit)
        return self._events[start : start + limit]


def _place(tx: Connection, holder: str, now: float, *, alone: bool) -> int | None:
    """How many events were placed; None when another process leads. The lease's row keeps two from placing at once."""
    if not alone and not leases.take(tx, LEASE, holder, now, LEASE_SECONDS):
        return None
    return outbox.place(tx, PLACE)


def _prune(tx: Connection, configured: Sequence[str], now: float) -> None:
    receivers.forget(tx, configured, now - KEPT, now - DEAD_KEPT)
    outbox.prune(tx, receivers.known_by_all(tx), now - KEPT)


async def _rung(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return


async def _closed(name: str, receiver: Receiver) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await receiver.close()
    except Exception as error:  # noqa: BLE001 - we are leaving, and its words may hold a secret
        log.warning("receiver %s did not close: %s", name, type(error).__name__)
