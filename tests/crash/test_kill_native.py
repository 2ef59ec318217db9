"""kill -9 of the whole gateway at random moments while a provider's batches run: nothing lost, doubled or unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.ordeal import Ordeal, chat_lines
from tests.gateway import Gateway
from tests.simulator import Simulator

FAULTS = "line=0.03,429=0.04,500=0.04,reset=0.03,truncate=0.1,accept_then_500=0.4,accept_then_reset=0.2"


def suffer(folder: Path, *, lines: int, jobs: int, kills: int, seed: int) -> Ordeal:
    simulator = Simulator(folder / "simulator", seed=seed, fail=FAULTS)
    gateway = Gateway(
        folder / "home",
        {
            "poll_seconds": 0.2,
            "providers": {"openai": {"api_key": "sim", "base_url": simulator.base_url, "max_lines": -(-lines // jobs)}},
        },
    )
    ordeal = Ordeal(gateway, simulator, seed=seed, kills=kills)
    # The provider's clock stands nearly still by itself: each life of the gateway sees one part of the jobs' time.
    ordeal.each_life = lambda: simulator.advance(1000 / kills)
    try:
        ordeal.run(chat_lines(lines))
        assert ordeal.violations({"openai": "openai"}) == []
        assert ordeal.deaths >= kills
        print(ordeal.summary())
    finally:
        gateway.kill()
        simulator.close()
    return ordeal


def test_no_line_is_lost_and_no_job_doubled_when_the_gateway_is_killed_five_times(tmp_path):
    ordeal = suffer(tmp_path, lines=2_000, jobs=5, kills=5, seed=1)
    assert ordeal.status == "completed"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_no_line_of_ten_thousand_is_lost_over_twenty_kills(tmp_path, seed):
    ordeal = suffer(tmp_path, lines=10_000, jobs=20, kills=22, seed=seed)
    assert ordeal.status == "completed"
