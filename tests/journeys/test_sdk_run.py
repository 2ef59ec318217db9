"""The whole-job call: every line once, in order or as it finishes, through faults and interruptions."""

from __future__ import annotations

import json
import logging
from decimal import Decimal

import pytest

import batchway
from tests.tiny_gateway import LINE, client, gateway, naps, served

__all__ = ["gateway", "naps", "served"]


def test_a_run_gives_every_line_once_in_input_order(gateway):
    looks: list[str] = []
    prompts = [f"prompt {number}" for number in range(25)]
    run = batchway.run(prompts, model="m", poll=0.001, progress=lambda batch: looks.append(batch.status))
    results = list(run)
    assert [result.custom_id for result in results] == [f"line-{number}" for number in range(1, 26)]
    assert [result.custom_id for result in results if result.error] == ["line-2", "line-12", "line-22"]
    assert results[0].text == "to line-1"
    assert results[0].usage.prompt_tokens == 3
    assert results[0].cost == Decimal("0.00012")
    assert (results[1].text, results[1].error.code, results[1].error.status_code) == (None, "batch_expired", None)
    assert run.batch_id == run.batch.id
    assert run.batch.status == "completed"
    assert looks[-1] == "completed"
    assert [result.custom_id for result in run] == [result.custom_id for result in results]


def test_a_run_can_give_lines_as_they_finish(gateway):
    gateway.at_a_time = 3
    run = batchway.run(["a", "b", "c", "d", "e"], model="m", ordered=False, poll=0.001)
    first = next(iter(run))
    assert run.batch.status != "completed"
    results = list(run)
    assert first.custom_id == "line-2"
    assert [result.custom_id for result in results] == ["line-2", "line-4", "line-1", "line-3", "line-5"]


async def test_a_run_in_the_suspending_flavour(gateway, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({**LINE, "custom_id": name}) + "\n" for name in "bca"))
    run = await batchway.arun(path, model="other", metadata={"k": "v"}, poll=0.001)
    assert [result.custom_id async for result in run] == ["b", "c", "a"]
    assert run.batch.sent.model == "other"
    assert (await run.wait()).metadata == {"k": "v"}
    assert gateway.files[run.batch.input_file_id]["filename"] == "in.jsonl"


def test_a_run_whose_input_is_refused_tells_the_faults(gateway):
    run = batchway.run([{**LINE, "fail": True}], poll=0.001)
    with pytest.raises(batchway.BatchFailedError, match="line 1: The URL is wrong") as failed:
        list(run)
    assert failed.value.code == "invalid_url"
    assert failed.value.batch.id == run.batch_id


def test_a_run_lives_through_an_outage(gateway, naps):
    gateway.at_a_time = 1
    run = client(gateway).run(["a", "b", "c"], model="m", ordered=False)
    path = f"/v1/batches/{run.batch_id}"
    gateway.faults[f"GET {path}"] = [503, "drop", "drop"]
    gateway.faults[f"GET {path}/results"] = ["drop", 500]
    assert sorted(result.custom_id for result in run) == ["line-1", "line-2", "line-3"]


def test_results_that_break_off_in_the_middle_come_once(gateway, naps):
    gateway.at_a_time = 3
    run = client(gateway).run(["a", "b", "c"], model="m", ordered=False)
    run.wait()
    gateway.faults["CUT"] = [len(gateway.answers[run.batch_id][0]) + 9, 1]
    assert sorted(result.custom_id for result in run) == ["line-1", "line-2", "line-3"]
    assert len(gateway.requests("GET", f"/v1/batches/{run.batch_id}/results")) == 3


def test_a_run_can_be_named_so_that_it_happens_once(gateway):
    runs = [
        batchway.run([LINE], extra_headers={"Idempotency-Key": "nightly"}, extra_body={"extra": {"a": 1}})
        for _ in range(2)
    ]
    assert runs[0].batch_id == runs[1].batch_id
    assert runs[0].batch.sent.extra == {"a": 1}


def test_an_interrupted_run_says_how_to_follow_it(gateway, monkeypatch, caplog):
    async def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchway.sdk.client.blocking_sleep", interrupt)
    run = client(gateway).run(["a", "b", "c"], model="m")
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        list(run)
    assert f"batchway watch {run.batch_id}" in caplog.text
    assert gateway.batches[run.batch_id]["status"] != "cancelled"


def test_progress_is_plain_lines_where_nobody_looks(gateway, capsys):
    list(batchway.run(["a", "b", "c"], model="m", progress=True, poll=0.001))
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("validating, 0 of 0 lines, 0 failed")
    assert told[-1].endswith("completed, 3 of 3 lines, 1 failed")
