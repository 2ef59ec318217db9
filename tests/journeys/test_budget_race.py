"""200 creates at once over real HTTP against a budget that has room for 50: exactly 50 are accepted.

On SQLite, and on PostgreSQL with four processes that share it. When the 50 have ended the remainder is exact.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchway.db import budgets
from batchway.db.engine import Database
from tests.crash.ordeal import chat_lines
from tests.gateway import FINAL, Gateway
from tests.simulator import Simulator

ROOM, ASKED = 50, 200
SECONDS = 90.0
CHAT = "/v1/chat/completions"


class Race:
    """Gateways that share one store, and a key whose budget is for `ROOM` batches of one file."""

    def __init__(self, gateways: list[Gateway]) -> None:
        self.gateways = gateways
        self.ask = gateways[0].ask
        probe = self._key("1000")
        self.file_id = gateways[0].upload(chat_lines(2, ("gpt-4o-mini",)), authorization=f"Bearer {probe['key']}")
        self._create(gateways[0], probe)
        self.one = Decimal(self.budget(probe)["held_usd"])
        self.amount = self.one * ROOM + self.one / 2
        self.key = self._key(f"{self.amount:f}")

    def _key(self, usd: str) -> dict[str, Any]:
        budget = {"usd": usd, "period": "total"}
        return self.ask("POST", "/v1/keys", {"name": "racer", "project": "race", "budget": budget})

    def _create(self, gateway: Gateway, key: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        wanted = {"input_file_id": self.file_id, "endpoint": CHAT, "completion_window": "24h"}
        headers = {"authorization": f"Bearer {key['key']}", "content-type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        try:
            connection.request("POST", "/v1/batches", json.dumps(wanted), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), dict(answer.getheaders())
        finally:
            connection.close()

    def run(self) -> list[tuple[int, Any, dict[str, str]]]:
        """All creates, as nearly at one moment as threads can."""
        together = threading.Barrier(ASKED)

        def one(number: int) -> tuple[int, Any, dict[str, str]]:
            together.wait(60)
            return self._create(self.gateways[number % len(self.gateways)], self.key)

        with ThreadPoolExecutor(ASKED) as pool:
            return list(pool.map(one, range(ASKED)))

    def budget(self, key: dict[str, Any]) -> dict[str, Any]:
        return self.ask("GET", f"/v1/keys/{key['id']}")["budget"]

    def ended(self, ids: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        until = time.monotonic() + SECONDS
        for batch_id in ids:
            while (batch := self.ask("GET", f"/v1/batches/{batch_id}"))["status"] not in FINAL:
                assert time.monotonic() < until, batch
                time.sleep(0.05)  # another process: there is nothing to wait on
            found.append(batch)
        return found


def judge(race: Race) -> None:
    answers = race.run()
    accepted = [body["id"] for status, body, _ in answers if status == 200]
    refused = [(status, body["error"], headers) for status, body, headers in answers if status != 200]
    assert len(accepted) == ROOM
    assert {(status, error["code"], error["type"]) for status, error, _ in refused} == {
        (429, "insufficient_quota", "insufficient_quota")
    }
    assert {headers["x-should-retry"] for *_, headers in refused} == {"false"}
    batches = race.ended(accepted)
    assert {batch["status"] for batch in batches} == {"completed"}
    settled = sum(Decimal(batch["batchway"]["amount_usd"]) for batch in batches)
    shown = race.budget(race.key)
    assert settled > 0
    assert (Decimal(shown["held_usd"]), Decimal(shown["settled_usd"])) == (0, settled)
    assert Decimal(shown["remaining_usd"]) == race.amount - settled
    database = Database(race.gateways[0].database)
    try:
        assert database.write_now(budgets.check) == []
    finally:
        database.close()


def launched(stack: ExitStack, folder: Path, count: int, shared: dict[str, Any]) -> list[Gateway]:
    simulator = Simulator(folder / "simulator", speed=5000)
    stack.callback(simulator.close)
    providers = {"openai": {"api_key": "sim", "base_url": simulator.base_url}}
    settings = {"poll_seconds": 0.2, "providers": providers, **shared}
    gateways = [Gateway(folder / f"home-{at}", settings, name=f"gateway-{at}") for at in range(count)]
    for gateway in gateways:
        stack.callback(gateway.kill)
        gateway.launch()
    for gateway in gateways:
        gateway.wait_ready()
    return gateways


def test_on_sqlite_exactly_as_many_are_accepted_as_there_is_money_for(tmp_path: Path) -> None:
    with ExitStack() as stack:
        judge(Race(launched(stack, tmp_path, 1, {})))


@pytest.mark.postgres
def test_on_postgresql_four_processes_accept_exactly_as_many(tmp_path: Path, postgres: Any) -> None:
    with ExitStack() as stack:
        shared = {"database_url": postgres.fresh(), "storage_url": f"file://{tmp_path / 'storage'}"}
        judge(Race(launched(stack, tmp_path, 4, shared)))
