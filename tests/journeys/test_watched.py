"""A gateway as its operator sees it: its log and its metrics while batches meet faults, read by a real Prometheus."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway import Gateway, free_port
from tests.journeys.serving import serving
from tests.journeys.trips import Running, jsonl, line
from tests.prometheus import ROOT, prometheus
from tests.simulator import Simulator

__all__ = ["prometheus"]

CANARIES = {
    "body": "canary-in-a-prompt",
    "provider": "sk-canary-of-a-provider",
    "key": "sk-bw-canary-of-a-client",
    "query": "canary-in-a-query",
    "master": "canary-of-the-master",
}
MASTER = "sk-master-of-the-tests"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that logs all it has to tell, as JSON, after two batches that met faults."""
    folder = tmp_path_factory.mktemp("watched")
    with closing(Simulator(folder / "sim", speed=3000, seed=5)) as simulator:
        account = {"api_key": CANARIES["provider"], "base_url": simulator.base_url}
        providers = {
            "native": {"kind": "openai", **account},
            "live": {"kind": "openai_compatible", **account, "models": ["gpt-4.1-nano"], "concurrency": 4},
            "gone": {"kind": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "models": ["nobody"]},
        }
        names = {"fast": ["native/gpt-4o-mini"], "lively": ["live/gpt-4.1-nano"], "lost": ["gone/nobody"]}
        settings = {"poll_seconds": 0.1, "providers": providers, "models": names}
        gateway = Gateway(folder / "home", {**settings, "log_level": "debug", "log_format": "json"})
        gateway.start()
        made = Running(gateway, {"sim": simulator})
        try:
            simulator.faults("429=0.2,500=0.2,reset=0.1")
            made.batches = trouble(made)  # type: ignore[attr-defined] - for the tests below
            yield made
        finally:
            gateway.kill()


def trouble(made: Running) -> list[str]:
    """Requests and batches of many ends; the ids of the batches."""
    for path in ("/v1/forged%0A%1b[2J", f"/v1/files?purpose={CANARIES['query']}", "/v1/batches/batch_nothing"):
        made.ask("GET", path)
    made.ask("GET", "/v1/files", key=CANARIES["key"])
    made.ask("POST", "/v1/batches", {"input_file_id": CANARIES["body"]})
    made.served.upload(b'{"custom_id": "' + CANARIES["body"].encode() + b'" broken', purpose="batch")
    prompt = {"messages": [{"role": "user", "content": CANARIES["body"]}]}
    mixed = [line(number, ("fast", "lively")[number % 2], **prompt) for number in range(60)]
    refused = [line(100, "fast", simulate="400", **prompt), line(101, "lively", simulate="400", **prompt)]
    ended = made.run(jsonl([*mixed, *refused]))
    assert ended["status"] == "completed", made.gateway.tail()
    lost = made.run(jsonl([line(number, "lost", **prompt) for number in range(3)]))
    broken = made.run(jsonl([line(1, "no-such-model", **prompt)]))
    assert (lost["status"], broken["status"]) == ("completed", "failed")
    return [ended["id"], lost["id"], broken["id"]]


def logged(made: Running) -> list[dict[str, Any]]:
    lines = made.gateway.log.read_text().splitlines()
    return [json.loads(text) for text in lines if not text.startswith("Batchway is running")]


def scrape(made: Running) -> str:
    answer = made.ask("GET", "/metrics")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.body.decode()


# The log --------------------------------------------------------------------------------------------------------------


def test_every_line_is_one_event_in_json(running: Running):
    lines = logged(running)
    assert len(lines) > 50
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert {found["logger"].partition(".")[0] for found in lines} == {"batchway"}


def test_every_line_of_a_request_has_its_id_and_its_keys(running: Running):
    lines = [found for found in logged(running) if found["logger"] == "batchway.access"]
    assert all(found["request_id"] and found["status"] and found["path"] for found in lines)
    assert {found.get("key_id") for found in lines} == {"master", "", None}  # none: it was not let in, or no route
    (named,) = [found for found in lines if found["path"] == "/v1/batches/batch_nothing"]
    assert (named["status"], named["batch_id"]) == (404, "batch_nothing")
    assert [
        found for found in lines if found["method"] == "POST" and found["path"] == "/v1/batches" and "batch_id" in found
    ]


def test_every_line_of_a_batchs_trip_has_its_id(running: Running):
    ended, lost, broken = running.batches  # type: ignore[attr-defined]
    jobs = {job["id"]: of for of in (ended, lost) for job in running.batch(of)["batchway"]["jobs"]}
    lines = [found for found in logged(running) if found["logger"] != "batchway.access"]
    for found in lines:
        about = {of for job, of in jobs.items() if job in json.dumps(found)}
        about |= {of for of in (ended, lost, broken) if of in json.dumps(found)}
        assert about <= {found.get("batch_id")}, found
    steps = {of: {found["message"] for found in lines if found.get("batch_id") == of} for of in (ended, lost, broken)}
    assert {"prepare begins", "settle is done", "finish is done"} <= steps[ended] & steps[lost]
    assert "prepare is done" in steps[broken]
    assert {found["job_id"] for found in lines if found["message"] == "settle is done"} == set(jobs)
    assert [found for found in lines if found["logger"] == "batchway.http" and found.get("job_id") in jobs], "no fault"


def test_no_line_holds_a_body_a_key_or_a_query(running: Running):
    text = running.gateway.log.read_text()
    assert [name for name, canary in CANARIES.items() if canary in text] == []
    assert MASTER not in text
    assert "prompt" not in text.lower()


# The metrics ----------------------------------------------------------------------------------------------------------


def test_promtool_finds_nothing_to_say_about_a_live_scrape(running: Running, prometheus: dict[str, str]):
    command = [prometheus["promtool"], "check", "metrics"]
    done = subprocess.run(command, input=scrape(running), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_happened_is_counted(running: Running):
    batch = running.batch(running.batches[0])  # type: ignore[attr-defined]
    deadline = time.monotonic() + PATIENCE
    while True:  # the database is read every 5 seconds
        samples = list(found(scrape(running)))
        total = {name: sum(value for each, _, value in samples if each == name) for name, _, _ in samples}
        if total.get("batchway_lines_total", 0) >= 60 or time.monotonic() > deadline:
            break
        time.sleep(0.2)

    def of(name: str, **labels: str) -> float:
        return sum(v for each, has, v in samples if each == f"batchway_{name}" and labels.items() <= has.items())

    assert of("batches_ended_total", state="completed") == 2
    assert of("batches_ended_total", state="failed") == 1
    assert of("lines_total", lane="native") == 30
    assert of("lines_total", lane="executed") == 30
    assert of("tokens_total", type="input") == batch["usage"]["input_tokens"]
    assert of("amount_dollars", lane="native") > 0
    assert of("unpriced_entries_total", lane="executed") == 1  # nobody said what that server's tokens are worth
    assert of("provider_call_seconds_count", account="native", operation="submit", outcome="ok") == 1
    assert of("executor_request_seconds_count", account="live", outcome="ok") == 30
    assert of("executor_request_seconds_count", account="live", outcome="refused") == 1
    assert of("executor_request_seconds_count", account="gone", outcome="unheard") > 3
    assert of("executor_wait_seconds_count", account="live") >= 31
    assert of("executor_limit", account="live") >= 1
    assert of("throttled_total") + of("provider_repeats_total") + of("executor_repeats_total") > 0
    assert of("http_requests_total", route="/v1/batches/{batch_id}", method="GET", status="4xx") == 1
    assert of("http_requests_total", route="other", status="4xx") == 1
    assert of("http_request_seconds_count", route="/v1/files") >= 4
    assert of("http_received_bytes_total") > 1000
    assert of("engine_alive") == 1
    assert 0 <= of("engine_beat_age_seconds") < 15
    assert of("batch_first_result_seconds_count") == 2
    assert of("database_write_seconds_count") > 10
    assert of("holds_open") == 0


def found(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        yield from ((sample.name, sample.labels, sample.value) for sample in family.samples)


def test_labels_hold_no_id_and_no_secret(running: Running):
    text = scrape(running)
    assert [name for name, canary in CANARIES.items() if canary in text] == []
    assert not [word for word in ("batch_", "job_", "file-", "key_", "sk-") if f'="{word}' in text]


def test_a_scrape_needs_an_admin(running: Running):
    assert running.ask("GET", "/metrics", key=None).status == 401
    key = running.ask("POST", "/v1/keys", {"name": "reader", "project": "p", "scopes": ["read"]}).json["key"]
    assert running.ask("GET", "/metrics", key=key).status == 403


def test_a_scrape_needs_no_key_where_the_settings_say_so(tmp_path: Path):
    with serving(tmp_path, metrics_open=True) as served:
        assert served.ask("GET", "/metrics", key=None).status == 200
        assert served.ask("GET", "/v1/keys", key=None).status == 401


# Prometheus -----------------------------------------------------------------------------------------------------------


def test_a_real_prometheus_scrapes_it_and_knows_the_alerts(
    running: Running, prometheus: dict[str, str], tmp_path: Path
):
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{running.gateway.port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "alerts.yml").write_text((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    (tmp_path / "batchway.key").write_text(MASTER)
    port = free_port()
    command = [
        *(prometheus["prometheus"], f"--config.file={tmp_path / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    ]
    with (tmp_path / "log").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:

        def ask(path: str, **query: str) -> Any:
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]

        def value(expression: str) -> float:
            results = ask("query", query=expression)["result"]
            return float(results[0]["value"][1]) if results else 0.0

        eventually(lambda: value('up{job="batchway"}') == 1, process, tmp_path / "log")
        eventually(lambda: value("sum(batchway_lines_total)") == 60, process, tmp_path / "log")
        assert value('sum(batchway_batches_ended_total{state="completed"})') == 2
        names = [rule["name"] for group in ask("rules")["groups"] for rule in group["rules"]]
        assert len(names) == len(yaml.safe_load((tmp_path / "alerts.yml").read_text())["groups"][0]["rules"])
        assert {rule["health"] for group in ask("rules")["groups"] for rule in group["rules"]} <= {"ok", "unknown"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def eventually(met: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if met():
                return
        except OSError:
            pass  # it does not listen yet
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)  # another process


@pytest.mark.postgres
def test_a_process_without_the_api_serves_its_metrics_on_a_port_of_their_own(postgres: Any, tmp_path: Path):
    port = free_port()
    settings = {
        "database_url": postgres.fresh(),
        "roles": ["worker", "poller", "housekeeping"],
        "metrics_port": port,
        "log_format": "json",
    }
    gateway = Gateway(tmp_path / "home", settings)
    try:
        gateway.start()
        gateway.port = port
        text = gateway.ask("GET", "/metrics").decode()
        assert "batchway_engine_alive 1.0" in text
        assert gateway.ask("GET", "/health/ready")["status"] == "ok"
        with pytest.raises(Exception, match="404"):
            gateway.ask("GET", "/v1/files")
        assert not (tmp_path / "home" / "server.json").exists()
        os.kill(gateway.process.pid, signal.SIGTERM)
        eventually_ended = time.monotonic() + PATIENCE
        while not gateway.dead:
            assert time.monotonic() < eventually_ended, gateway.tail()
            time.sleep(0.05)
    finally:
        gateway.kill()
