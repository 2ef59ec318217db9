"""kill -9 of the whole gateway at random moments while it executes lines itself: no stored line is paid for again."""

from __future__ import annotations

import struct
import time

import pytest
import sqlalchemy as sa

from batchway.db.engine import driver_url
from batchway.executor.tuning import Tuning
from tests.crash.ordeal import Ordeal, chat_lines
from tests.gateway import Gateway
from tests.simulator import Simulator

FAULTS = "line=0.03,429=0.01,500=0.02,reset=0.01"
CONCURRENCY = 32
# What a kill may cost: the requests in flight, and answers that came but were not stored. Two chunks are open at a time,
# one ending and one beginning, and lines that wait for a retry keep a third.
UNSTORED = 3 * Tuning().segment_lines


class Repeats:
    """Compares, at the end, the attempts of each line with those it had when its answer was seen stored."""

    def __init__(self, gateway: Gateway, simulator: Simulator) -> None:
        self._gateway = gateway
        self._simulator = simulator
        self._stored: dict[str, int] = {}  # line -> attempts when a killed gateway had stored it

    def note(self) -> None:
        """To be called when the gateway is dead."""
        engine = sa.create_engine(driver_url(self._gateway.database))
        with engine.connect() as connection:
            packed = list(connection.scalars(sa.text("select numbers from segments where numbers is not null")))
        engine.dispose()
        stored = {f"line-{number - 1}" for numbers in packed for (number,) in struct.iter_unpack("<I", numbers)}
        attempts = self._simulator.lines()
        for name in stored - self._stored.keys():
            self._stored[name] = attempts[name][0]

    def violations(self, kills: int) -> list[str]:
        found: list[str] = []
        lines = self._simulator.lines()
        again = [name for name, attempts in self._stored.items() if lines[name][0] != attempts]
        if again:
            found.append(f"{len(again)} lines were sent again after they were stored, such as {again[:3]}")
        self.repeats = sum(answered - 1 for _, answered in lines.values() if answered > 1)
        if self.repeats > kills * (CONCURRENCY + UNSTORED):
            found.append(f"{self.repeats} answers were paid for again after {kills} kills")
        return found


def suffer(folder, *, lines: int, kills: int, seed: int, latency: float) -> Ordeal:
    simulator = Simulator(folder / "simulator", seed=seed, fail=FAULTS, latency=latency, retry_after=0.2)
    # A window that the account's own batches cannot keep: its lines are executed.
    provider = {"api_key": "sim", "base_url": simulator.base_url, "concurrency": CONCURRENCY}
    gateway = Gateway(folder / "home", {"poll_seconds": 0.2, "providers": {"openai": provider}})
    repeats = Repeats(gateway, simulator)
    ordeal = Ordeal(gateway, simulator, seed=seed, kills=kills, window="2h", each_death=repeats.note)
    try:
        ordeal.run(chat_lines(lines))
        time.sleep(latency)  # what a killed gateway had in flight is answered by now
        found = [*ordeal.violations({"openai": "openai"}), *repeats.violations(ordeal.deaths)]
        print(f"{ordeal.summary()}, {repeats.repeats} answers paid for again")
        assert found == []
        assert ordeal.deaths >= kills, "the batch ended before it was killed often enough"
    finally:
        gateway.kill()
        simulator.close()
    return ordeal


def test_no_stored_line_is_sent_again_when_the_gateway_is_killed_five_times(tmp_path):
    assert suffer(tmp_path, lines=2_000, kills=5, seed=1, latency=0.1).status == "completed"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_no_stored_line_of_ten_thousand_is_sent_again_over_twenty_kills(tmp_path, seed):
    assert suffer(tmp_path, lines=10_000, kills=22, seed=seed, latency=0.1).status == "completed"
