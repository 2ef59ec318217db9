"""One small batch through a gateway that kills itself at one chosen point of the trip, then ends without it.

The file mixes a model that goes to a provider's own batches, one that is executed, lines that fail at both, and more
blocks than a job may hold. `Scene` is what a run shares: the forked gateways and a simulator; each run has its own home.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.nursery import Nursery
from tests.gateway import FINAL, Away, Gateway
from tests.invariants import Remains, read, results_violations, violations
from tests.simulator import Simulator

KINDS = {"openai": "openai", "local": "openai_compatible"}
SECONDS = 60.0  # within which a batch that was killed once ends
BAD = re.compile(r"#\d+$")


def mixed_lines(count: int, **bodies: Any) -> bytes:
    """Lines of both lanes by turns; every seventh is refused by whoever gets it. `bodies` is added to each body."""
    lines = []
    for number in range(count):
        model = ("gpt-4o-mini", "local/llama", "gpt-4.1-mini")[number % 3]
        body = {"model": model, "messages": [{"role": "user", "content": f"Say {number}."}], **bodies}
        body["metadata"] = {"simulate": "400"} if number % 7 == 3 else {"batchway_line": f"line-{number}"}
        lines.append({"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass
class Run:
    """How one run went."""

    remains: Remains
    died: bool
    found: list[str] = field(default_factory=list)


class Scene:
    """Runs batches one after the other, each in a home of its own; `close` it."""

    def __init__(self, folder: Path, nursery: Nursery, *, content: bytes, window: str = "24h", **simulator: Any) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._nursery = nursery
        self._content = content
        self._window = window
        self._options = {"speed": 2000, **simulator}
        self._runs = 0

    def points(self, during: Callable[[Gateway, str], object] | None = None) -> list[str]:
        """Every point that a run without a death passes, in order."""
        self.run(None, during)
        return (self._folder / "run-1" / "points").read_text().splitlines()

    def run(self, die: str | None, during: Callable[[Gateway, str], object] | None = None) -> Run:
        """One batch; `during` is called with the gateway and the batch's id once that is known, until it answers true."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        simulator = Simulator(folder / "simulator", **self._options)
        gateway = Gateway(folder / "home", self._settings(simulator), self._nursery.fork)
        try:
            return self._through(folder, gateway, simulator, die, during)
        finally:
            gateway.kill()
            simulator.close()

    def _settings(self, simulator: Simulator) -> dict[str, Any]:
        native = {"api_key": "sim", "base_url": simulator.base_url}
        local = {"kind": "openai_compatible", "base_url": simulator.base_url, "models": ["llama"], "concurrency": 4}
        return {"poll_seconds": 0.1, "providers": {"openai": native, "local": local}}

    def _through(
        self,
        folder: Path,
        gateway: Gateway,
        simulator: Simulator,
        die: str | None,
        during: Callable[[Gateway, str], object] | None,
    ) -> Run:
        def mortal(config: Path, log: Path) -> Any:
            return self._nursery.fork(config, log, points=folder / "points", die=die)

        deaths = 0
        file_id = batch_id = ""
        status, disturbed = "", during is None
        until = time.monotonic() + SECONDS
        gateway.launch(mortal)
        while status not in FINAL:
            assert time.monotonic() < until, f"{die}: stuck in {status}\n{gateway.tail()}"
            try:
                gateway.wait_ready()
                file_id = file_id or gateway.upload(self._content)
                batch_id = batch_id or gateway.create(file_id, self._window, idempotency_key="the-batch")
                disturbed = disturbed or bool(during and during(gateway, batch_id))
                status = gateway.batch(batch_id)["status"]
            except Away:
                if gateway.dead:
                    deaths += 1
                    gateway.start()
            time.sleep(0.03)  # another process: there is nothing to wait on
        results = gateway.results(batch_id)
        if gateway.dead:  # at its very last point
            deaths += 1
        gateway.kill()
        remains = read(gateway.database, gateway.home / "storage", batch_id)
        found = [*violations(remains, [simulator], KINDS), *results_violations(remains, results)]
        return Run(remains, deaths > 0, found)


def first_of_each(points: list[str]) -> list[str]:
    """The first time of each kind of point: `before db x #1` of all `before db x #n`."""
    return [point for point in points if point.endswith(" #1")]
