"""The requests of one account that may be in flight in this process, shared by all its chunks.

Invariant: never more requests at once than the account's `Pace` allows. A slot that comes free takes the next request
in the same turn of the event loop: a worker asks for work until there is none and then ends, so nobody waits on a clock
or a queue. An account that said when to come back is left alone until then, by all workers. Whose request is next is
told by `Shares` over what is in flight; of one job, the first lines go first.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from operator import attrgetter
from typing import Protocol

from batchway.executor.pace import Pace
from batchway.executor.send import Request
from batchway.executor.shares import Share, Shares


class Work(Share, Protocol):
    """Requests of one job that want slots."""

    @property
    def ordinal(self) -> int:
        """Where in its job it stands."""
        ...

    def take(self) -> Request | None:
        """The next request that may be sent now."""
        ...

    async def send(self, request: Request) -> bool | None:
        """One attempt, from its first byte to what becomes of it; raises nothing but CancelledError.

        True when the endpoint took it, False when it refused for its load; None when it was not heard of.
        """
        ...


class Slots:
    """The slots of one account; all calls on the event loop."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._work: dict[str, list[Work]] = {}  # by job, in order
        self._shares = Shares()  # of what is in flight
        self._workers: set[asyncio.Task[None]] = set()
        self._held_until = 0.0  # on the loop's clock
        self._alarm: asyncio.TimerHandle | None = None  # the end of the hold
        self._rise: asyncio.TimerHandle | None = None  # the next time that the limit rises by itself

    @property
    def in_use(self) -> int:
        """Workers, each with one request in flight."""
        return len(self._workers)

    def join(self, work: Work) -> None:
        """Lets `work` have slots, from now on."""
        insort(self._work.setdefault(work.job_id, []), work, key=attrgetter("ordinal"))
        self.wake()

    def leave(self, work: Work) -> None:
        """No request of `work` is started any more."""
        of_job = self._work.get(work.job_id, [])
        if work in of_job:
            of_job.remove(work)
            if not of_job:
                del self._work[work.job_id]

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
        loop = asyncio.get_running_loop()
        now = loop.time()
        limit = self.pace.limit(now)
        while len(self._workers) < limit:
            if (taken := self._take()) is None:
                return  # whoever makes a request ready wakes us
            worker = loop.create_task(self._worker(*taken))
            self._workers.add(worker)
            worker.add_done_callback(self._left)
            self.pace.sent(now, len(self._workers))
        if self._rise is None and (rises_at := self.pace.rises_at(now)) is not None:
            self._rise = loop.call_at(rises_at, self._risen)

    def _risen(self) -> None:
        self._rise = None
        self.wake()

    async def _worker(self, work: Work, request: Request) -> None:
        loop, worker = asyncio.get_running_loop(), asyncio.current_task()
        assert worker is not None  # noqa: S101 - this runs in one
        while True:
            sent_at = loop.time()
            try:
                taken = await work.send(request)
            finally:
                self._shares.give_back(work.project, work.job_id)
            now = loop.time()
            if taken:
                self.pace.taken(sent_at, now)
            elif taken is not None:
                pause = self.pace.lost(sent_at, now, len(self._workers) - 1)
                if now >= self._held_until:  # what the endpoint itself asked for counts more
                    self.hold(pause)
            if len(self._workers) > self.pace.limit(now) or (following := self._take()) is None:
                self._workers.discard(worker)  # at once: those who come back in the same turn count what is in flight
                return
            work, request = following
            self.pace.sent(now, len(self._workers))
            self.wake()

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
        for job_id in self._order():
            for work in self._work[job_id]:
                if (request := work.take()) is not None:
                    self._shares.take(work.project, job_id)
                    return work, request
        return None

    def _order(self) -> list[str]:
        """The jobs, whoever comes next first. Deadlines that are near count when chunks are handed out, not here."""
        if len(self._work) < 2:
            return list(self._work)
        return [work.job_id for work in self._shares.order((works[0] for works in self._work.values()), 0.0)]
