"""Runs the roles of one process: starts what is due, looks at jobs, keeps house; and stops politely.

The rows are the truth: a row that waits for a durable function is found here, at once after a bell and otherwise every
second, and handed to the engine, which runs it again after a crash. A durable function that fails leaves its row to
come up again, later each time. A loop that fails logs and goes on: a database that restarts costs
a pause, not the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from batchway import logs, pipeline
from batchway.app import Gateway
from batchway.db import batches, jobs
from batchway.pipeline.housekeeping import keep_house
from batchway.pipeline.resume import resume_paused
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

TICK = 1.0  # seconds: the net below the bells
# Seconds for which a row that was handed to the engine is left alone. Short, because another process may run it, leave
# it due again and be killed: nobody tells us of that end. Asking the engine again costs a point read.
HANDED = 5.0
FIND = 200  # rows at a time
LONGEST_WAIT = 300.0
TIDY = 60.0  # seconds between two rounds of housekeeping
RESUME = 5.0  # seconds between two looks for paused batches when no bell says that there is money


@dataclass(frozen=True)
class Duty:
    """One durable function: who waits for it, and where a failure is noted."""

    name: str
    body: Callable[[Trip, str], Awaitable[None]]
    find: Callable[[Connection, float, int], list[str]]
    fail: Callable[[Connection, str, float, float], None]
    concurrency: int


DUTIES = (
    Duty("prepare", pipeline.prepare, batches.to_prepare, batches.fail_attempt, 8),
    Duty("stop", pipeline.stop, batches.to_stop, batches.fail_attempt, 8),
    Duty("settle", pipeline.settle, jobs.to_settle, jobs.fail_attempt, 4),
    Duty("finish", pipeline.finish, batches.ready_to_finalize, batches.fail_attempt, 2),
)


class Worker:
    """The loops of this process's roles over a wired gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._trip = gateway.trip
        self._engine = gateway.engine
        self._executor = gateway.executor
        self._teller = gateway.teller
        self._roles: frozenset[str] = frozenset(gateway.settings.roles)
        self._handed: dict[tuple[str, str], float] = {}
        self._ended: set[str] = set()  # executed jobs whose last chunk is done: to be looked at now
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Recovers what a killed process left, and goes to work."""
        if not self._roles - {"api"}:
            return
        self._executor.on_job_end = self._job_ended
        if "worker" in self._roles:
            for duty in DUTIES:
                self._engine.register(duty.name, self._body(duty), concurrency=duty.concurrency)
            self._executor.register()
        await asyncio.to_thread(self._engine.launch)
        if self._trip.db.is_sqlite:  # the engine's lock proves that no other process has claimed anything
            await self._trip.db.write(jobs.release_polls)
        if "housekeeping" in self._roles:
            await self._teller.once()  # whatever happens from now on is told to receivers that are new
        self._loops = [asyncio.create_task(loop) for loop in self._chosen()]

    async def stop(self, timeout: float) -> None:
        """Takes no new work and gives what runs `timeout` seconds; the rest is run again by the next start."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._teller.close()
        if self._loops:
            self._executor.leave()
            await self._engine.close(timeout)

    def _chosen(self) -> Iterator[Coroutine[Any, Any, None]]:
        bells = self._trip.bells
        if "worker" in self._roles:
            yield _loop("starter", self._start_due, bells.work)
            yield _loop("executor", self._executor.run, asyncio.Event())
        if "poller" in self._roles:
            yield _loop("poller", self._poll, bells.polls, min(TICK, self._trip.poll_seconds))
        if "housekeeping" in self._roles:
            yield _loop("deadlines", self._expire, asyncio.Event())
            yield _loop("teller", self._teller.once, self._teller.bell)
            yield _loop("resumer", partial(resume_paused, self._trip), bells.money, RESUME)
            yield _loop("housekeeping", partial(keep_house, self._trip), asyncio.Event(), TIDY)

    def _body(self, duty: Duty) -> Callable[[str], Awaitable[None]]:
        async def body(key: str) -> None:
            try:
                logs.note(**await self._ids(duty, key))
                log.debug("%s begins", duty.name)
                await duty.body(self._trip, key)
                log.debug("%s is done", duty.name)
            except Exception:
                await self._trip.db.write(duty.fail, key, self._trip.clock(), LONGEST_WAIT)
                raise
            finally:
                self._handed.pop((duty.name, key), None)
                self._trip.bells.work.set()

        return body

    async def _ids(self, duty: Duty, key: str) -> dict[str, str]:
        """What the log says of this work."""
        if duty.body is not pipeline.settle:
            return {"batch_id": key}
        return {"batch_id": (await self._trip.db.read(jobs.get, key))["batch_id"], "job_id": key}

    async def _start_due(self) -> None:
        now = self._trip.clock()
        self._handed = {what: when for what, when in self._handed.items() if when > now - HANDED}
        for duty in DUTIES:
            for key in await self._trip.db.read(duty.find, now, FIND):
                if (duty.name, key) not in self._handed:
                    self._handed[duty.name, key] = now
                    await self._engine.ensure(duty.name, key)

    async def _poll(self) -> None:
        ended, self._ended = self._ended, set()
        if ended:
            await self._trip.db.write(jobs.hurry, ended)
        while await pipeline.poll(self._trip):
            pass

    async def _expire(self) -> None:
        for batch_id in await self._trip.db.read(batches.past_deadline, self._trip.clock(), FIND):
            with logs.within(batch_id=batch_id):
                await pipeline.expire(self._trip, batch_id)

    def _job_ended(self, job_id: str) -> None:
        self._ended.add(job_id)
        self._trip.bells.polls.set()


async def _loop(name: str, once: Callable[[], Awaitable[None]], bell: asyncio.Event, tick: float = TICK) -> None:
    while True:
        bell.clear()
        try:
            await once()
        except Exception:
            log.exception("the %s loop failed; it goes on", name)
        try:
            async with asyncio.timeout(tick):
                await bell.wait()
        except TimeoutError:
            continue
