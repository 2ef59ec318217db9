"""One batch through a gateway that is killed again and again, watched all the while."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.gateway import FINAL, Away, Gateway, Refused
from tests.invariants import Remains, read, results_violations, violations
from tests.simulator import Simulator

PATIENCE = 120.0  # seconds without a change, of the batch or of a count, after which it is stuck
EARLY = 0.15  # how many of the kills hit a gateway that is still starting


def chat_lines(count: int, models: Sequence[str] = ("gpt-4o-mini", "gpt-4.1-mini")) -> bytes:
    """Chat lines that simulators can tell apart, also when they come alone."""
    lines = []
    for number in range(count):
        name = f"line-{number}"
        content = f"Say {number} – ö 漢 " + "again " * (number % 17)
        body = {"model": models[number % len(models)], "messages": [{"role": "user", "content": content}]}
        body["metadata"] = {"batchway_line": name}
        lines.append({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


@dataclass
class Ordeal:
    """`run` it, then ask for `violations`. Moments are drawn from `seed`; `each_life` runs once the gateway answers."""

    gateway: Gateway
    simulator: Simulator | None
    seed: int
    kills: int
    window: str = "24h"
    longest_life: float = 2.5  # seconds that a gateway is left alive after it answers
    each_life: Callable[[], object] = lambda: None
    each_death: Callable[[], object] = lambda: None
    batch_id: str = ""
    status: str = "validating"
    deaths: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def run(self, lines: bytes) -> None:
        """From the upload to the end of the batch; kills until `kills` are done, then lets it end."""
        started = time.monotonic()
        chance = random.Random(self.seed)
        self.gateway.start()
        self.begin(lines)
        while self.status not in FINAL:
            self._live(chance)
        self.seconds = time.monotonic() - started

    def begin(self, lines: bytes) -> None:
        """Uploads and creates."""
        self._counts = (0, 0)
        self._changed = time.monotonic()
        self.batch_id = self.gateway.create(self.gateway.upload(lines), self.window)

    def _live(self, chance: random.Random) -> None:
        last = self.deaths >= self.kills
        if not self.gateway.dead:
            self.each_life()
            self.watch(float("inf") if last else chance.uniform(0.05, self.longest_life))
            if self.status in FINAL:
                return
        self._die()
        self.gateway.launch()
        if not last and chance.random() < EARLY:
            time.sleep(chance.uniform(0.1, 1.5))
            self._die()
            self.gateway.launch()
        self.gateway.wait_ready()

    def _die(self) -> None:
        self.gateway.kill()
        self.deaths += 1
        self.each_death()

    def watch(self, seconds: float) -> None:
        """Looks at the batch for so long, or until it ends."""
        until = time.monotonic() + seconds
        while self.status not in FINAL and time.monotonic() < until:
            self._look()
            if seconds == float("inf"):
                self.each_life()
            time.sleep(min(0.1, max(0.0, until - time.monotonic())))

    def _look(self) -> None:
        try:
            batch = self.gateway.batch(self.batch_id)
        except (Away, Refused) as error:
            self.complaints.append(f"a GET of the batch failed: {error}")
            return
        counts = (batch["request_counts"]["completed"], batch["request_counts"]["failed"])
        if any(now < before for now, before in zip(counts, self._counts, strict=True)):
            self.complaints.append(f"counts went back from {self._counts} to {counts}")
        if (counts, batch["status"]) != (self._counts, self.status):
            self._changed = time.monotonic()
        assert time.monotonic() - self._changed < PATIENCE, f"stuck: {batch}\n{self.gateway.tail()}"
        self._counts, self.status = counts, batch["status"]

    def remains(self) -> Remains:
        return read(self.gateway.database, self.gateway.storage, self.batch_id)

    def violations(self, kinds: dict[str, str]) -> list[str]:
        """Everything that does not hold, of the batch as it ended and of what was seen meanwhile."""
        remains = self.remains()
        found = [*self.complaints, *violations(remains, self._simulators, kinds)]
        return found + results_violations(remains, self.gateway.results(self.batch_id))

    @property
    def _simulators(self) -> list[Simulator]:
        return [self.simulator] if self.simulator else []

    def summary(self) -> str:
        drawn = [simulator.drawn() for simulator in self._simulators]
        return f"{self.deaths} kills in {self.seconds:.0f} s, {self.status}, faults {drawn}"
