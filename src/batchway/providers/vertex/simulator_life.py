"""The life of a simulated job: which state it is in is worked out from the virtual clock when somebody looks.

Invariant: states follow Vertex's order and their times never go back. Reading the input and writing the output happen
once each, in a thread; a state that needs them waits for them, whatever the clock says. Every change is stored.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from batchway.providers.shared.simulation import Background, Dice, VirtualClock
from batchway.providers.vertex.simulator_objects import Elsewhere, Objects, Store
from batchway.providers.vertex.simulator_rows import Rules, Scan, Written, scan, write
from batchway.providers.vertex.simulator_settings import SimulatorSettings

QUEUED, PENDING, RUNNING = "JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING"
SUCCEEDED, PARTIAL, FAILED = "JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_FAILED"
CANCELLING, CANCELLED, EXPIRED = "JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"
TERMINAL = frozenset({SUCCEEDED, PARTIAL, FAILED, CANCELLED, EXPIRED})
STALL = 4 * 3600.0


class Job(msgspec.Struct, kw_only=True):
    """A job; times in virtual unix seconds, lengths in virtual seconds. `done`: how many rows had run at its end."""

    id: str
    ordinal: int
    project: str
    location: str
    body: dict[str, Any]  # as it was created
    created: float
    updated: float
    state: str = QUEUED
    started: float | None = None
    ended: float | None = None
    cancelled: float | None = None
    total: int | None = None
    never: int = 0
    failing: int = 0
    done: int | None = None
    successful: int = 0
    failed: int = 0
    fault: str | None = None
    fault_code: int = 3
    output: str | None = None
    written: bool = False
    waits: float = 0.0  # in the queue
    pends: float = 0.0
    runs: float = 0.0
    stops_at: float | None = None  # the share of rows after which it hangs until it expires

    @property
    def name(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/batchPredictionJobs/{self.id}"


class Simulation:
    """One running simulator: settings, clock, chance, jobs, objects, open uploads, issued tokens, work in threads."""

    def __init__(self, settings: SimulatorSettings, *, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.faults = settings.faults
        self.dice = Dice(settings.seed)
        self.drawn: Counter[str] = Counter()
        self.requests = 0
        self.background = Background()
        self.folder = settings.state_dir or Path(tempfile.mkdtemp(prefix="batchway-simulator-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        if settings.state_dir is not None:
            self._remove.detach()
        (self.folder / "jobs").mkdir(parents=True, exist_ok=True)
        self.clock = self._clock(clock)
        self.objects = Objects(self.folder / "objects", self.clock.now)
        elsewhere = settings.storage_url
        self.store: Store = Elsewhere(elsewhere, self.folder / "fetched") if elsewhere else self.objects
        self.sessions: dict[str, Any] = {}
        self.tokens: dict[str, float] = {}  # issued token -> its end
        self.jobs: dict[str, Job] = {}
        for path in sorted((self.folder / "jobs").glob("*.json")):
            job = msgspec.json.decode(path.read_bytes(), type=Job)
            self.jobs[job.id] = job
        self._scans: dict[str, Scan] = {}

    def _clock(self, clock: Callable[[], float]) -> VirtualClock:
        kept = self.folder / "clock.json"
        if not kept.exists():
            return VirtualClock(clock=clock, speed=self.settings.speed, real_start=clock(), start=clock())
        return VirtualClock(clock=clock, **msgspec.json.decode(kept.read_bytes())).rebased(self.settings.speed)

    def keep_clock(self) -> None:
        """Stores the clock, so that a restarted simulator goes on from it and time went by meanwhile."""
        now = {"speed": self.clock.speed, "real_start": self.clock.real_start, "start": self.clock.start}
        (self.folder / "clock.json").write_bytes(msgspec.json.encode(now))

    def hits(self, fault: str, *what: str | int) -> bool:
        """Draws a fault by its field name and counts it when it happens."""
        hit = self.dice.hits(getattr(self.faults, fault), fault, *what)
        self.drawn[fault] += hit
        return hit

    def create(self, body: dict[str, Any], project: str, location: str) -> Job:
        """A new job, stored, with its fate drawn."""
        ordinal, now, settings = len(self.jobs) + 1, self.clock.now(), self.settings

        def around(seconds: float, what: str) -> float:
            return seconds * (0.5 + self.dice.draw(what, ordinal))

        slow = self.hits("slow_validation", ordinal)
        stalls = STALL if self.hits("stall", ordinal) else 0.0
        job = Job(
            id=str(10**18 + secrets.randbelow(8 * 10**18)),
            ordinal=ordinal,
            project=project,
            location=location,
            body=body,
            created=now,
            updated=now,
            waits=around(settings.queue_seconds, "queue") * (20 if slow else 1),
            pends=around(settings.pending_seconds, "pending"),
            runs=around(settings.run_seconds, "run") + stalls,
            stops_at=0.1 + 0.8 * self.dice.draw("stop", ordinal) if self.hits("expire", ordinal) else None,
        )
        if self.hits("fail_batch", ordinal):
            job.fault, job.fault_code = "Simulated: an internal error occurred.", 13
        self.jobs[job.id] = job
        self.keep(job)
        return job

    def keep(self, job: Job) -> None:
        path = self.folder / "jobs" / f"{job.id}.json"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(job))
        fresh.rename(path)

    def forget(self, job: Job) -> None:
        """A deleted job."""
        del self.jobs[job.id]
        self._scans.pop(job.id, None)
        (self.folder / "jobs" / f"{job.id}.json").unlink(missing_ok=True)

    def look(self, job: Job) -> Job:
        """Brings a job to the state it has now; call on the event loop."""
        before = job.state
        while job.state not in TERMINAL and _STEPS[job.state](self, job, self.clock.now()):
            pass
        if job.state != before:
            self.keep(job)
        return job

    def scanned(self, job: Job) -> Scan | None:
        """The job's rows, once they have been read."""
        if job.id not in self._scans:
            self.background.start(f"scan {job.id}", partial(self._read, job), partial(self._scanned, job))
        return self._scans.get(job.id)

    def _read(self, job: Job) -> Scan:
        uris: list[str] = job.body["inputConfig"]["gcsSource"]["uris"]
        found = [name for uri in uris for name in self.store.expand(uri)]
        if not found:
            return Scan(fault=f"Failed to import data. No object matches {', '.join(uris)}.")
        return scan([self.store.fetch(name) for name in found], rules(self, job))

    def _scanned(self, job: Job, found: Scan) -> None:
        job.total, job.never, job.failing = len(found.starts), found.failing.count(2), found.failing.count(1)
        job.fault = job.fault or found.fault
        self._scans[job.id] = found
        self.keep(job)

    def written(self, job: Job, done: int) -> bool:
        """Whether the output of the first `done` rows stands; begins to write it when it does not."""
        found = self.scanned(job)
        if not job.written and found is not None:
            job.output = job.output or _directory(self, job)
            work = partial(self._write, job, found, done)
            self.background.start(f"write {job.id}", work, partial(self._done, job))
        return job.written

    def _write(self, job: Job, found: Scan, done: int) -> Written:
        shards = self.settings.shards
        names = ["predictions.jsonl"] if shards == 1 else [f"predictions_{n + 1:05}.jsonl" for n in range(shards)]
        ways = [self.objects.temporary() for _ in names]
        order = found.order(rules(self, job))[:done]
        written = write(found, rules(self, job), order, ways, self.clock.now())
        for name, path in zip(names, ways, strict=True):
            self.store.put(f"{job.output}/{name}", path)
        return written

    def _done(self, job: Job, written: Written) -> None:
        job.successful, job.failed, job.written = written.successful, written.failed, True
        self._scans.pop(job.id, None)
        self.keep(job)

    async def settle(self) -> None:
        """Returns when every job is where it is by the clock."""
        while True:
            for job in list(self.jobs.values()):
                self.look(job)
            if not self.background.busy:
                return
            await self.background.idle()

    async def close(self) -> None:
        await self.background.close()
        self.keep_clock()
        self._remove()


def rules(simulation: Simulation, job: Job) -> Rules:
    """What decides about the job's rows."""
    settings = simulation.settings
    return Rules(
        job=job.ordinal,
        model=job.body["model"],
        dice=simulation.dice,
        line_rate=simulation.faults.line,
        max_rows=settings.max_rows if "embedding" not in job.body["model"] else max(settings.max_rows, 1_000_000),
        max_bytes=settings.max_bytes,
        bare=settings.echo == "bare",
    )


def progress(job: Job, now: float) -> int:
    """How many rows have run by a virtual moment."""
    if job.done is not None or job.started is None or not job.total:
        return job.done or 0
    share = min((now - job.started) / job.runs if job.runs else 1.0, 1.0 if job.stops_at is None else job.stops_at)
    return max(0, min(int(share * job.total), job.total - job.never))


def _enter(job: Job, state: str, moment: float) -> bool:
    job.state, job.updated = state, moment
    if state == RUNNING:
        job.started = moment
    if state in TERMINAL:
        job.ended = moment
    return True


def _queued(simulation: Simulation, job: Job, now: float) -> bool:
    moment = job.created + job.waits
    return now >= moment and _enter(job, PENDING, moment)


def _pending(simulation: Simulation, job: Job, now: float) -> bool:
    if simulation.scanned(job) is None and job.total is None:
        return False
    moment = job.created + job.waits + job.pends
    if now < moment:
        return False
    return _enter(job, FAILED if job.fault else RUNNING, moment)


def _running(simulation: Simulation, job: Job, now: float) -> bool:
    started = job.started or job.created
    hangs = job.stops_at is not None
    finish = inf if hangs else started + job.runs
    ends = started + simulation.settings.window_seconds
    if now < min(finish, ends):
        return False
    if job.done is None:
        job.done = (job.total or 0) - job.never if finish <= ends else progress(job, ends)
    if not simulation.written(job, job.done):
        return False
    if finish > ends:
        return _enter(job, EXPIRED, ends)
    return _enter(job, PARTIAL if job.never else SUCCEEDED, finish)


def _cancelling(simulation: Simulation, job: Job, now: float) -> bool:
    if job.done and not simulation.written(job, job.done):
        return False
    moment = (job.cancelled or now) + simulation.settings.cancel_seconds
    return now >= moment and _enter(job, CANCELLED, moment)


_STEPS: dict[str, Callable[[Simulation, Job, float], bool]] = {
    QUEUED: _queued,
    PENDING: _pending,
    RUNNING: _running,
    CANCELLING: _cancelling,
}


def cancel(simulation: Simulation, job: Job) -> None:
    """Begins the end of a job that has not ended; what has run stays and is written."""
    now = simulation.clock.now()
    job.done, job.cancelled = progress(job, now), now
    _enter(job, CANCELLING, now)
    simulation.keep(job)


def _directory(simulation: Simulation, job: Job) -> str:
    prefix = job.body["outputConfig"]["gcsDestination"]["outputUriPrefix"].rstrip("/")
    return f"{prefix}/prediction-model-{job.created:.6f}-{job.id[-6:]}"
