"""One chunk, carried out by its owner.

The chunk's lines are read by byte range, those with a stored answer are skipped, the rest are sent through the
account's slots. Answers are stored in segments: bytes first, then a row in a transaction that checks the chunk's token.
Whatever ends a run (`Stop`), answers that came are stored before it ends, unless somebody else owns the chunk by then.

A run is single-threaded: everything here happens on the event loop, and between two awaits nothing changes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from enum import Enum
from random import Random

from sqlalchemy import Connection

from batchway import logs, metrics
from batchway.core.answers import Stored, pack
from batchway.core.ids import IdMaker
from batchway.core.jobs import Counts
from batchway.core.spans import span_lines
from batchway.db import chunks, segments
from batchway.db.chunks import Chunk
from batchway.db.engine import Database
from batchway.db.jobs import add_counts
from batchway.db.segments import NewSegment
from batchway.executor.limits import Slots
from batchway.executor.purse import MeterOf, Purse
from batchway.executor.retry import next_try
from batchway.executor.segments import key_of
from batchway.executor.send import Outcome, Request, Target, attempt, rewriter, unpaid
from batchway.executor.tuning import Tuning
from batchway.http import Http
from batchway.storage import Storage


class Stop(Enum):
    """Why a run starts no more requests before its lines are used up."""

    ASKED = "asked"  # its job was asked to stop
    LATE = "late"  # the deadline passed
    LEAVING = "leaving"  # this process may not send any more; the chunk goes on elsewhere
    FENCED = "fenced"  # somebody else owns the chunk
    BROKEN = "broken"  # a bug; `Run` raises it


class Fenced(Exception):
    """The chunk's token is not ours any more."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What runs share."""

    db: Database
    storage: Storage
    http: Http
    clock: Callable[[], float]
    new_id: IdMaker
    random: Random
    tuning: Tuning
    may_send: Callable[[], bool]  # False: no paid request may start in this process
    meter_of: MeterOf
    drained: Callable[[], None]  # told when a run has sent its last line: there is room for another chunk


class Run:
    """One ownership of one chunk; `finish` is the whole of it."""

    def __init__(self, chunk: Chunk, place: Target, slots: Slots, purse: Purse, tools: Tools) -> None:
        self.chunk = chunk
        self.stopped: Stop | None = None
        self._place = place
        self._slots = slots
        self._purse = purse
        self._tools = tools
        self._meter = tools.meter_of(chunk.account, chunk.model)
        self._unstored = 0  # pico-dollars of the answers in `_fresh`
        self._line_ids = tools.new_id("batch_req_")[:-8]  # random once a run: a system call a line costs a tenth of it
        self._ready: deque[Request] = deque()
        self._flying: set[asyncio.Task[None]] = set()
        self._taken = 0  # lines given to a slot and not sorted yet: also those whose worker has not begun
        self._later: dict[int, tuple[asyncio.TimerHandle, Request]] = {}  # line number -> its next try
        self._fresh: list[Stored] = []  # answered, not stored
        self._stored = 0  # segments
        self._ids = {"batch_id": chunk.batch_id, "job_id": chunk.job_id}
        self._wake = asyncio.Event()  # there is something to store, or nothing left to wait for
        self._timers: list[asyncio.TimerHandle] = []
        self._ripens: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None

    @property
    def project(self) -> str:
        return self.chunk.project

    @property
    def job_id(self) -> str:
        return self.chunk.job_id

    @property
    def priority(self) -> int:
        return self.chunk.priority

    @property
    def deadline(self) -> float:
        return self.chunk.deadline

    @property
    def ordinal(self) -> int:
        return self.chunk.ordinal

    async def finish(self) -> bool:
        """Runs the chunk to its end; True when it was its job's last. Raises Fenced, or CancelledError when leaving."""
        left = self.chunk.deadline - self._tools.clock()
        if self.chunk.stopping or left <= 0:
            self.stop(Stop.ASKED if self.chunk.stopping else Stop.LATE)
        else:
            self._timers.append(asyncio.get_running_loop().call_later(left, self.stop, Stop.LATE))
        try:
            await self._load()
            self._slots.join(self)
            return await self._store_until_idle()
        except asyncio.CancelledError:
            self._abandon()
            if self._fresh and self.stopped is not Stop.FENCED:
                await self._commit(self._fresh, done=False)  # paid for: the next owner need not send them again
            raise
        finally:
            self._slots.leave(self)
            self._abandon()
            self._purse.fresh -= self._unstored  # answers that nobody stores any more
            for timer in (*self._timers, *([self._ripens] if self._ripens else [])):
                timer.cancel()

    def stop(self, why: Stop) -> None:
        """Starts no more requests. Those in flight get a grace (asked, late), all their time (leaving), or none."""
        if self.stopped in (why, Stop.FENCED) or (why is Stop.LEAVING and self.stopped is not None):
            return
        self.stopped = why
        self._drop_waiting()
        if why in (Stop.ASKED, Stop.LATE):
            self._timers.append(asyncio.get_running_loop().call_later(self._tools.tuning.grace, self._abandon))
        elif why in (Stop.FENCED, Stop.BROKEN):
            self._abandon()
        self._wake.set()

    def take(self) -> Request | None:
        """The next line to send; none once this process may not send."""
        if not self._ready:
            return None
        if not self._tools.may_send():
            self.stop(Stop.LEAVING)
            return None
        if self._purse.empty:
            self._forgo()
            return None
        request = self._ready.popleft()
        self._taken += 1
        if not self._ready:
            self._tools.drained()
        return request

    async def send(self, request: Request) -> bool | None:
        """One attempt; its answer is kept, or the line is tried again later."""
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - we are a coroutine of a worker
        self._flying.add(worker)
        logs.enter(self._ids)  # the worker may have been another batch's a moment ago
        account, began = self.chunk.account, time.perf_counter()
        metrics.EXECUTOR_WAIT.observe(began - request.ready_at, account)
        try:
            outcome = await attempt(self._tools.http, self._place, request, self._line_id(request))
            metrics.EXECUTOR_SECONDS.observe(time.perf_counter() - began, account, outcome.word)
            self._sort(request, outcome)
            return outcome.trouble.taken if outcome.trouble else True
        except Exception as error:  # noqa: BLE001 - a bug here must end the run, not leave a line waiting for ever
            self._failure = error
            self._flying.discard(worker)
            self.stop(Stop.BROKEN)
            return None
        finally:
            self._flying.discard(worker)
            self._taken -= 1
            if self.idle:
                self._wake.set()

    @property
    def idle(self) -> bool:
        """True when no line waits, is under way, or is to be tried again."""
        return not (self._ready or self._taken or self._later)

    def _line_id(self, request: Request) -> str:
        return f"{self._line_ids}{request.number:08x}"

    def _drop_waiting(self) -> list[Request]:
        """The lines that are not under way; from now on none of them waits."""
        waiting = [*self._ready, *(request for _, request in self._later.values())]
        self._ready.clear()
        for timer, _ in self._later.values():
            timer.cancel()
        self._later.clear()
        return waiting

    def _forgo(self) -> None:
        """The batch has spent what it may: what is not under way ends unsent, what is may end by itself."""
        for request in self._drop_waiting():
            self._keep(request, unpaid(request, self._line_id(request)))
        self._tools.drained()
        self._wake.set()

    def _sort(self, request: Request, outcome: Outcome) -> None:
        trouble = outcome.trouble
        if trouble is None:
            return self._keep(request, outcome)
        if trouble.status == 429:
            metrics.THROTTLED.add(self.chunk.account, "executed")
        tuning, chunk = self._tools.tuning, self.chunk
        if trouble.appointment and trouble.retry_after is not None:
            self._slots.hold(trouble.retry_after)
        else:
            request.tries += 1
        time_left = chunk.deadline - self._tools.clock()
        delay = next_try(tuning.line, request.tries, trouble, time_left, self._tools.random)
        if delay is None:
            self._keep(request, outcome)
        elif self.stopped is None:
            metrics.EXECUTOR_REPEATS.add(chunk.account)
            later = asyncio.get_running_loop().call_later(delay, self._again, request)
            self._later[request.number] = later, request
        return None

    def _again(self, request: Request) -> None:
        del self._later[request.number]
        request.ready_at = time.perf_counter()
        self._ready.appendleft(request)
        self._slots.wake()

    def _keep(self, request: Request, outcome: Outcome) -> None:
        self._fresh.append(Stored(request.number, outcome.ok, outcome.line, outcome.milliseconds))
        if outcome.ok and self._meter is not None:
            amount = self._meter(self._fresh[-1])
            self._unstored += amount
            self._purse.fresh += amount
        tuning = self._tools.tuning
        if len(self._fresh) >= tuning.segment_lines:
            self._wake.set()
        elif self._ripens is None:
            self._ripens = asyncio.get_running_loop().call_later(tuning.segment_seconds, self._wake.set)

    async def _load(self) -> None:
        if self.stopped is not None:
            return
        tools, chunk, span = self._tools, self.chunk, self.chunk.span
        have = await tools.db.read(segments.answered, chunk.id)
        body_of = rewriter(chunk.model, span.models)
        async with aclosing(tools.storage.read(span.file_key, span.start, span.end)) as read:
            async for window in span_lines(read, span):
                for line in window:
                    if line.number not in have and self.stopped is None:
                        request = line.request
                        ready = Request(line.number, request.custom_id, body_of(request.body))
                        ready.ready_at = time.perf_counter()
                        self._ready.append(ready)
        if self.idle:
            self._wake.set()

    async def _store_until_idle(self) -> bool:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            if self.stopped is Stop.FENCED:
                raise Fenced
            idle = self.idle
            done = idle and self.stopped is not Stop.LEAVING
            if self._fresh or done:
                job_ended = await self._commit(self._fresh, done=done)
            else:
                job_ended = False
            if done:
                return job_ended
            if idle:
                raise asyncio.CancelledError  # not an end: the engine hands the chunk to a process that may send

    async def _commit(self, answers: list[Stored], *, done: bool) -> bool:
        """Stores `answers`; True when that ended the job. More may come meanwhile: they make the next segment."""
        self._fresh, amount, self._unstored = [], self._unstored, 0
        if self._ripens is not None:
            self._ripens.cancel()
            self._ripens = None
        try:
            segment = await self._write(answers) if answers else None
            async with self._purse.turn if self._purse.limit is not None else nullcontext():
                grown = len(answers), amount, self._tools.clock() if done else None
                owned, job_ended, spent = await self._tools.db.write(_record, self.chunk, segment, grown)
                if self.chunk.limit is not None:
                    self._purse.stored = spent
        finally:
            self._purse.fresh -= amount
        if not owned:
            if segment is not None:
                await self._tools.storage.delete(segment.storage_key)
            self.stop(Stop.FENCED)
            raise Fenced
        return job_ended

    async def _write(self, answers: list[Stored]) -> NewSegment:
        chunk = self.chunk
        self._stored += 1
        key = key_of(chunk.batch_id, chunk.job_id, f"{chunk.ordinal}-{chunk.token}-{self._stored}")
        data = b"".join(pack(number, ok=ok, line=line, milliseconds=busy) for number, ok, line, busy in answers)
        await self._tools.storage.put(key, data)
        completed = sum(answer.ok for answer in answers)
        return NewSegment(
            batch_id=chunk.batch_id,
            job_id=chunk.job_id,
            chunk_id=chunk.id,
            storage_key=key,
            bytes=len(data),
            counts=Counts(completed, len(answers) - completed),
            numbers=segments.pack([answer.number for answer in answers]),
        )

    def _abandon(self) -> None:
        for worker in self._flying:
            worker.cancel()


def _record(
    tx: Connection, chunk: Chunk, segment: NewSegment | None, grown: tuple[int, int, float | None]
) -> tuple[bool, bool, int]:
    """One transaction: the token is checked, the segment enters the manifest, the counts grow, the chunk ends.

    `grown` is (answers, their amount, when the chunk ended). Answers (owned, the job ended, what its batch has spent,
    as far as anybody asks).
    """
    answers, amount, done_at = grown
    owned = chunks.grow(tx, chunk, answers, done_at, amount)
    if owned and segment is not None:
        segments.append(tx, segment)
        add_counts(tx, chunk.job_id, segment.counts.completed, segment.counts.failed)
    spent = 0 if chunk.limit is None else chunks.spent(tx, chunk.batch_id)
    return owned, owned and done_at is not None and chunks.ended(tx, chunk.job_id), spent
