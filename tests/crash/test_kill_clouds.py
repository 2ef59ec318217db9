"""kill -9 of the gateway while jobs run at the other clouds: nothing lost, doubled or unknown there either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash.ordeal import Ordeal, chat_lines
from tests.gateway import Gateway
from tests.simulator import Simulator, VertexSimulator

FAULTS = "line=0.03,429=0.04,500=0.04,reset=0.03,accept_then_500=0.4,accept_then_reset=0.2"

JOB_SECONDS = {"azure": 900.0, "vertex": 600.0}  # virtual, what the kills are spread over


def azure(folder: Path, seed: int) -> tuple[Simulator, dict[str, Any], tuple[str, str]]:
    simulator = Simulator(folder / "simulator", kind="azure", seed=seed, fail=FAULTS)
    deployments = ("gpt-4o-mini", "gpt-4.1-mini")  # named as their base models
    return simulator, {"endpoint": simulator.root, "api_key": "sim", "deployments": list(deployments)}, deployments


def vertex(folder: Path, seed: int) -> tuple[Simulator, dict[str, Any], tuple[str, str]]:
    simulator = VertexSimulator(folder / "simulator", seed=seed, fail=FAULTS)
    place = {"project": "p", "location": "us-central1", "bucket": "gs://batches/staging", "access_token": "sim"}
    models = ("gemini-2.5-flash", "gemini-2.5-pro")
    return simulator, {**place, "base_url": simulator.root, "storage_url": simulator.root}, models


def suffer(folder: Path, cloud: str, *, lines: int, kills: int, seed: int) -> None:
    simulator, entry, models = {"azure": azure, "vertex": vertex}[cloud](folder, seed)
    settings = {"poll_seconds": 0.2, "providers": {cloud: {**entry, "max_lines": lines // 8}}}
    gateway = Gateway(folder / "home", settings)
    ordeal = Ordeal(gateway, simulator, seed=seed, kills=kills)
    # The provider's clock stands nearly still by itself: each life of the gateway sees one part of the jobs' time.
    ordeal.each_life = lambda: simulator.advance(JOB_SECONDS[cloud] / kills)
    try:
        ordeal.run(chat_lines(lines, [f"{cloud}/{model}" for model in models]))
        assert ordeal.violations({cloud: cloud}) == []
        assert ordeal.deaths >= kills
        assert ordeal.status == "completed"
        print(ordeal.summary())
    finally:
        gateway.kill()
        simulator.close()


@pytest.mark.parametrize("cloud", ["azure", "vertex"])
def test_a_cloud_keeps_every_promise_when_the_gateway_is_killed(tmp_path: Path, cloud: str) -> None:
    suffer(tmp_path, cloud, lines=2_048, kills=4, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [21, 22])
@pytest.mark.parametrize("cloud", ["azure", "vertex"])
def test_a_cloud_keeps_every_promise_over_twenty_kills(tmp_path: Path, cloud: str, seed: int) -> None:
    suffer(tmp_path, cloud, lines=10_240, kills=22, seed=seed)
