"""A large job is priced while clients ask: nobody waits, memory stays flat, and the sum is exact."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from batchway.billing.prices import Prices
from batchway.core.usage import Usage
from tests.journeys.account_gateway import tokens
from tests.journeys.serving import MASTER

ROOT = Path(__file__).resolve().parents[2]
LONGEST_WAIT = 0.5  # seconds: a bound that a busy machine keeps too; the figures are told
MOST_GROWN = 20 << 20


class Asker(threading.Thread):
    """Gets the batch again and again on one connection; `waits` in seconds, while `counting`."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.over = threading.Event()
        self.counting = threading.Event()
        self.waits: list[float] = []

    def run(self) -> None:
        while not self.over.is_set():
            counted, began = self.counting.is_set(), time.perf_counter()
            self.connection.request("GET", "/v1/batches/batch_1", headers={"authorization": f"Bearer {MASTER}"})
            answer = self.connection.getresponse()
            assert json.loads(answer.read())["id"] == "batch_1"
            if counted:
                self.waits.append(time.perf_counter() - began)
            self.over.wait(0.005)  # a client's pace
        self.connection.close()


def priced(home: Path, count: int) -> tuple[dict[str, Any], list[float]]:
    """What the gateway said of the stage, and how long each GET meanwhile took."""
    command = [sys.executable, "-m", "tests.journeys.account_gateway", str(home), str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as gateway:
        try:
            asker = Asker(json.loads(gateway.stdout.readline())["port"])
            asker.start()
            asker.counting.set()
            gateway.stdin.write("go\n")
            gateway.stdin.flush()
            told = json.loads(gateway.stdout.readline())
            asker.over.set()
            asker.join()
        finally:
            gateway.communicate("end\n", timeout=60)
    assert gateway.returncode == 0
    return told, asker.waits


@pytest.mark.parametrize("count", [50_000, pytest.param(500_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_pricing_many_lines_keeps_no_client_waiting_and_holds_none_of_them(tmp_path: Path, count: int) -> None:
    told, waits = priced(tmp_path, count)
    price = Prices().price("openai", "gpt-4o-mini", "native", time.time())
    spent = [Usage(input_tokens=i, output_tokens=o) for i, o in map(tokens, range(1, count + 1))]
    assert told["amount"] == sum(price.amount(one) for one in spent)
    assert told["usage"]["output_tokens"] == sum(one.output_tokens for one in spent)
    centiles = statistics.quantiles(waits, n=100)
    print(
        f"{count} lines: {count / told['seconds']:.0f} lines/s, {count / told['cpu']:.0f} lines a CPU second, "
        f"grown by {told['grown'] / 1e6:.1f} MB; {len(waits)} GETs: p50 {centiles[49] * 1000:.1f} ms, "
        f"p99 {centiles[98] * 1000:.1f} ms, longest {max(waits) * 1000:.1f} ms"
    )
    assert max(waits) < LONGEST_WAIT
    assert told["grown"] < MOST_GROWN
