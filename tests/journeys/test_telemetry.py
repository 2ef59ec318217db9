"""A served gateway tells of a real batch: OtelTap, which is not ours, awaits its spans; an archive and a table too."""

from __future__ import annotations

import json
import queue
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, free_port
from tests.journeys.trips import CHAT, PATIENCE, Running, jsonl, line
from tests.simulator import Simulator

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NATIVE, EXECUTED = "openai/gpt-4o-mini", "live/gpt-4.1-nano"
SECRET = "sk-token-of-the-collector"


class Tap:
    """`oteltap` as a child; `found` is what it printed, one item of telemetry a line."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        command = [str(Path(sys.executable).parent / "oteltap"), "--port", str(self.port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.found: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert "Listening" in (self._lines.get(timeout=PATIENCE) or "")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self._lines.put(text)
        self._lines.put(None)

    def until(self, met: Callable[[dict[str, Any]], bool]) -> None:
        """Reads on until such an item came; it may have come already, since signals are sent in no order."""
        if any(met(one) for one in self.found):
            return
        deadline = time.monotonic() + PATIENCE
        while (text := self._lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            if text.startswith("{"):
                self.found.append(json.loads(text))
                if met(self.found[-1]):
                    return
        raise AssertionError(f"oteltap ended: {self.found[-3:]}")

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        spans = {
            one["spanId"]: one for one in self.found if one.get("traceId") == trace_id and "startTimeUnixNano" in one
        }
        return [one | {"attributes": attributes(one)} for one in spans.values() if "kind" in one]

    def logs(self) -> list[dict[str, Any]]:
        return [one for one in self.found if "severityText" in one]

    def metrics(self) -> set[str]:
        return {one["name"] for one in self.found if "unit" in one}

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def attributes(item: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values()), None) for one in item["attributes"]}


class Told(Running):
    """A gateway that tells; `tap` keeps all, `judge` ends with 0 once it has the root span."""

    tap: Tap
    judge: Tap


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("telemetry")
    with ExitStack() as stack:
        simulator = stack.enter_context(closing(Simulator(folder / "sim", speed=3000)))
        tap = stack.enter_context(closing(Tap()))
        judge = stack.enter_context(closing(Tap("--await-span", f"^batch {CHAT}$")))
        account = {"api_key": "sim", "base_url": simulator.base_url}
        settings = {
            "poll_seconds": 0.1,
            "providers": {
                "openai": {"kind": "openai", **account},
                "live": {"kind": "openai_compatible", "models": ["gpt-4.1-nano"], **account},
            },
            "receivers": [
                {"kind": "otlp", "endpoint": tap.url, "headers": {"authorization": SECRET}, "lines": True},
                {"kind": "otlp", "name": "judge", "endpoint": judge.url, "signals": ["traces"]},
                {"kind": "langfuse", "host": "http://127.0.0.1:9", "public_key": "pk", "secret_key": SECRET},
                {"kind": "archive", "url": str(folder / "archive"), "lines": True},
                {"kind": "sql", "url": f"sqlite:///{folder}/events.db"},
            ],
        }  # fmt: skip
        gateway = Gateway(folder / "home", settings)
        stack.callback(gateway.kill)
        gateway.start()
        made = Told(gateway, {"openai": simulator})
        made.tap, made.judge = tap, judge
        yield made


@pytest.fixture(scope="module")
def batch(told: Told) -> dict[str, Any]:
    """A batch of two lanes, of which all is told."""
    content = jsonl(line(number, (NATIVE, EXECUTED)[number % 2]) for number in range(8))
    wanted = {"input_file_id": told.upload(content), "endpoint": CHAT, "completion_window": "24h",
              "metadata": {"team": "research", "session_id": "s-1"}}  # fmt: skip
    made = told.ask("POST", "/v1/batches", wanted, traceparent=CALLER).json
    ended = told.wait(made["id"])
    assert ended["status"] == "completed", ended
    told.tap.until(lambda one: one.get("name") == f"batch {CHAT}")
    told.tap.until(lambda one: one.get("name") == "batchway.batches")
    return ended


def test_oteltap_awaits_the_span_of_the_batch(told: Told, batch: dict[str, Any]) -> None:
    assert told.judge.process.wait(PATIENCE) == 0


@pytest.fixture
def root(told: Told, batch: dict[str, Any]) -> dict[str, Any]:
    """The span of the whole batch."""
    found = next(one for one in told.tap.found if one.get("name") == f"batch {CHAT}")
    return found | {"attributes": attributes(found)}


@pytest.fixture
def spans(told: Told, root: dict[str, Any]) -> list[dict[str, Any]]:
    return told.tap.spans(root["traceId"])


def of_kind(spans: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The attributes of the spans of this kind."""
    return [one["attributes"] for one in spans if one["attributes"].get("batchway.span") == kind]


def test_a_batch_of_two_lanes_is_one_trace(root: dict[str, Any], spans: list[dict[str, Any]]) -> None:
    assert {"validate", "queue", "collect", "account", "chunk"} <= {one["name"] for one in spans}
    by_id = {one["spanId"]: one for one in spans}
    assert all(one["parentSpanId"] in by_id for one in spans if one["spanId"] != root["spanId"])
    assert {one["batchway.job.lane"] for one in of_kind(spans, "job")} == {"native", "executed"}
    lines = of_kind(spans, "line")
    assert sorted(one["batchway.line.custom_id"] for one in lines) == [f"row-{number}" for number in range(8)]
    assert {one["gen_ai.request.model"] for one in lines} == {"gpt-4o-mini", "gpt-4.1-nano"}


def test_the_trace_is_linked_to_the_callers(root: dict[str, Any]) -> None:
    assert [(one["traceId"], one["spanId"]) for one in root["links"]] == [tuple(CALLER.split("-")[1:3])]
    assert root["traceId"] != CALLER.split("-")[1]


def test_tokens_and_amounts_of_the_spans_are_those_of_the_batch(
    batch: dict[str, Any], root: dict[str, Any], spans: list[dict[str, Any]]
) -> None:
    lines = of_kind(spans, "line")
    counted = sum(int(one["gen_ai.usage.input_tokens"]) for one in lines)
    assert counted == batch["usage"]["input_tokens"] == int(root["attributes"]["batchway.usage.input_tokens"])
    (native,) = [one for one in of_kind(spans, "job") if one["batchway.job.lane"] == "native"]
    amounts = [float(one["gen_ai.usage.cost"]) for one in lines if one["batchway.job.id"] == native["batchway.job.id"]]
    assert len(amounts) == 4
    assert sum(amounts) == pytest.approx(float(native["batchway.amount_usd"]))
    assert not any("gen_ai.usage.cost" in one for one in of_kind(spans, "job"))


def test_every_event_is_logged_in_the_trace(told: Told, batch: dict[str, Any]) -> None:
    kept = told.rows("select id, type from outbox where subject = :s order by seq", s=batch["id"])
    logged = [one for one in told.tap.logs() if attributes(one)["batchway.subject"] == batch["id"]]
    assert [attributes(one)["batchway.event.id"] for one in logged] == [row["id"] for row in kept]
    assert len({one["traceId"] for one in logged}) == 1


def test_metrics_come_along(told: Told, batch: dict[str, Any]) -> None:
    wanted = {
        "batchway.tokens",
        "batchway.amount",
        "batchway.lines",
        "batchway.batch.duration",
        "gen_ai.client.token.usage",
    }
    assert wanted <= told.tap.metrics()


def test_the_archive_and_the_table_have_every_event_once(told: Told, batch: dict[str, Any]) -> None:
    home = told.gateway.home.parent
    wanted = [row["id"] for row in told.rows("select id from outbox order by seq")]

    def archived() -> list[str]:
        objects = sorted((home / "archive" / "events").rglob("*.jsonl"))
        return [json.loads(text)["id"] for path in objects for text in path.read_text().splitlines()]

    def tabled() -> list[str]:
        with closing(sqlite3.connect(home / "events.db")) as database:
            return [row[0] for row in database.execute("select id from batchway_events order by position")]

    told.until(batch["id"], lambda _: archived() == wanted == tabled())
    lines = list((home / "archive" / "lines").rglob("*.jsonl"))
    assert sum(len(path.read_text().splitlines()) for path in lines) == 8


def test_the_log_names_the_receiver_that_fails_and_no_secret(told: Told, batch: dict[str, Any]) -> None:
    log = told.gateway.log.read_text()
    assert "langfuse" in log
    assert SECRET not in log
