"""kill -9 and outages of a receiver, again and again: every event is told, in order, and repeats carry the same id."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchway.db.engine import driver_url
from tests.crash.nursery import Forked, Nursery
from tests.crash.ordeal import chat_lines
from tests.gateway import FINAL, Away, Gateway, Refused
from tests.postgres import Postgres
from tests.simulator import Simulator

ROOT = Path(__file__).parents[2]
HOOK = "tests.crash.telling_hook:Notebook"
PATIENCE = 120.0  # seconds without any progress
POINTS = ("told", "before db notify._place #1", "told", "after db notify._place #1", "told")
FAULTS = "line=0.1,500=0.05"


@dataclass
class Told:
    """Some batches, gateways that are killed, and a receiver that is away now and then."""

    folder: Path
    gateways: list[Gateway]
    simulator: Simulator
    seed: int
    batches: dict[str, str] = field(default_factory=dict)

    def run(self, batches: int, kills: int) -> None:
        chance = random.Random(self.seed)
        for gateway in self.gateways:
            gateway.launch()
        for gateway in self.gateways:
            gateway.wait_ready()
        for number in range(kills):
            self.create(-(-batches // kills))
            self.live(chance.uniform(0.2, 1.5))
            (self.folder / "down").touch() if number % 2 else (self.folder / "down").unlink(missing_ok=True)
            victim = chance.choice(self.gateways)
            victim.kill()
            victim.launch()
            victim.wait_ready()
        (self.folder / "down").unlink(missing_ok=True)
        self.end()

    def end(self) -> None:
        """Until every batch has ended and everything is told."""
        self.live(PATIENCE, until=self.ended)
        assert self.ended(), f"stuck: {self.batches}\n{self.gateways[-1].tail()}"
        self.until_told()

    def ended(self) -> bool:
        return all(status in FINAL for status in self.batches.values())

    def create(self, count: int) -> None:
        for _ in range(count):
            file_id = self.gateways[0].upload(chat_lines(5, ("gpt-4o-mini",)))
            self.batches[self.gateways[0].create(file_id)] = ""

    def live(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Lets the batches go on for so long, or until then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            self.simulator.advance(60)
            with suppress(Away, Refused):
                for batch_id in [one for one, status in self.batches.items() if status not in FINAL]:
                    self.batches[batch_id] = self.gateways[-1].batch(batch_id)["status"]
            time.sleep(0.05)  # other processes: there is nothing to wait on

    def until_told(self) -> None:
        """Until nobody is behind."""
        until = time.monotonic() + PATIENCE
        behind: Any = None
        while time.monotonic() < until:
            behind = self.gateways[0].ask("GET", "/v1/receivers")["data"]
            if all(one["behind"] == 0 for one in behind):
                return
            time.sleep(0.05)
        raise AssertionError(f"never told: {behind}\n{self.gateways[0].tail()}")

    def stored(self) -> list[dict[str, Any]]:
        """The outbox, in the order of its positions."""
        engine = sa.create_engine(driver_url(self.gateways[0].database))
        with engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(sa.text("select * from outbox order by seq")).mappings()]
        engine.dispose()
        return sorted(rows, key=lambda row: row["position"])

    def heard(self) -> list[dict[str, Any]]:
        """What the receiver was told; a line that a kill cut off was not."""
        lines = (self.folder / "heard.jsonl").read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]

    def violations(self) -> list[str]:
        stored, heard = self.stored(), self.heard()
        found: list[str] = []
        if [row["position"] for row in stored] != list(range(1, len(stored) + 1)):
            found.append("positions have gaps")
        first: dict[str, dict[str, Any]] = {}
        other = [event["id"] for event in heard if first.setdefault(event["id"], event) != event]
        found += [f"a repeat of {event_id} tells something else" for event_id in other]
        if missing := {row["id"] for row in stored} - set(first):
            found.append(f"{len(missing)} events were never told")
        elif list(first) != [row["id"] for row in stored]:
            found.append("told in another order than stored")
        by_batch: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for told in first.values():
            by_batch[told["subject"]].append(told)
        for batch_id, status in self.batches.items():
            calls = [event["data"].get("call_type") for event in by_batch[batch_id]]
            wanted = ["acreate_batch", "batch_success"] if status == "completed" else ["acreate_batch"]
            if [call for call in calls if call] != wanted:
                found.append(f"{batch_id} ({status}) was told as {calls}")
            if not by_batch[batch_id] or by_batch[batch_id][-1]["type"] != f"batch.{status}":
                found.append(f"{batch_id}: its end is not told last")
        return found

    def summary(self) -> str:
        heard, stored = len(self.heard()), len(self.stored())
        kills = sum(gateway.kills for gateway in self.gateways)
        return f"{kills} kills, {len(self.batches)} batches, {stored} events, {heard - stored} told again"


@contextmanager
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch, *, seed: int, database: str | None = None) -> Generator[Told]:
    monkeypatch.setenv("TELLING_FOLDER", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ExitStack() as stack:
        simulator = Simulator(folder / "simulator", seed=seed, fail=FAULTS)
        stack.callback(simulator.close)
        settings: dict[str, Any] = {
            "poll_seconds": 0.1,
            "providers": {"openai": {"api_key": "sim", "base_url": simulator.base_url}},
            "receivers": [{"kind": "python", "path": HOOK, "from": "start"}],
        }
        if database:
            settings |= {"database_url": database, "storage_url": f"file://{folder / 'storage'}"}
        names = ("one", "two") if database else ("one",)
        gateways = [Gateway(folder / name / "home", settings, name=name) for name in names]
        for gateway in gateways:
            stack.callback(gateway.kill)
        yield Told(folder, gateways, simulator, seed)


def suffer(told: Told, batches: int, kills: int) -> None:
    told.run(batches, kills)
    assert told.violations() == []
    print(told.summary())


def test_every_event_is_told_in_order_over_four_kills_and_two_outages(tmp_path, monkeypatch):
    with opened(tmp_path, monkeypatch, seed=1) as told:
        suffer(told, batches=8, kills=4)


def test_a_death_between_the_telling_and_its_note_repeats_and_one_before_the_placing_loses_nothing(
    tmp_path, monkeypatch
):
    with opened(tmp_path, monkeypatch, seed=2) as told, closing(Nursery()) as nursery:
        (gateway,) = told.gateways
        (tmp_path / "down").touch()
        gateway.start()
        told.create(10)
        told.live(PATIENCE, until=told.ended)
        (tmp_path / "down").unlink()
        for point in POINTS:
            gateway.kill()

            def mortal(config: Path, log: Path, point: str = point) -> Forked:
                return nursery.fork(config, log, die=point)

            if point == "told":
                (tmp_path / "die").touch()
            gateway.launch(mortal)
            with suppress(Away):
                gateway.wait_ready()
                told.create(1)  # so that something happens when all is told
            told.live(PATIENCE, until=lambda: gateway.dead)
            assert gateway.dead, f"it never reached {point}"
        gateway.start()
        told.end()
        assert told.violations() == []
        assert len(told.heard()) >= len(told.stored()) + POINTS.count("told")
        print(told.summary())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [21, 22])
def test_every_event_is_told_in_order_over_thirty_kills(tmp_path, monkeypatch, seed):
    with opened(tmp_path, monkeypatch, seed=seed) as told:
        suffer(told, batches=60, kills=30)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_of_two_processes_another_tells_when_one_is_killed(tmp_path, monkeypatch, postgres: Postgres):
    with opened(tmp_path, monkeypatch, seed=31, database=postgres.fresh()) as told:
        suffer(told, batches=20, kills=8)
