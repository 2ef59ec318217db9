"""One receiver is told: windows of events after its place, then its place is moved, durably. Not a stage.

Its place moves only after it took a window, so everything is told at least once and in the order of the positions; a
crash repeats one window at most. While it fails, its place stays and the outbox keeps the rest: nothing is queued in
memory. An event that it refuses for good, or that it could not take for three days, is found by halving the window,
becomes a dead letter, and the next ones go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from random import Random
from typing import Any

from sqlalchemy import Connection, RowMapping

from batchway.core.events import Event, EventType
from batchway.db import receivers
from batchway.integrations.protocol import Entry, Receiver, ReceiverError, TakesLines
from batchway.pipeline.line_records import parts
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

TELL_SECONDS = 30.0  # that a receiver may take for one window
READ = 64  # events at least: reading one costs nearly as much
READ_AT_MOST = 512
LONGEST_PAUSE = 300.0
GIVE_UP = 72 * 3600.0
IDLE = 5.0  # seconds after which a wish to redeliver, made in another process, is noticed
SMALL = 50  # lines of a job that are told without a note of their own: they come again with their window

ReadEvents = Callable[[int, int], Awaitable[Sequence[Event]]]
"""The events that follow a position, at most so many."""


class _Deposed(Exception):
    """This process was away for too long: nothing more is told by it."""


class Telling:
    """One receiver and its place. `leads` says whether this process may still tell."""

    def __init__(
        self, trip: Trip, entry: Entry, receiver: Receiver, read: ReadEvents, leads: Callable[[], bool], random: Random
    ) -> None:
        self._trip, self._entry, self._receiver = trip, entry, receiver
        self._read, self._leads, self._random = read, leads, random
        self._lines = receiver if isinstance(receiver, TakesLines) and receiver.lines else None
        self._row: RowMapping | None = None  # as it was looked at; only this process changes the place
        self._looked_at = 0.0
        self._position = 0

    async def round(self) -> float:
        """Tells what waits; the seconds after which to come again, unless something happens before."""
        now = self._trip.clock()
        looks = self._row is None or now >= self._looked_at + IDLE
        row = self._row if self._row is not None and not looks else await self._look(now)
        if row["not_before"] > now:
            return min(row["not_before"] - now, IDLE)
        try:
            if looks:
                await self._tell_letters()
            events = await self._read(self._position, min(max(READ, self._receiver.window), READ_AT_MOST))
            if not events:
                return IDLE
            await self._tell_all(row, events)
        except ReceiverError as error:
            self._row = None
            pause = self._pause(error, row["failures"])
            noted = self._entry.name, error.message, now, self._trip.clock() + pause
            await self._trip.db.write(receivers.fail, *noted)
            log.warning("receiver %s: %s; it is told again in %.0f s", self._entry.name, error.message, pause)
            return min(pause, IDLE)
        except _Deposed:
            self._row = None
            return IDLE
        return 0.0

    async def _look(self, now: float) -> RowMapping:
        self._row = row = await self._trip.db.read(receivers.get, self._entry.name)
        self._looked_at, self._position = now, row["position"]
        return row

    async def _tell_all(self, row: RowMapping, events: Sequence[Event]) -> None:
        told: list[Event] = []
        for event in events:
            if self._lines and event.type is EventType.JOB_ACCOUNTED and self._entry.concerns(event):
                small = event.data.get("lines", 0) <= SMALL
                if told and not small:
                    await self._tell(row, told)
                    told = []
                await self._tell_lines(row, event, self._lines, noted=not small)
            if self._entry.wants(event):
                told.append(event)
            if len(told) >= self._receiver.window:
                await self._tell(row, told)
                told = []
        if told:
            await self._tell(row, told)
        await self._move(events[-1])

    async def _tell(self, row: RowMapping, events: Sequence[Event]) -> None:
        """All of them; ReceiverError when they are to be told again later."""
        try:
            await self._guarded(self._receiver.tell(events))
        except ReceiverError as error:
            if not self._hopeless(error, row, events[0]):
                raise
            if len(events) == 1:
                await self._trip.db.write(_bury, self._entry.name, events[0], error.message, self._trip.clock())
                self._position = events[0].position or 0
                return
            middle = len(events) // 2
            await self._tell(row, events[:middle])
            await self._tell(row, events[middle:])
            return
        await self._move(events[-1])

    async def _tell_lines(self, row: RowMapping, event: Event, receiver: TakesLines, *, noted: bool) -> None:
        """The line records of a job before the event itself, from where a crash or a failure left them."""
        db, name, before = self._trip.db, self._entry.name, (event.position or 0) - 1
        told = row["lines_told"] if row["position"] == before else 0
        if noted:
            await self._move_to(before)
        async with aclosing(parts(self._trip, event, told)) as found:
            async for part in found:
                try:
                    await self._guarded(receiver.tell_lines(event, part))
                except ReceiverError as error:
                    if not self._hopeless(error, row, event):
                        raise
                    problem = f"lines {part[0].number} to {part[-1].number}: {error.message}"
                    await db.write(receivers.bury, name, event, problem, self._trip.clock())
                told += len(part)
                if noted:
                    await db.write(receivers.told_lines, name, before, told, self._trip.clock())

    async def _tell_letters(self) -> None:
        """Dead letters that somebody wants to be told again."""
        for event in await self._trip.db.read(receivers.wanted, self._entry.name, READ):
            await self._tell_again(event)

    async def _tell_again(self, event: Event) -> None:
        """A dead letter, once: it is dead again when it fails again."""
        db, name = self._trip.db, self._entry.name
        try:
            if self._lines and event.type is EventType.JOB_ACCOUNTED:
                async with aclosing(parts(self._trip, event, 0)) as found:
                    async for part in found:
                        await self._guarded(self._lines.tell_lines(event, part))
            if self._entry.wants(event):
                await self._guarded(self._receiver.tell([event]))
        except ReceiverError as error:
            await db.write(receivers.bury, name, event, error.message, self._trip.clock())
            if not error.permanent:
                raise
        else:
            await db.write(receivers.unbury, name, event.id)

    async def _guarded(self, telling: Coroutine[Any, Any, None]) -> None:
        """Tells, and raises every failure as ReceiverError. What a receiver's own bug says may hold a secret."""
        if not self._leads():
            telling.close()
            raise _Deposed
        try:
            async with asyncio.timeout(TELL_SECONDS):
                await telling
        except ReceiverError:
            raise
        except TimeoutError:
            raise ReceiverError(f"no answer within {TELL_SECONDS:.0f} s") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            raise ReceiverError(f"it failed with {type(error).__name__}") from None

    async def _move(self, event: Event) -> None:
        await self._move_to(event.position or 0)

    async def _move_to(self, position: int) -> None:
        if position > self._position:
            await self._trip.db.write(receivers.move, self._entry.name, position, self._trip.clock())
            self._position = position

    def _hopeless(self, error: ReceiverError, row: RowMapping, event: Event) -> bool:
        """Whether telling this event again is given up: it, and the receiver, have waited for three days."""
        if error.permanent:
            return True
        long_ago = self._trip.clock() - GIVE_UP
        return row["failing_since"] is not None and row["failing_since"] <= long_ago and event.created_at <= long_ago

    def _pause(self, error: ReceiverError, failures: int) -> float:
        """1 s, doubled with each failure in a row, at most 5 min, a half of it at random; or what it asked for."""
        pause = min(LONGEST_PAUSE, 2.0 ** min(failures, 10)) * (0.5 + self._random.random() / 2)
        return max(pause, min(error.retry_after or 0.0, GIVE_UP))


def _bury(tx: Connection, name: str, event: Event, error: str, now: float) -> None:
    """A dead letter and the place behind it, at once; the receiver is not taken for well again."""
    receivers.bury(tx, name, event, error, now)
    receivers.skip(tx, name, event.position or 0, now)
