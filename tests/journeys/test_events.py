"""A served gateway tells your own code, its output, and whoever watches, of everything that happens to batches."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from batchway.cli.main import main
from batchway.sdk.client import Client
from batchway.sdk.errors import NotFoundError
from tests.gateway import FINAL, MASTER, Gateway
from tests.simulator import Simulator

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class Told:
    """A gateway with receivers, and what they have heard."""

    def __init__(self, gateway: Gateway, simulator: Simulator, folder: Path) -> None:
        self.gateway, self.simulator, self.folder = gateway, simulator, folder
        self.client = Client(base_url=gateway.url, api_key=MASTER)

    def heard(self) -> list[dict[str, Any]]:
        path = self.folder / "heard.jsonl"
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def printed(self) -> list[dict[str, Any]]:
        lines = self.gateway.log.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith(b'{"')]

    def of(self, batch_id: str) -> list[dict[str, Any]]:
        return [event for event in self.heard() if event["subject"] == batch_id]

    def until(self, met: Callable[[], Any]) -> Any:
        """What `met` answers once it is true."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := met()):
            assert time.monotonic() < deadline, self.gateway.tail()
            time.sleep(0.02)  # another process: there is nothing to wait on
        return answer

    def batch(self, *lines: dict[str, Any], **more: Any) -> str:
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        fields = {"input_file_id": self.gateway.upload(content), "endpoint": "/v1/chat/completions"}
        return self.gateway.ask("POST", "/v1/batches", {**fields, "completion_window": "24h", **more})["id"]

    def ended(self, batch_id: str) -> list[dict[str, Any]]:
        """All that was told of a batch, once its end was."""
        self.until(lambda: any(event["type"].partition(".")[2] in FINAL for event in self.of(batch_id)))
        return self.of(batch_id)


def line(number: int, model: str = "gpt-4o-mini") -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": f"Say {number}."}]}
    return {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("told")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("TELLING_FOLDER", str(folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        simulator = stack.enter_context(closing(Simulator(folder / "sim", speed=3000)))
        settings = {
            "poll_seconds": 0.1,
            "providers": {"openai": {"api_key": "sim", "base_url": simulator.base_url}},
            "receivers": [
                {"kind": "python", "path": "tests.crash.telling_hook:Notebook"},
                {"kind": "stdout", "events": ["job.accounted"], "lines": True},
            ],
        }
        gateway = Gateway(folder / "home", settings)
        stack.callback(gateway.kill)
        gateway.start()
        yield Told(gateway, simulator, folder)


@pytest.fixture(scope="module")
def batch(told: Told) -> list[dict[str, Any]]:
    """All that is told of a batch of eight lines."""
    return told.ended(told.batch(*map(line, range(8)), metadata={"team": "research"}))


def test_a_batch_is_told_from_its_creation_to_its_end_in_order(batch: list[dict[str, Any]]) -> None:
    assert [event["type"] for event in batch] == [
        "batch.created", "batch.validated", "batch.in_progress", "job.submitted", "job.ended", "job.accounted",
        "batch.finalizing", "batch.completed",
    ]  # fmt: skip
    positions = [event["position"] for event in batch]
    assert positions == sorted(positions)
    assert len({event["id"] for event in batch}) == len(batch)


def test_the_end_tells_usage_amount_models_counts_and_durations(batch: list[dict[str, Any]], told: Told) -> None:
    first, last = batch[0]["data"], batch[-1]["data"]
    assert (first["call_type"], last["call_type"]) == ("acreate_batch", "batch_success")
    assert (first["amount"], first["amount_status"]) == (None, "pending")
    shown = told.gateway.batch(last["id"])
    assert (last["total"], last["completed"], last["failed"]) == (8, 8, 0)
    assert (last["models"], last["providers"], last["metadata"]) == (["gpt-4o-mini"], ["openai"], {"team": "research"})
    assert last["usage"]["input_tokens"] == shown["usage"]["input_tokens"] > 0
    assert (last["amount_usd"], last["amount_status"]) == (shown["batchway"]["amount_usd"], "final")
    assert last["amount"] > 0
    assert last["total_seconds"] >= last["running_seconds"] >= 0
    assert list(last["times"]) == ["created", "in_progress", "finalizing", "completed"]
    job = batch[-3]["data"]
    assert (job["batch_id"], job["provider"], job["lines"], job["outcome"]) == (last["id"], "openai", 8, "succeeded")
    assert job["amount"] == last["amount"]


def test_line_records_are_printed_before_the_event_of_their_job(batch: list[dict[str, Any]], told: Told) -> None:
    job = batch[-3]
    printed = told.until(lambda: [one["id"] for one in told.printed() if one.get("id") == job["id"]] and told.printed())
    mine = [one for one in printed if job["data"]["id"] in (one.get("job_id"), one.get("data", {}).get("id"))]
    assert [one.get("number") for one in mine] == [*range(1, 9), None]
    record = mine[0]
    assert record["request"]["messages"][0]["content"] == "Say 0."
    assert record["response"]["choices"]
    assert sum(one["amount"] for one in mine[:-1]) == job["data"]["amount"]
    assert {one["type"] for one in printed if "subject" in one} == {"job.accounted"}


def test_every_ending_is_told(told: Told) -> None:
    faulty = told.batch(line(1), {**line(2), "url": "/v1/embeddings"})
    failed = told.ended(faulty)
    assert [event["type"] for event in failed] == ["batch.created", "batch.failed"]
    assert failed[-1]["data"]["errors"][0]["line"] == 2
    told.simulator.faults("line=1")
    bad = told.ended(told.batch(line(1)))[-1]["data"]
    told.simulator.faults("")
    assert (bad["status"], bad["completed"], bad["failed"], bad["amount"]) == ("completed", 0, 1, 0)
    again = told.gateway.ask("POST", f"/v1/batches/{bad['id']}/retry")["id"]
    assert told.ended(again)[0]["data"]["retry_of"] == bad["id"]
    cancelled = told.batch(*map(line, range(3)))
    told.gateway.ask("POST", f"/v1/batches/{cancelled}/cancel")
    assert told.ended(cancelled)[-1]["type"] in ("batch.cancelled", "batch.completed")


def test_keys_projects_and_budgets_are_told_and_every_event_fulfils_the_schema(told: Told) -> None:
    ask = told.gateway.ask
    ask("POST", "/v1/projects", {"name": "lab"})
    key = ask("POST", "/v1/keys", {"name": "nightly", "project": "lab"})
    ask("POST", f"/v1/keys/{key['id']}/rotate", {})
    ask("DELETE", f"/v1/keys/{key['id']}")
    told.until(lambda: any(event["type"] == "key.deleted" for event in told.heard()))
    schema = json.loads((ROOT / "docs" / "events.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    heard = told.heard()
    for event in heard:
        validator.validate(event)
    kinds = {event["type"] for event in heard}
    assert {"project.created", "key.created", "key.rotated", "key.deleted", "file.created"} <= kinds
    assert key["key"] not in json.dumps(heard)


def test_who_watches_is_told_until_the_end_and_can_go_on_after_a_break(told: Told) -> None:
    batch_id = told.batch(*map(line, range(4)))
    events = list(told.client.batch_events(batch_id))
    kinds = [event.type for event in events if event.type != "batch"]
    assert kinds[-1] == "batch.completed"
    assert [event.status for event in events if event.type == "batch"][-1] == "completed"
    assert {event.subject for event in events if event.type != "batch"} == {batch_id}
    every = told.ended(batch_id)
    missed = list(told.client.batch_events(batch_id, after=every[2]["id"]))
    assert [event.id for event in missed if event.type != "batch"] == [event["id"] for event in every[3:]]
    with pytest.raises(NotFoundError):
        list(told.client.batch_events("batch_of_nobody"))


def test_a_receiver_that_is_away_is_behind_and_told_at_once_when_somebody_asks(told: Told, capsys) -> None:
    down = told.folder / "down"
    down.touch()
    batch_id = told.batch(line(1))
    told.until(lambda: told.gateway.batch(batch_id)["status"] == "completed")
    behind = told.until(lambda: [one for one in told.client.list_receivers() if one.name == "python" and one.failures])
    assert behind[0].behind > 0
    assert behind[0].last_error == "away"
    down.unlink()
    place = ("--base-url", told.gateway.url, "--api-key", MASTER)
    assert main(["receivers", "retry", "python", *place]) == 0
    assert told.ended(batch_id)[-1]["type"] == "batch.completed"
    told.until(lambda: all(one.behind == 0 for one in told.client.list_receivers()))
    capsys.readouterr()
    assert main(["receivers", "list", "--json", *place]) == 0
    names = [one["name"] for one in json.loads(capsys.readouterr().out)["data"]]
    assert {"python", "stdout"} <= set(names)
    with pytest.raises(NotFoundError, match="receivers list"):
        told.client.retry_receiver("nobody")
