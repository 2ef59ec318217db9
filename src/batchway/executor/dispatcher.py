"""Keeps the engine supplied: chunks wait in our table, and one process moves the next few of them into its queue.

The queue is shallow: of each account, about twice the lines it can have in flight, so that a run that has sent its last
line is followed by one that is already loaded, and a more urgent chunk waits behind few. Which chunks these are is a
matter of fair shares (`shares.py`). Accounts do not wait for one another. `nudge` says that something was planned, or
that a run has sent its last line; the tick is only a safety net.

A chunk is noted as queued and then given to the engine. Should the engine not get it, or its run end without the chunk
(a crash at the wrong moment), it is ensured again after `Tuning.overdue`, and at once when this process starts to lead
or a round failed; for a run that waits or runs that changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Connection

from batchway.db import chunks, leases, turns
from batchway.db.engine import Database
from batchway.executor.shares import Shares
from batchway.executor.tuning import Tuning

log = logging.getLogger(__name__)

QUEUE = "chunk"
LEADER = "chunk-dispatcher"
MEMBER = "chunk-executor:"
MOST_CHUNKS = 64  # of one account in one process
JOBS = 32  # of a project and an account that are looked at in a round


class Ensures(Protocol):
    """The part of the engine that is used here."""

    async def ensure(self, name: str, key: str) -> bool: ...


def places(concurrency: int) -> int:
    """How many chunks of an account one process may hold: as many as slots, should each have one line only."""
    return max(2, min(MOST_CHUNKS, concurrency))


class Dispatcher:
    """One a process; the leader among them moves chunks. `accounts` are the concurrencies of the accounts."""

    def __init__(  # noqa: PLR0913 - each is one thing it works with
        self,
        *,
        db: Database,
        engine: Ensures,
        clock: Callable[[], float],
        tuning: Tuning,
        holder: str,
        accounts: Callable[[], Mapping[str, int]],
        ended: Callable[[str], None],
        tick: Callable[[], Awaitable[None]],
    ) -> None:
        self._db = db
        self._engine = engine
        self._clock = clock
        self._tuning = tuning
        self._holder = holder
        self._accounts = accounts
        self._ended = ended
        self._tick = tick
        self._event = asyncio.Event()
        self._members = 0  # 0: somebody else leads
        self._next_lease = self._next_tick = self._next_overdue = float("-inf")

    def nudge(self) -> None:
        """There may be room, or something to fill it with."""
        self._event.set()

    async def run(self) -> None:
        """Works until it is cancelled; then the lease is free."""
        try:
            while True:
                self._event.clear()
                try:
                    await self._round()
                except Exception:  # the database or the engine is away: the rows are safe, and the tick comes back
                    self._next_overdue = float("-inf")  # some may be noted as queued that the engine never got
                    log.exception("executor: a round of the dispatcher failed")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._tuning.tick):
                        await self._event.wait()
        finally:
            await self._db.write(leases.give_back, self._holder)

    async def _round(self) -> None:
        now = self._clock()
        if now >= self._next_lease:
            led = self._members > 0
            # An embedded database has one process: it leads, and waits for no lease of one that was killed.
            alone = self._db.is_sqlite
            self._members = 1 if alone else await self._db.write(_renew, self._holder, now, self._tuning.lease)
            self._next_lease = now + self._tuning.lease / 3
            if self._members and not led:
                self._next_overdue = float("-inf")
        if now >= self._next_tick:
            self._next_tick = now + self._tuning.tick
            await self._tick()
            if self._members:
                await self._close_expired(now)
        if self._members:
            await self._top_up(now)

    async def _close_expired(self, now: float) -> None:
        for job_id in await self._db.write(chunks.close_expired, now):
            self._ended(job_id)

    async def _top_up(self, now: float) -> None:
        chosen = await self._db.read(_choose, self._accounts(), self._members, now, self._tuning.chunk_lines)
        if unsure := await self._give(chosen, now):
            # Their last runs failed and are only just ending: they come back with the next look at what is overdue.
            await self._db.write(chunks.queued, unsure, now - self._tuning.overdue)
        if now >= self._next_overdue:
            # The first time: whatever is queued, for our predecessor may have died between the note and the engine.
            before = now - self._tuning.overdue if self._next_overdue > 0 else now
            await self._give(await self._db.read(chunks.overdue, before, MOST_CHUNKS), now)
            self._next_overdue = now + self._tuning.overdue / 6

    async def _give(self, chunk_ids: list[str], now: float) -> list[str]:
        """Hands chunks to the engine; answers those that it had already."""
        if not chunk_ids:
            return []
        # Noted first: a run that fails at once takes the note back, and must not have it written after that.
        await self._db.write(chunks.queued, chunk_ids, now)
        return [chunk_id for chunk_id in chunk_ids if not await self._engine.ensure(QUEUE, chunk_id)]


def _renew(tx: Connection, holder: str, now: float, seconds: float) -> int:
    """How many processes take part when this one leads, else 0."""
    leases.take(tx, MEMBER + holder, holder, now, seconds)
    if not leases.take(tx, LEADER, holder, now, seconds):
        return 0
    leases.forget_old(tx, now - 10 * seconds)
    return leases.living(tx, MEMBER, now)


def _choose(tx: Connection, accounts: Mapping[str, int], members: int, now: float, chunk_lines: int) -> list[str]:
    """The chunks to move now, in fair shares of the lines that each account has in the engine."""
    chosen: list[str] = []
    held = turns.held(tx)
    for account, concurrency in accounts.items():
        shares = Shares()
        room, lines = places(concurrency) * members, (2 * concurrency + chunk_lines) * members
        for one in held:
            if one.account == account:
                shares.take(one.project, one.job_id, one.lines)
                room, lines = room - one.chunks, lines - one.lines
        chosen += _fill(tx, account, shares, (room, lines), now)
    return chosen


def _fill(tx: Connection, account: str, shares: Shares, left: tuple[int, int], now: float) -> list[str]:
    """The next chunks of an account; `left` is the room for chunks and lines.

    A project that has nothing in the engine gets its first chunk whether there is room or not: it waits for nobody.
    """
    room, lines = left
    chosen: list[str] = []
    waiting = {one.job_id: one for one in turns.waiting(tx, account, now, JOBS)}
    ready: dict[str, deque[tuple[str, int]]] = {}
    while waiting and len(chosen) < MOST_CHUNKS:
        one = shares.first(waiting.values(), now)
        if (room <= 0 or lines <= 0) and not shares.has_none(one.project):
            break
        if one.job_id not in ready:
            ready[one.job_id] = deque(turns.next_chunks(tx, one.job_id, now, max(1, min(room, MOST_CHUNKS))))
        if not ready[one.job_id]:
            del waiting[one.job_id]
            continue
        chunk_id, more = ready[one.job_id].popleft()
        chosen.append(chunk_id)
        shares.take(one.project, one.job_id, more)
        room, lines = room - 1, lines - more
    return chosen
