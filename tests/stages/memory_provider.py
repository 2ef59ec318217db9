"""A provider whose jobs live in memory: it fills the protocol for real, and fails as it is told.

`Points` are where a process may die; a provider reaches one before each call, and one after each that has an effect.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Counts, JobSpec, Limits, Look
from batchway.core.states import Outcome
from batchway.providers.protocol import Answer, Source


class Killed(BaseException):
    """The process ended here."""


class Points:
    """Where a process may die: every commit, every stored object, every remote call, before it and after it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._at: int | None = None

    def kill_at(self, number: int | None) -> None:
        """The `number`-th point from here on (from 1) is the last; None for never."""
        self.names.clear()
        self._at = number

    def reach(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._at:
            raise Killed(name)


def answer_line(custom_id: str, status: int = 200, *, tokens: tuple[int, int] = (10, 5)) -> bytes:
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    response = {"status_code": status, "request_id": "r", "body": {"usage": usage} if status == 200 else {}}
    return json.dumps({"id": "batch_req_x", "custom_id": custom_id, "response": response, "error": None}).encode()


def good(custom_id: str) -> Answer:
    return Answer(custom_id, ok=True, line=answer_line(custom_id))


def bad(custom_id: str) -> Answer:
    return Answer(custom_id, ok=False, line=answer_line(custom_id, 400))


@dataclass
class Remote:
    """A job as the provider has it."""

    id: str
    token: str
    lines: list[tuple[str, bytes]]
    outcome: Outcome | None = None
    status: str = "in_progress"
    counts: Counts | None = None
    answers: list[Answer] = field(default_factory=list)


class MemoryProvider:
    """A provider whose jobs live in memory. `trouble[call]` holds errors that the next such calls end with."""

    def __init__(self, points: Points, limits: Limits) -> None:
        self.jobs: dict[str, Remote] = {}
        self.calls: Counter[str] = Counter()
        self.trouble: dict[str, list[Exception]] = {}
        self.poisoned: set[str] = set()  # calls on these jobs (our ids) raise what no provider may raise
        self.lies = 0  # this many submits are accepted and answered as lost
        self.window = 100
        self._limits = limits
        self._points = points
        self._ids = itertools.count(1)

    @property
    def running(self) -> list[Remote]:
        return [remote for remote in self.jobs.values() if remote.outcome is None]

    def end(self, outcome: Outcome = Outcome.SUCCEEDED, answer: Callable[[str], Answer | None] = good) -> None:
        """Every running job ends so; a line for which `answer` gives None has no answer."""
        for remote in self.running:
            remote.outcome, remote.status = outcome, outcome.value
            given = [answer(custom_id) for custom_id, _ in remote.lines]
            remote.answers = [one for one in reversed(given) if one is not None]

    def limits(self, model: str) -> Limits:
        return self._limits

    async def submit(self, job: JobSpec, source: Source) -> str:
        self._called("submit", job)
        lines = [(line.request.custom_id, line.raw) async for window in source() for line in window]
        remote = Remote(id=f"remote-{next(self._ids)}", token=job.token, lines=lines)
        self.jobs[remote.id] = remote
        self._points.reach("after submit")
        if self.lies:
            self.lies -= 1
            raise ProviderError("no answer", fault=Fault.LOST)
        return remote.id

    async def find(self, job: JobSpec) -> str | None:
        self._called("find", job)
        return next((remote.id for remote in self.jobs.values() if remote.token == job.token), None)

    async def look(self, job: JobSpec) -> Look:
        self._called("look", job)
        remote = self._get(job)
        done = Counts(sum(one.ok for one in remote.answers), sum(not one.ok for one in remote.answers))
        return Look(
            remote_id=remote.id,
            outcome=remote.outcome,
            status=remote.status,
            counts=remote.counts or done,
            results=(remote.id,) if remote.answers else (),
        )

    async def cancel(self, job: JobSpec) -> None:
        self._called("cancel", job)
        remote = self._get(job)
        if remote.outcome is None:
            remote.outcome, remote.status = Outcome.CANCELLED, "cancelled"
            remote.answers = [good(custom_id) for custom_id, _ in remote.lines[: len(remote.lines) // 2]]
        self._points.reach("after cancel")

    async def answers(self, job: JobSpec, look: Look, source: Source) -> AsyncIterator[list[Answer]]:
        self._called("answers", job)
        found = [one for name in look.results for one in self._get(job, name).answers]
        for start in range(0, len(found), self.window):
            yield found[start : start + self.window]

    async def clean(self, job: JobSpec, look: Look) -> None:
        self._called("clean", job)
        self.jobs.pop(str(job.remote_id), None)
        self._points.reach("after clean")

    async def fetch_input(self, look: Look) -> AsyncIterator[bytes]:
        self._points.reach("before fetch_input")
        yield b"".join(raw + b"\n" for _, raw in self.jobs[look.remote_id].lines)

    def _called(self, call: str, job: JobSpec) -> None:
        self.calls[call] += 1
        self._points.reach(f"before {call}")
        if job.id in self.poisoned:
            raise ZeroDivisionError(call)
        if self.trouble.get(call):
            raise self.trouble[call].pop(0)

    def _get(self, job: JobSpec, name: str | None = None) -> Remote:
        remote = self.jobs.get(name or str(job.remote_id))
        if remote is None:
            raise ProviderError("no such job", fault=Fault.REJECTED, status=404)
        return remote
