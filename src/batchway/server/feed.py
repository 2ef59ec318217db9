"""Server-sent events of batches: one reader a process for everybody who watches.

Once a second it reads, for all watched batches together, the new events and the counts; so a thousand watchers cost the
database what one does. Each watcher has a bounded queue: one that reads too slowly is sent away, and resumes with the
`Last-Event-ID` that its client sends by itself.

A stream holds `event: batch` (status and counts, whenever they change), and each event of the batch under its own type
with its id, as `docs/events.schema.json` says. It ends when the batch has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy import Connection

from batchway.core.events import Event, EventType
from batchway.core.states import FINAL_BATCH_STATES
from batchway.db import outbox, progress
from batchway.db.engine import Database
from batchway.db.progress import Progress
from batchway.wire.batches import RequestCounts

log = logging.getLogger(__name__)

SECONDS = 1.0  # between two looks
SILENCE = 15.0  # seconds without news after which a comment keeps the connection open
LAST_WORD = 5.0  # seconds that an ended batch's last event may take
QUEUE = 256  # events that a watcher may be behind
AT_ONCE = 500  # batches a statement, or events of one who resumes
SPAN = 5000  # positions a look, so that one after an outage is bounded too
ENDS = frozenset(EventType(f"batch.{state}") for state in FINAL_BATCH_STATES)

TOO_SLOW = b": too much was waiting for you; connect again with Last-Event-ID\n\n"
STILL_HERE = b": still here\n\n"

encode = msgspec.json.Encoder().encode


class Told(msgspec.Struct, kw_only=True):
    """The data of one `batch` event."""

    id: str
    status: str
    request_counts: RequestCounts


class Feed:
    """The streams of one process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._watchers: dict[str, list[_Watcher]] = {}
        self._position = 0
        self._reading: asyncio.Task[None] | None = None

    async def stream(self, batch_id: str, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
        """What is sent to one watcher; `last_event_id` is the last event that it knows of."""
        async with self._watching(batch_id) as watcher:
            at_first = (await self._db.read(progress.of_batches, [batch_id]))[batch_id]
            watcher.progress = watcher.progress or at_first
            known: Event | None = None
            if last_event_id is not None:
                async for event in self._missed(batch_id, last_event_id):
                    known = event
                    yield _frame(event)
            if at_first.status in FINAL_BATCH_STATES:
                yield _progress(batch_id, at_first)
                return
            async for frame in watcher.frames(known):
                yield frame

    async def _missed(self, batch_id: str, event_id: str) -> AsyncGenerator[Event, None]:
        while missed := await self._db.read(outbox.of_subject_after, batch_id, event_id, AT_ONCE):
            for event in missed:
                yield event
            event_id = missed[-1].id

    @asynccontextmanager
    async def _watching(self, batch_id: str) -> AsyncGenerator[_Watcher]:
        watcher = _Watcher(batch_id)
        self._watchers.setdefault(batch_id, []).append(watcher)
        try:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read(), name="feed")
            yield watcher
        finally:
            self._watchers[batch_id].remove(watcher)
            if not self._watchers[batch_id]:
                del self._watchers[batch_id]
            if not self._watchers and self._reading is not None:
                self._reading.cancel()
                self._reading = None

    async def _read(self) -> None:
        fresh = True
        while True:
            try:
                if fresh:
                    self._position = await self._db.read(outbox.end)
                    fresh = False
                await self._look()
            except Exception:
                log.exception("the feed of events failed; it goes on")  # the database is away, mostly
            await asyncio.sleep(SECONDS)

    async def _look(self) -> None:
        self._position, events, counts = await self._db.read(_news, self._position, list(self._watchers))
        of_batch: dict[str, list[Event]] = {}
        for event in events:
            of_batch.setdefault(event.subject, []).append(event)
        for batch_id, watchers in self._watchers.items():
            for watcher in watchers:
                watcher.hear(of_batch.get(batch_id, ()), counts.get(batch_id))


class _Watcher:
    """One client: what it has not been sent yet."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id
        self._waiting: deque[Event] = deque()
        self._lost = False
        self._news = asyncio.Event()
        self.progress: Progress | None = None

    def hear(self, events: Sequence[Event], counts: Progress | None) -> None:
        """News of its batch."""
        self._lost = self._lost or len(self._waiting) + len(events) > QUEUE
        if not self._lost:
            self._waiting.extend(events)
        changed = counts is not None and counts != self.progress
        self.progress = counts or self.progress
        if events or changed:
            self._news.set()

    async def frames(self, known: Event | None) -> AsyncGenerator[bytes, None]:
        """What is sent from now on; `known` is the last event that was sent before."""
        told: Progress | None = None
        while True:
            self._news.clear()
            for event in self._taken(known):
                known = event
                yield _frame(event)
            now = self.progress
            if now is not None and now != told:
                told = now
                yield _progress(self._batch_id, now)
            if self._lost:
                yield TOO_SLOW
                return
            final = told is not None and told.status in FINAL_BATCH_STATES
            if final and known is not None and known.type in ENDS:
                return
            try:
                async with asyncio.timeout(LAST_WORD if final else SILENCE):
                    await self._news.wait()
            except TimeoutError:
                if final:
                    return
                yield STILL_HERE

    def _taken(self, known: Event | None) -> Iterator[Event]:
        told = known.position or 0 if known else 0
        while self._waiting:
            event = self._waiting.popleft()
            if (event.position or 0) > told:
                yield event


def _news(tx: Connection, position: int, batch_ids: Sequence[str]) -> tuple[int, list[Event], dict[str, Progress]]:
    """(the position read up to, events of these batches since `position`, their progress)."""
    upto = min(outbox.end(tx), position + SPAN)
    events: list[Event] = []
    counts: dict[str, Progress] = {}
    for start in range(0, len(batch_ids), AT_ONCE):
        some = batch_ids[start : start + AT_ONCE]
        events += outbox.of_subjects(tx, some, position, upto)
        counts |= progress.of_batches(tx, some)
    return upto, events, counts


def _frame(event: Event) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), encode(event))


def _progress(batch_id: str, now: Progress) -> bytes:
    counts = RequestCounts(total=now.total, completed=now.completed, failed=now.failed)
    return b"event: batch\ndata: %b\n\n" % encode(Told(id=batch_id, status=now.status, request_counts=counts))
