"""The executor against a real HTTP endpoint whose capacity nobody tells it, and which changes."""

from __future__ import annotations

import asyncio
import time

import pytest

from batchway.executor import Tuning
from tests.stages.executor_world import answer, refusal, world


class Changing:
    """Answers `slots` requests at a time after `latency` seconds, refuses more; the slots change with the phases."""

    def __init__(self, slots: list[int], phase: float, latency: float) -> None:
        self.slots, self.phase, self.latency = slots, phase, latency
        self.begun: float | None = None
        self.open = 0
        self.answered: list[float] = []
        self.refused: list[float] = []

    def now(self) -> float:
        self.begun = self.begun or time.perf_counter()
        return time.perf_counter() - self.begun

    async def behave(self, _content: str, _time_seen: int):
        now = self.now()
        if self.open >= self.slots[min(int(now / self.phase), len(self.slots) - 1)]:
            self.refused.append(now)
            return refusal(429)
        self.open += 1
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.open -= 1
        self.answered.append(self.now())
        return answer()

    @property
    def ideal(self) -> float:
        """Answers of a caller who always knew."""
        return sum(self.slots) * self.phase / self.latency

    def in_time(self) -> int:
        return sum(at <= self.phase * len(self.slots) for at in self.answered)

    def refused_share(self, after: float) -> float:
        refused = sum(at > after for at in self.refused)
        return refused / max(1, refused + sum(at > after for at in self.answered))


@pytest.mark.parametrize(
    ("slots", "phase", "latency", "share", "refused"),
    [
        pytest.param([40, 10, 60], 5.0, 0.25, 0.75, 0.1, id="seed"),
        pytest.param(
            [200, 50, 400], 40.0, 1.0, 0.9, 0.01, id="full", marks=[pytest.mark.slow, pytest.mark.timeout(300)]
        ),
    ],
)
async def test_a_capacity_that_is_unknown_and_changes_is_used(tmp_path, slots, phase, latency, share, refused):
    endpoint = Changing(slots, phase, latency)
    async with world(tmp_path, endpoint.behave, concurrency=1024, tuning=Tuning()) as w:
        lines = [f"line {number}" for number in range(int(endpoint.ideal * 1.3))]
        job = await w.job(lines)
        await w.submit(job)
        await asyncio.sleep(phase * len(slots) + 0.5)  # the phases are in real time
        await w.executor.cancel(job.id)
        await w.finished(job, timeout=30)
    told = f"{endpoint.in_time()} of {endpoint.ideal:.0f}, {len(endpoint.refused)} refused"
    assert endpoint.in_time() >= share * endpoint.ideal, told
    assert endpoint.refused_share(after=10 * latency) < refused, told
