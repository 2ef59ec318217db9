"""kill -9 of the whole gateway at random moments while it executes lines itself: no stored line is paid for again."""

from __future__ import annotations

import time

import pytest

from batchway.executor.tuning import Tuning
from tests.crash.ordeal import Ordeal, chat_lines
from tests.crash.repeats import Repeats
from tests.gateway import Gateway
from tests.simulator import Simulator

FAULTS = "line=0.03,429=0.01,500=0.02,reset=0.01"
CONCURRENCY = 32
# What a kill may cost: the requests in flight, and answers that came but were not stored. Two chunks are open at a
# time, one ending and one beginning, and lines that wait for a retry keep a third.
UNSTORED = 3 * Tuning().segment_lines


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
        bound = ordeal.deaths * (CONCURRENCY + UNSTORED)
        found = [*ordeal.violations({"openai": "openai"}), *repeats.violations(bound)]
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
