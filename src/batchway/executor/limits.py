"""The requests of one account that may be in flight in this process, shared by all its chunks.

Invariant: never more than `concurrency` requests at once. A slot that comes free takes the next request in the same
turn of the event loop: a worker asks for work until there is none and then ends, so nobody waits on a clock or a queue.
Work is taken in order of `rank`. An account that said when to come back is left alone until then, by all workers.

`concurrency` may change while requests run (`wake` after raising it), and `_take` alone decides whose request is next:
those are the two places for adaptive limits and for fair shares.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from operator import attrgetter
from typing import Protocol

from batchway.executor.send import Request

Rank = tuple[float, int, int]  # deadline, -priority, place: the smallest goes first


class Work(Protocol):
    """Requests that want slots."""

    @property
    def rank(self) -> Rank: ...

    def take(self) -> Request | None:
        """The next request that may be sent now."""
        ...

    async def send(self, request: Request) -> None:
        """One attempt, from its first byte to what becomes of it; raises nothing but CancelledError."""
        ...


class Slots:
    """The slots of one account; all calls on the event loop."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._work: list[Work] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._held_until = 0.0  # on the loop's clock
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def in_use(self) -> int:
        """Workers, each with one request in flight."""
        return len(self._workers)

    def join(self, work: Work) -> None:
        """Lets `work` have slots, from now on."""
        insort(self._work, work, key=attrgetter("rank"))
        self.wake()

    def leave(self, work: Work) -> None:
        """No request of `work` is started any more."""
        if work in self._work:
            self._work.remove(work)

    def hold(self, seconds: float) -> None:
        """Starts no request of this account for so long; the longest hold counts."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if until > self._held_until:
            self._held_until = until
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(until, self.wake)

    def wake(self) -> None:
        """Fills the free slots: called when requests became ready, a hold ended, or the limit rose."""
        while len(self._workers) < self.concurrency and (taken := self._take()) is not None:
            worker = asyncio.get_running_loop().create_task(self._worker(*taken))
            self._workers.add(worker)
            worker.add_done_callback(self._left)

    async def _worker(self, work: Work, request: Request) -> None:
        while True:
            await work.send(request)
            if len(self._workers) > self.concurrency or (taken := self._take()) is None:
                return
            work, request = taken

    def _left(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        self.wake()
        if not worker.cancelled() and (error := worker.exception()) is not None:
            raise error  # a bug: `send` raises nothing; the loop's handler logs it

    def _take(self) -> tuple[Work, Request] | None:
        if self._alarm is not None:
            if asyncio.get_running_loop().time() < self._held_until:
                return None
            self._alarm = None
        for work in self._work:
            if (request := work.take()) is not None:
                return work, request
        return None
