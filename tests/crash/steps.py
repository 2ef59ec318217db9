"""One small batch through a gateway that kills itself at one chosen point of the trip, then ends without it.

`Scene` is what the runs of a test share: the forked gateways and a simulator. Each run has a home of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.nursery import Forked, Nursery
from tests.gateway import FINAL, Away, Gateway, Refused
from tests.invariants import Remains, read, results_violations, violations
from tests.simulator import Simulator

KINDS = {"openai": "openai", "local": "openai_compatible"}
SECONDS = 60.0  # within which a batch ends whose gateway was killed once
LANES = 2  # scenes side by side: much of a run is waiting

During = Callable[[Gateway, str], bool]
"""Called with the gateway and the batch's id, again and again until it answers True."""


def mixed_lines(count: int, *, bad: int = 7, model: str | None = None) -> bytes:
    """Lines of both lanes by turns; every `bad`th is refused by whoever gets it. `model` is the last line's."""
    lines = []
    for number in range(count):
        named = ("gpt-4o-mini", "local/llama", "gpt-4.1-mini")[number % 3]
        body: dict[str, Any] = {"model": named, "messages": [{"role": "user", "content": f"Say {number}."}]}
        body["metadata"] = {"simulate": "400"} if number % bad == 0 else {"batchway_line": f"line-{number}"}
        lines.append({"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    if model:
        lines[-1]["body"]["model"] = model
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass(frozen=True)
class Run:
    """How one run went: whether the gateway died on the way, what does not hold, how long it took."""

    remains: Remains
    died: bool
    found: list[str]
    seconds: float


class Scene:
    """Runs batches one after the other."""

    def __init__(self, folder: Path, nursery: Nursery, content: bytes, during: During | None, options: Any) -> None:
        options = dict(options)
        self._settings: dict[str, Any] = options.pop("settings", {})
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._nursery = nursery
        self._content = content
        self._during = during
        self._simulator = Simulator(folder / "simulator", **{"speed": 2000, **options})
        self._runs = 0

    def close(self) -> None:
        self._simulator.close()

    def points(self) -> list[str]:
        """Every point that a run without a death passes, in order; the run itself must be a good one."""
        run = self.run(None)
        assert run.found == []
        return (self._folder / f"run-{self._runs}" / "points").read_text().splitlines()

    def run(self, die: str | None) -> Run:
        """One batch, whose gateway kills itself at the point `die`."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        native = {"api_key": "sim", "base_url": self._simulator.base_url}
        local = {**native, "kind": "openai_compatible", "models": ["llama"], "concurrency": 4}
        settings = {"poll_seconds": 0.1, "providers": {"openai": native, "local": local}} | self._settings
        gateway = Gateway(folder / "home", settings, self._nursery.fork)
        self._simulator.forget()
        started = time.monotonic()

        def mortal(config: Path, log: Path) -> Forked:
            return self._nursery.fork(config, log, points=folder / "points", die=die)

        try:
            gateway.launch(mortal)
            batch_id, died, cut_uploads = self._follow(gateway, str(die))
            seconds = time.monotonic() - started
            try:
                results = gateway.results(batch_id)
            except Away:  # it died of something that goes on behind the batch's end
                until = time.monotonic() + SECONDS
                while not gateway.dead:
                    assert time.monotonic() < until, gateway.tail()
                    time.sleep(0.02)  # somebody else's child: there is nothing else to wait on
                assert not died, gateway.tail()
                died = True
                gateway.start()
                results = gateway.results(batch_id)
        finally:
            gateway.kill()
        remains = read(gateway.database, gateway.home / "storage", batch_id)
        found = violations(remains, [self._simulator], KINDS, cut_uploads=cut_uploads)
        return Run(remains, died, found + results_violations(remains, results), seconds)

    def _follow(self, gateway: Gateway, name: str) -> tuple[str, bool, int]:
        """Uploads, creates and waits; starts the gateway again when it died.

        (Batch id, whether it died, how many uploads had to be made again.)
        """
        died, uploads = False, 0
        file_id = batch_id = status = ""
        undisturbed = self._during is not None
        until = time.monotonic() + SECONDS
        while status not in FINAL:
            assert time.monotonic() < until, f"{name}: stuck in {status!r}\n{gateway.tail()}"
            try:
                gateway.wait_ready()
                if not file_id:
                    uploads += 1
                    file_id = gateway.upload(self._content)
                batch_id = batch_id or gateway.create(file_id, idempotency_key="the-batch")
                undisturbed = undisturbed and not (self._during and self._during(gateway, batch_id))
                status = gateway.batch(batch_id)["status"]
            except Away:
                if gateway.dead:
                    assert not died, f"{name}: it died again\n{gateway.tail()}"
                    died = True
                    gateway.launch()
            time.sleep(0.03)  # another process: there is nothing to wait on
        if gateway.dead:
            gateway.start()
        return batch_id, died, uploads - 1


def first_of_each(points: Iterable[str], times: int = 1) -> list[str]:
    """The first few times of each kind of point."""
    return [point for point in points if int(point.rpartition("#")[2]) <= times]


def try_all(
    folder: Path, points: Iterable[str], *, content: bytes, during: During | None = None, **options: Any
) -> dict[str, Run]:
    """A run for each point, in lanes side by side. `options` are the simulator's, but `settings` are the gateway's."""
    waiting = iter(list(points))
    runs: dict[str, Run] = {}
    with ExitStack() as stack:
        nursery = Nursery()
        stack.callback(nursery.close)
        scenes = [Scene(folder / f"lane-{lane}", nursery, content, during, options) for lane in range(LANES)]
        for scene in scenes:
            stack.callback(scene.close)

        def work(scene: Scene) -> None:
            for point in waiting:
                runs[point] = scene.run(point)

        lanes = stack.enter_context(ThreadPoolExecutor(LANES))
        for done in [lanes.submit(work, scene) for scene in scenes]:
            done.result()
    return runs


def discover(folder: Path, *, content: bytes, during: During | None = None, **options: Any) -> list[str]:
    """The points of a run without a death."""
    nursery = Nursery()
    scene = Scene(folder / "discovery", nursery, content, during, options)
    try:
        return scene.points()
    finally:
        scene.close()
        nursery.close()


def faults(runs: dict[str, Run]) -> dict[str, list[str]]:
    """What does not hold, by the point of the death."""
    return {point: run.found for point, run in runs.items() if run.found}


def slowest(runs: dict[str, Run]) -> str:
    """The runs that took longest, and their seconds."""
    longest = sorted(runs.items(), key=lambda pair: -pair[1].seconds)[:5]
    return ", ".join(f"{point}: {run.seconds:.0f} s" for point, run in longest)


def cancels(gateway: Gateway, batch_id: str) -> bool:
    """Cancels the batch once it is in progress; True when that is done, or it has ended."""
    if gateway.batch(batch_id)["status"] == "validating":
        return False
    try:
        gateway.ask("POST", f"/v1/batches/{batch_id}/cancel")
    except Refused:
        return gateway.batch(batch_id)["status"] in FINAL
    return True
