"""The simulator of Azure OpenAI against OpenAI's official clients and types, on both surfaces, over real HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx2
import openai
import pytest
from openai.types import Batch
from openai.types.chat import ChatCompletion

from batchway.providers.azure.simulator import main
from tests.conformance.azure_simulated import CHAT, GA, KEY, OLD_CHAT, Running, Start, line, sim, start

__all__ = ["sim", "start"]


def test_a_batch_of_the_v1_surface_has_the_official_shape(sim: Running) -> None:
    batch = sim.create(sim.v1, [line(n) for n in range(50)])
    sim.advance(2_000)
    raw = sim.raw(f"/openai/v1/batches/{batch.id}")
    Batch.model_validate(raw, strict=True)
    assert raw["status"] == "completed"
    assert raw["request_counts"] == {"total": 50, "completed": 50, "failed": 0}
    found = [json.loads(each) for each in sim.v1.files.content(raw["output_file_id"]).text.splitlines()]
    assert sorted(each["custom_id"] for each in found) == sorted(f"line-{n}" for n in range(50))
    for each in found:
        assert "id" not in each
        body = each["response"]["body"]
        ChatCompletion.model_validate(body, strict=True)
        assert body["prompt_filter_results"][0]["prompt_index"] == 0
        assert body["choices"][0]["content_filter_results"]["hate"] == {"filtered": False, "severity": "safe"}


def test_the_classic_client_runs_a_batch_on_a_dated_version(sim: Running) -> None:
    lines = [{**line(n), "url": OLD_CHAT} for n in range(5)]
    batch = sim.create(sim.classic, lines, OLD_CHAT)
    assert batch.endpoint == OLD_CHAT
    assert batch.status == "validating"
    sim.advance(2_000)
    done = sim.classic.batches.retrieve(batch.id)
    assert (done.status, next(iter(sim.classic.batches.list())).id) == ("completed", batch.id)
    assert len(sim.classic.files.content(done.output_file_id or "").text.splitlines()) == 5


def test_a_completed_batch_without_failures_has_an_empty_error_file(sim: Running) -> None:
    batch = sim.create(sim.v1, [line(1)])
    sim.advance(2_000)
    done = sim.v1.batches.retrieve(batch.id)
    assert done.error_file_id
    assert sim.v1.files.content(done.error_file_id).content == b""


def test_dated_versions_answer_201_and_the_v1_surface_200(sim: Running) -> None:
    def upload(path: str) -> httpx2.Response:
        file = ("in.jsonl", json.dumps(line(1)).encode())
        return sim.http.post(path, data={"purpose": "batch"}, files={"file": file})

    dated, plain = upload(f"/openai/files?api-version={GA}"), upload("/openai/v1/files")
    assert (dated.status_code, plain.status_code) == (201, 200)
    sim.advance(1)
    for path, file, status in ((f"/openai/batches?api-version={GA}", dated, 201), ("/openai/v1/batches", plain, 200)):
        body = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
        assert sim.http.post(path, json=body).status_code == status


def test_a_fresh_file_is_pending_and_no_batch_may_read_it_yet(start: Start) -> None:
    sim = start(process_seconds=1_000.0)
    file = sim.v1.files.create(file=("in.jsonl", json.dumps(line(1)).encode()), purpose="batch")
    assert file.status == "pending"
    with pytest.raises(openai.BadRequestError, match="is not ready"):
        sim.v1.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    sim.advance(1_000)
    assert sim.v1.files.retrieve(file.id).status == "processed"
    assert sim.v1.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id


def test_faults_have_azures_codes(sim: Running) -> None:
    bad = [line(1), "{", {**line(3), "url": "/v1/responses"}, line(4, model="other"), line(1), {"custom_id": "x"}]
    batch = sim.create(sim.v1, bad)
    sim.advance(100)
    errors = sim.v1.batches.retrieve(batch.id).errors
    assert errors is not None
    codes = {(each.line, each.code) for each in errors.data or []}
    assert {(2, "invalid_json_line"), (3, "url_mismatch"), (4, "model_mismatch"), (5, "duplicate_custom_id")} <= codes
    assert (6, "invalid_request") in codes


def test_too_many_lines_are_too_many_tasks(start: Start) -> None:
    sim = start(max_requests=3)
    batch = sim.create(sim.v1, [line(n) for n in range(5)])
    sim.advance(100)
    errors = sim.v1.batches.retrieve(batch.id).errors
    assert errors is not None
    assert [each.code for each in errors.data or []] == ["too_many_tasks"]


def test_a_filtered_prompt_fails_its_line_as_azure_words_it(sim: Running) -> None:
    batch = sim.create(sim.v1, [line(1), line(2, simulate="content_filter")])
    sim.advance(2_000)
    done = sim.v1.batches.retrieve(batch.id)
    (failed,) = [json.loads(each) for each in sim.v1.files.content(done.error_file_id or "").text.splitlines()]
    error = failed["response"]["body"]["error"]
    assert (failed["response"]["status_code"], error["code"]) == (400, "content_filter")
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    with pytest.raises(openai.BadRequestError) as refused:
        sim.classic.chat.completions.create(**line(1, simulate="content_filter")["body"])
    assert refused.value.code == "content_filter"


def test_batches_outlive_their_window_unless_told_to_expire(start: Start) -> None:
    for settings, status in (({}, "in_progress"), ({"expires": True}, "expired")):
        sim = start(**settings)
        batch = sim.create(sim.v1, [line(1), line(2, simulate="expire")])
        sim.advance(200_000)
        assert sim.v1.batches.retrieve(batch.id).status == status
    sim = start()
    sim.faults("expire=1")
    batch = sim.create(sim.v1, [line(1)])
    sim.advance(200_000)
    assert sim.v1.batches.retrieve(batch.id).status == "expired"


def test_old_shapes_are_those_of_early_versions(start: Start) -> None:
    sim = start(old_shapes=True)
    batch = sim.create(sim.v1, [line(1)])
    path = f"/openai/batches/{batch.id}?api-version={GA}"
    fresh = sim.raw(path)
    assert (fresh["status"], fresh["request_counts"], fresh["output_file_id"]) == ("Validating", None, "")
    assert fresh["created_at"].endswith("Z")
    sim.advance(100)
    assert sim.raw(path)["status"] == "InProgress"
    sim.advance(2_000)
    assert sim.raw(path)["status"] == "Completed"
    batch = sim.create(sim.v1, [line(1), "{"])
    sim.advance(100)
    assert [each["line"] for each in sim.raw(f"/openai/v1/batches/{batch.id}")["errors"]["data"]] == ["2"]


def test_too_many_waiting_tokens_fail_late_or_fast(start: Start) -> None:
    for fast in (False, True):
        sim = start(enqueued_token_limit=2_000, fail_fast=fast)
        sim.create(sim.v1, [line(n) for n in range(30)])
        sim.advance(100)
        if fast:
            with pytest.raises(openai.BadRequestError) as refused:
                sim.create(sim.v1, [line(n) for n in range(30)])
            assert refused.value.code == "token_limit_exceeded"
        else:
            late = sim.create(sim.v1, [line(n) for n in range(30)])
            sim.advance(100)
            errors = sim.v1.batches.retrieve(late.id).errors
            assert errors is not None
            assert [each.code for each in errors.data or []] == ["token_limit_exceeded"]


def test_a_wrong_key_and_a_wrong_place_have_azures_envelope(start: Start) -> None:
    sim = start(api_key="another")
    refused = sim.http.get("/openai/v1/batches")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "401")
    right = {"api-key": "another"}
    assert sim.http.get("/openai/v1/batches", headers=right).status_code == 200
    for path in ("/openai/batches", "/openai/batches?api-version=never", f"/openai/nothing?api-version={GA}"):
        lost = sim.http.get(path, headers=right)
        assert (lost.status_code, set(lost.json()["error"])) == (404, {"code", "message"})
    unknown = sim.http.get("/openai/v1/batches/batch_none", headers=right)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "notFound")
    old = sim.http.post("/openai/files?api-version=2024-02-01", headers=right, data={"purpose": "batch"})
    assert (old.status_code, old.json()["error"]["code"]) == (400, "invalidPayload")


def test_expiries_shorter_than_two_weeks_are_refused(sim: Running) -> None:
    def upload(seconds: int) -> Any:
        file = ("in.jsonl", json.dumps(line(1)).encode())
        return sim.v1.files.create(
            file=file, purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
        )

    with pytest.raises(openai.BadRequestError):
        upload(3_600)
    assert upload(1_209_600).expires_at


def test_a_client_gets_tokens_from_its_own_tenant_only(start: Start) -> None:
    sim = start(api_key=KEY, tenant_id="t", client_id="c", client_secret="s", token_seconds=100.0)
    form = {"grant_type": "client_credentials", "client_id": "c", "client_secret": "s", "scope": "x/.default"}
    assert sim.http.post("/other/oauth2/v2.0/token", data=form).status_code == 400
    assert sim.http.post("/t/oauth2/v2.0/token", data={**form, "client_secret": "no"}).status_code == 401
    given = sim.http.post("/t/oauth2/v2.0/token", data=form).json()
    assert given["expires_in"] == 100
    client = openai.AzureOpenAI(azure_endpoint=sim.url, azure_ad_token=given["access_token"], api_version=GA)
    with client:
        assert client.files.list().data == []
    forged = given["access_token"][:-1] + ("0" if given["access_token"][-1] != "0" else "1")
    for token in (forged, "simulated.1.x", "nothing"):
        headers = {"authorization": f"Bearer {token}", "api-key": ""}
        assert sim.http.get("/openai/v1/files", headers=headers).status_code == 401


def test_single_requests_name_their_deployment_in_the_path_or_the_body(sim: Running) -> None:
    body = line(1)["body"]
    classic, v1 = sim.classic.chat.completions.create(**body), sim.v1.chat.completions.create(**body)
    assert classic.choices[0].message.content == v1.choices[0].message.content
    assert sim.v1.responses.create(model="d", input="hi").output_text


def test_the_command_prints_what_points_a_gateway_at_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--port", "9123", "--print-config", "--old-shapes"])
    assert json.loads(capsys.readouterr().out) == {"azure": {"endpoint": "http://127.0.0.1:9123", "api_key": "sim"}}
    main(["--port", "9123", "--print-config", "--tenant-id", "t", "--client-id", "c", "--client-secret", "s"])
    entry = json.loads(capsys.readouterr().out)["azure"]
    assert (entry["authority"], entry["client_secret"]) == ("http://127.0.0.1:9123", "s")


def test_the_command_serves() -> None:
    command = [sys.executable, "-m", "batchway.providers.azure.simulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with openai.OpenAI(base_url=url, api_key="any") as client:
                assert client.batches.list().data == []
        finally:
            process.kill()
