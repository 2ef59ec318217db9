"""A whole batch through a real gateway to Vertex: Gemini and Claude in one file, refused lines, kill -9 on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.vertex_simulated import CHAT, Running, chat, serving
from tests.gateway import FINAL, Gateway

LINES = 600


@pytest.fixture
def sim() -> Iterator[Running]:
    with serving(shards=2, speed=400.0, run_seconds=400.0) as running:
        yield running


@pytest.fixture
def gateway(sim: Running, tmp_path: Path) -> Iterator[Gateway]:
    entry = {"project": "p", "location": "us-central1", "bucket": "gs://sim-bucket/staging", "access_token": "sim"}
    entry |= {"base_url": sim.url, "storage_url": sim.url}
    settings = {"providers": {"vertex": entry}, "models": {"smart": ["vertex_ai/claude-haiku-4-5@20251001"]}}
    running = Gateway(tmp_path / "home", {**settings, "poll_seconds": 0.1})
    running.start()
    yield running
    running.kill()


def content() -> bytes:
    lines: list[bytes] = []
    for n in range(LINES):
        body = chat(f"question {n} ö 漢", model="smart" if n % 3 == 0 else "vertex/gemini-2.5-flash")
        if n % 50 == 7:
            body["logit_bias"] = {"5": 1}
        line = {"custom_id": f"c-{n}", "method": "POST", "url": CHAT, "body": body}
        lines.append(json.dumps(line).encode() + b"\n")
    return b"".join(lines)


def test_a_mixed_batch_survives_kills_and_comes_back_in_order_with_its_amount(gateway: Gateway, sim: Running) -> None:
    sim.faults("line=0.05,accept_then_reset=1,429=0.02,500=0.02")
    batch_id = gateway.create(gateway.upload(content()))
    for _ in range(3):
        time.sleep(0.7)  # another process: there is nothing else to wait on
        gateway.kill()
        gateway.start()
    deadline = time.monotonic() + 60
    while (batch := gateway.batch(batch_id))["status"] not in FINAL:
        assert time.monotonic() < deadline, gateway.tail()
        time.sleep(0.1)
    assert batch["status"] == "completed", batch
    files = [gateway.ask("GET", f"/v1/files/{batch[name]}/content") for name in ("output_file_id", "error_file_id")]
    good, bad = ([json.loads(line) for line in file.splitlines()] for file in files)
    names = [line["custom_id"] for line in good]
    assert names == sorted(names, key=lambda name: int(name[2:])), "in input order"
    assert sorted([*names, *(line["custom_id"] for line in bad)]) == sorted(f"c-{n}" for n in range(LINES))
    refused = [line for line in bad if line["response"]["body"]["error"]["param"] == "logit_bias"]
    assert [line["custom_id"] for line in refused] == [f"c-{n}" for n in range(LINES) if n % 50 == 7]
    assert batch["request_counts"] == {"total": LINES, "completed": len(good), "failed": len(bad)}
    assert batch["usage"]["input_tokens"] == sum(line["response"]["body"]["usage"]["prompt_tokens"] for line in good)
    jobs = sim.jobs()
    assert len(jobs) == 2, "one job a model, whatever was killed"
    assert {job["model"].split("/")[1] for job in jobs} == {"google", "anthropic"}
