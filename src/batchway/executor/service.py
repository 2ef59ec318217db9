"""`Executor`: the batch engine for endpoints without one, put together from the parts beside this file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from batchway import logs
from batchway.core.errors import BatchwayError
from batchway.core.ids import IdMaker, new_id
from batchway.core.jobs import JobSpec
from batchway.db import chunks
from batchway.db.engine import Database
from batchway.engine import Engine
from batchway.executor.chunks import plan
from batchway.executor.dispatcher import QUEUE, Dispatcher, places
from batchway.executor.limits import Slots
from batchway.executor.pace import START, Pace
from batchway.executor.purse import MeterOf, Purse
from batchway.executor.retry import pause
from batchway.executor.run import Fenced, Run, Stop, Tools
from batchway.executor.send import Endpoint, target
from batchway.executor.tuning import Tuning
from batchway.http import Http
from batchway.storage import Storage

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Executor:
    """One a process. `register` before the engine is launched; `run` is the dispatcher, until it is cancelled.

    `endpoints` are the accounts that execute. `on_job_end` is called with a job's id when its last chunk is done here.
    `meter_of` tells what answers amount to: once a batch has spent what it holds, no more of its lines are sent.
    """

    db: Database
    storage: Storage
    http: Http
    engine: Engine
    endpoints: Mapping[str, Endpoint]
    clock: Callable[[], float]
    settings: Tuning = field(default_factory=Tuning)
    on_job_end: Callable[[str], None] = lambda _job_id: None
    meter_of: MeterOf = lambda _account, _model: None
    new_id: IdMaker = new_id
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        self._slots: dict[str, Slots] = {}
        self._runs: dict[str, Run] = {}  # by chunk
        self._purses: dict[str, Purse] = {}  # by batch
        self._leaving = False
        self._dispatcher = Dispatcher(
            db=self.db,
            engine=self.engine,
            clock=self.clock,
            tuning=self.settings,
            holder=self.new_id("executor_"),
            accounts=self._limits,
            ended=lambda job_id: self.on_job_end(job_id),  # noqa: PLW0108 - whoever listens may come later
            tick=self._watch,
        )
        self._tools = Tools(
            db=self.db,
            storage=self.storage,
            http=self.http,
            clock=self.clock,
            new_id=self.new_id,
            random=self.random,
            tuning=self.settings,
            may_send=self._may_send,
            meter_of=self.meter_of,
            drained=self._dispatcher.nudge,
        )

    def register(self) -> None:
        """Tells the engine what a chunk is."""
        most = sum(places(endpoint.concurrency) for endpoint in self.endpoints.values())
        self.engine.register(QUEUE, self.run_chunk, concurrency=max(1, most))

    async def run(self) -> None:
        """Moves chunks into the engine until it is cancelled."""
        await self._dispatcher.run()

    async def plan(self, job: JobSpec) -> None:
        """Writes the chunks of a job, once; from then on they run."""
        if await plan(self.db, self.storage, self.settings, job):
            self._dispatcher.nudge()

    async def cancel(self, job_id: str) -> None:
        """Stops a job: nothing more is sent, what flies has a short grace. Other processes hear within a tick."""
        ended = await self.db.write(chunks.stop, job_id, self.clock())
        for run in self._runs.values():
            if run.chunk.job_id == job_id:
                run.stop(Stop.ASKED)
        if ended:
            self.on_job_end(job_id)

    def load(self) -> dict[str, tuple[int, int]]:
        """(requests under way, how many there may be) in this process, by account."""
        used = {name: slots.in_use for name, slots in self._slots.items()}
        return {name: (used.get(name, 0), limit) for name, limit in self._limits().items()}

    def leave(self) -> None:
        """Sends nothing more from this process, for good: call it just before the engine is closed.

        What is in flight may still end within the engine's own timeout, and is stored.
        """
        self._leaving = True
        for run in self._runs.values():
            run.stop(Stop.LEAVING)

    async def run_chunk(self, chunk_id: str) -> None:
        """The engine's body: takes the chunk over, whoever had it, and does what is left of it."""
        chunk = await self.db.write(chunks.begin, chunk_id)
        if chunk is None:
            return
        logs.note(batch_id=chunk.batch_id, job_id=chunk.job_id)
        try:
            ended = await self._finish(chunk)
        except Fenced:
            log.info("executor: chunk %s is in other hands", chunk_id)
            return
        except Exception:
            await self._put_off(chunk)
            raise
        if ended:
            self.on_job_end(chunk.job_id)

    async def _finish(self, chunk: chunks.Chunk) -> bool:
        endpoint = self.endpoints.get(chunk.account)
        if endpoint is None:
            raise BatchwayError(f"no endpoint is configured for the account {chunk.account!r}")
        slots = self._slots.setdefault(chunk.account, Slots(Pace(ceiling=endpoint.concurrency)))
        purse = self._purses.setdefault(chunk.batch_id, Purse(chunk.limit, chunk.spent))
        purse.renew(chunk.limit, chunk.spent)
        purse.runs += 1
        run = self._runs[chunk.id] = Run(chunk, target(endpoint, chunk.endpoint), slots, purse, self._tools)
        try:
            return await run.finish()
        finally:
            purse.runs -= 1
            if not purse.runs:
                del self._purses[chunk.batch_id]
            if self._runs.get(chunk.id) is run:
                del self._runs[chunk.id]

    async def _put_off(self, chunk: chunks.Chunk) -> None:
        """After a run that failed: the chunk waits a while, or ends as it is when that has happened too often."""
        failures = chunk.attempts + 1
        now = self.clock()
        if failures < self.settings.chunk.attempts:
            await self.db.write(chunks.postpone, chunk, now + pause(self.settings.chunk, failures, None, self.random))
            return
        log.error("executor: chunk %s failed %d times and ends with the answers it has", chunk.id, failures)
        await self.db.write(chunks.grow, chunk, 0, now)
        if await self.db.read(chunks.ended, chunk.job_id):
            self.on_job_end(chunk.job_id)

    async def _watch(self) -> None:
        """Hears what other processes wrote about the chunks that run here."""
        if not self._runs:
            return
        if not self._may_send():
            for run in self._runs.values():
                run.stop(Stop.LEAVING)
            return
        found = await self.db.read(chunks.signals, list(self._runs))
        for chunk_id, run in list(self._runs.items()):
            token, stopping = found.get(chunk_id, (run.chunk.token, False))
            if token != run.chunk.token:
                run.stop(Stop.FENCED)
            elif stopping:
                run.stop(Stop.ASKED)

    def _limits(self) -> dict[str, int]:
        """How many requests of each account this process has in flight, as far as that is known."""
        now = asyncio.get_running_loop().time()
        return {
            name: self._slots[name].pace.limit(now) if name in self._slots else min(START, endpoint.concurrency)
            for name, endpoint in self.endpoints.items()
        }

    def _may_send(self) -> bool:
        return not self._leaving and self.engine.alive()
