"""The OpenAI simulator against OpenAI's official client and types, over real HTTP: files and the life of batches.

Time is the simulator's virtual clock, moved by `/_sim/advance`: no test waits for a batch.
"""

from __future__ import annotations

import json
import os
from typing import Any

import openai
import pytest
from openai.types import FileObject
from openai.types.chat import ChatCompletion

from tests.conformance.openai_simulated import CHAT, Running, Start, kept, line, shared, sim, start

__all__ = ["kept", "shared", "sim", "start"]


def test_a_batch_walks_every_state_and_its_answers_have_the_official_shape(sim: Running) -> None:
    batch = sim.create([line(n) for n in range(200)], metadata={"token": "t-1"})
    assert batch.status == "validating"
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0
    assert batch.expires_at == batch.created_at + 86_400

    running = sim.after(batch, 50)
    assert (running["status"], running["request_counts"]["total"]) == ("in_progress", 200)
    seen = [running["request_counts"]["completed"]]
    while (running := sim.after(batch, 60))["status"] == "in_progress":
        seen.append(running["request_counts"]["completed"])
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert running["status"] == "finalizing"
    assert running["output_file_id"] is None

    done = sim.after(batch, 60)
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
    assert done["created_at"] < done["in_progress_at"] < done["finalizing_at"] < done["completed_at"]
    assert done["metadata"] == {"token": "t-1"}
    assert done["error_file_id"] is None
    output = sim.lines(done["output_file_id"])
    assert [each["custom_id"] for each in output] != [f"line-{n}" for n in range(200)], "order is not promised"
    assert sorted(each["custom_id"] for each in output) == sorted(f"line-{n}" for n in range(200))
    assert len({each["id"] for each in output}) == 200
    for each in output:
        assert each["error"] is None
        assert each["response"]["status_code"] == 200
        ChatCompletion.model_validate(each["response"]["body"], strict=True)
    usage = [each["response"]["body"]["usage"] for each in output]
    assert done["usage"]["input_tokens"] == sum(each["prompt_tokens"] for each in usage)
    assert done["usage"]["output_tokens"] == sum(each["completion_tokens"] for each in usage)
    cached = sum(each["prompt_tokens_details"]["cached_tokens"] for each in usage)
    assert 0 < cached == done["usage"]["input_tokens_details"]["cached_tokens"]
    file = sim.client.files.retrieve(done["output_file_id"])
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


def test_failed_lines_go_to_the_error_file_as_their_line_asked(shared: Running) -> None:
    asked = ["400", "429", "500", "timeout", "zero", "lost", "twice"]
    invalid = line(90, temperature=7)
    batch = shared.create([line(0), *(line(n, simulate=word) for n, word in enumerate(asked, 1)), invalid])
    done = shared.after(batch, 2_000)
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 9, "completed": 4, "failed": 5}
    errors = {each["custom_id"]: each for each in shared.lines(done["error_file_id"])}
    statuses = {name: each["response"]["status_code"] for name, each in errors.items()}
    assert statuses == {"line-1": 400, "line-2": 429, "line-3": 500, "line-4": 408, "line-90": 400}
    assert errors["line-1"]["error"] is None
    assert errors["line-2"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
    assert errors["line-90"]["response"]["body"]["error"]["param"] == "temperature"
    output = [each["custom_id"] for each in shared.lines(done["output_file_id"])]
    assert sorted(output) == ["line-0", "line-5", "line-7", "line-7"]


def test_a_batch_with_only_failures_completes_without_an_output_file(shared: Running) -> None:
    done = shared.after(shared.create([line(n, model="simulate-500") for n in range(3)]), 2_000)
    assert (done["status"], done["output_file_id"]) == ("completed", None)
    assert done["request_counts"] == {"total": 3, "completed": 0, "failed": 3}
    assert len(shared.lines(done["error_file_id"])) == 3


def test_every_fault_of_an_input_file_is_listed_with_its_line(shared: Running) -> None:
    bad = [
        line(1),
        "not json",
        {"method": "POST", "url": CHAT, "body": line(0)["body"]},
        {**line(4), "url": "/v1/embeddings"},
        line(1),
        line(6, model="no-such-model"),
        line(7, model="gpt-4o"),
        {**line(8), "body": {"messages": []}},
        {**line(9), "body": {"model": "gpt-4o-mini"}},
        line(10, stream=True),
        {**line(11), "method": "GET"},
        {**line(12), "body": None},
        "",
        line(14),
    ]
    failed = shared.after(shared.create(bad), 100)
    assert failed["status"] == "failed"
    assert failed["failed_at"] is not None
    assert failed["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert failed["errors"]["object"] == "list"
    assert [(each["line"], each["code"], each["param"]) for each in failed["errors"]["data"]] == [
        (2, "invalid_json_line", None),
        (3, "missing_required_parameter", "custom_id"),
        (4, "invalid_url", "url"),
        (5, "duplicate_custom_id", "custom_id"),
        (6, "model_not_found", "body.model"),
        (7, "mismatched_model", "body.model"),
        (8, "invalid_request", "body.model"),
        (9, "invalid_request", "body.messages"),
        (10, "streaming_unsupported", "body.stream"),
        (11, "invalid_method", "method"),
        (12, "missing_required_parameter", "body"),
        (13, "invalid_json_line", None),
    ]
    messages = [each["message"] for each in failed["errors"]["data"]]
    assert messages[0] == "This line is not parseable as valid JSON."
    assert messages[1] == "Missing required parameter: 'custom_id'."
    assert messages[2] == "The URL provided for this request does not match the batch endpoint."
    assert messages[4] == "The provided model 'no-such-model' is not supported by the Batch API."
    assert messages[6] == "Model parameter is required."
    assert messages[8] == "Chat Completions: Streaming is not supported in the Batch API."


def test_a_byte_order_mark_breaks_line_one_and_bad_utf8_its_line(shared: Running) -> None:
    text = (
        b"\xef\xbb\xbf" + json.dumps(line(1)).encode() + b"\n" + json.dumps(line(2)).encode().replace(b"Say", b"\xff")
    )
    file = shared.client.files.create(file=("in.jsonl", text), purpose="batch")
    batch = shared.client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    faults = shared.after(batch, 100)["errors"]["data"]
    assert [(each["line"], each["code"]) for each in faults] == [(1, "invalid_json_line"), (2, "invalid_json_line")]


def test_an_unknown_input_file_is_accepted_and_fails_the_batch(shared: Running) -> None:
    batch = shared.client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    (fault,) = shared.after(batch, 100)["errors"]["data"]
    assert (fault["code"], fault["param"], fault["line"]) == ("invalid_request", "file_id", None)
    assert fault["message"].startswith("Cannot find file file-none, or organization ")


def test_more_lines_than_allowed_fail_the_batch(start: Start) -> None:
    sim = start(max_requests=3)
    (fault,) = sim.after(sim.create([line(n) for n in range(9)]), 100)["errors"]["data"]
    assert (fault["code"], fault["line"]) == ("invalid_request", None)
    assert sim.after(sim.create([line(n) for n in range(3)]), 2_000)["status"] == "completed"


def test_an_expired_batch_keeps_what_finished_and_lists_the_rest(shared: Running) -> None:
    lines = [line(n) for n in range(20)] + [line(20, simulate="expire"), line(21, simulate="400")]
    batch = shared.create(lines)
    assert shared.after(batch, 40_000)["status"] == "in_progress"
    done = shared.after(batch, 60_000)
    assert (done["status"], done["expired_at"]) == ("expired", done["expires_at"])
    assert done["request_counts"] == {"total": 22, "completed": 20, "failed": 1}
    assert len(shared.lines(done["output_file_id"])) == 20
    errors = {each["custom_id"]: each for each in shared.lines(done["error_file_id"])}
    assert set(errors) == {"line-20", "line-21"}
    assert errors["line-20"]["response"] is None
    assert errors["line-20"]["error"]["code"] == "batch_expired"
    assert done["usage"]["output_tokens"] > 0


def test_a_cancelled_batch_keeps_what_finished_and_cancelling_twice_changes_nothing(shared: Running) -> None:
    batch = shared.create([line(n) for n in range(300)])
    finished = shared.after(batch, 250)["request_counts"]["completed"]
    assert shared.client.batches.cancel(batch.id).status == "cancelling"
    done = shared.after(batch, 100)
    assert done["status"] == "cancelled"
    assert done["in_progress_at"] <= done["cancelling_at"] < done["cancelled_at"]
    assert finished <= done["request_counts"]["completed"] < 300
    assert len(shared.lines(done["output_file_id"])) == done["request_counts"]["completed"]
    assert done["error_file_id"] is None
    assert shared.client.batches.cancel(batch.id).model_dump() == shared.client.batches.retrieve(batch.id).model_dump()


def test_unfinished_lines_of_a_cancelled_batch_are_listed_when_asked_for(start: Start) -> None:
    sim = start(cancelled_lines=True)
    batch = sim.create([line(n) for n in range(50)])
    sim.advance(100)
    sim.client.batches.cancel(batch.id)
    done = sim.after(batch, 100)
    codes = {each["error"]["code"] for each in sim.lines(done["error_file_id"])}
    assert codes == {"batch_cancelled"}


@pytest.mark.parametrize("state", ["completed", "failed", "expired"])
def test_an_ended_batch_cannot_be_cancelled(shared: Running, state: str) -> None:
    lines = {"completed": [line(1)], "failed": ["{}"], "expired": [line(1, simulate="expire")]}[state]
    batch = shared.create(lines)
    assert shared.after(batch, 100_000)["status"] == state
    with pytest.raises(openai.ConflictError, match=f"Cannot cancel a batch with status '{state}'") as refused:
        shared.client.batches.cancel(batch.id)
    assert (refused.value.type, refused.value.param, refused.value.code) == ("invalid_request_error", None, None)


def test_cancelling_while_validating_leaves_no_files(shared: Running) -> None:
    batch = shared.create([line(1)])
    shared.client.batches.cancel(batch.id)
    done = shared.after(batch, 100)
    assert (done["status"], done["output_file_id"], done["error_file_id"]) == ("cancelled", None, None)
    assert done["request_counts"] == {"total": 0, "completed": 0, "failed": 0}


def test_the_lists_are_newest_first_and_their_pages_end(sim: Running) -> None:
    batches = [sim.create([line(1)]).id for _ in range(5)][::-1]
    assert [each.id for each in sim.client.batches.list(limit=2)] == batches
    first = sim.client.batches.list(limit=2)
    assert first.has_more
    raw = sim.http.get("/v1/batches", params={"limit": 2, "after": batches[2]}).json()
    assert ([each["id"] for each in raw["data"]], raw["has_more"]) == (batches[3:], False)
    assert (raw["first_id"], raw["last_id"]) == (batches[3], batches[4])
    files = [each.id for each in sim.client.files.list(purpose="batch", order="asc", limit=2)]
    assert len(files) == 5
    assert [each.id for each in sim.client.files.list()] == files[::-1]
    for limit in ("0", "101", "x"):
        assert sim.http.get("/v1/batches", params={"limit": limit}).json()["error"]["param"] == "limit"


CREATE: dict[str, Any] = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input_file_id": None}, "missing_required_parameter", "input_file_id"),
        ({"endpoint": None}, "missing_required_parameter", "endpoint"),
        ({"endpoint": "/v1/nothing"}, "invalid_value", "endpoint"),
        ({"completion_window": "1h"}, "invalid_value", "completion_window"),
        ({"input_file_id": 5}, "invalid_type", "input_file_id"),
        ({"metadata": "text"}, "invalid_type", "metadata"),
        ({"metadata": {"k": 1}}, "invalid_type", "metadata.k"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "object_above_max_properties", "metadata"),
        ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata.k"),
        ({"metadata": {"k" * 65: "v"}}, "string_above_max_length", f"metadata.{'k' * 65}"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
            "integer_below_min_value",
            "output_expires_after.seconds",
        ),
    ],
)
def test_a_wrong_create_is_refused_by_name(shared: Running, change: dict[str, Any], code: str, param: str) -> None:
    answer = shared.http.post("/v1/batches", json={**CREATE, **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert answer.headers["x-request-id"]


def test_null_metadata_is_fine_and_unknown_ids_are_404(shared: Running) -> None:
    assert shared.http.post("/v1/batches", json={**CREATE, "metadata": None}).status_code == 200
    with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_x'"):
        shared.client.batches.retrieve("batch_x")
    with pytest.raises(openai.NotFoundError):
        shared.client.files.content("file-x")
    assert shared.http.get("/v1/nothing").json()["error"]["message"] == "Invalid URL (GET /v1/nothing)"


def test_files_are_kept_byte_for_byte_and_gone_when_deleted(sim: Running) -> None:
    data = b"".join(json.dumps({"n": n, "pad": os.urandom(50).hex()}).encode() + b"\n" for n in range(20_000))
    file = sim.client.files.create(file=("größe.jsonl", data), purpose="batch")
    raw = sim.http.get(f"/v1/files/{file.id}").json()
    FileObject.model_validate(raw, strict=True)
    assert (raw["bytes"], raw["filename"], raw["purpose"]) == (len(data), "größe.jsonl", "batch")
    assert raw["expires_at"] == raw["created_at"] + 30 * 86_400
    assert sim.client.files.content(file.id).read() == data
    assert sim.client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        sim.client.files.retrieve(file.id)


def test_result_files_expire_when_the_batch_said_so(shared: Running) -> None:
    batch = shared.create([line(1)], output_expires_after={"anchor": "created_at", "seconds": 3600})
    done = shared.after(batch, 2_000)
    file = shared.client.files.retrieve(done["output_file_id"])
    assert file.expires_at == pytest.approx(file.created_at + 3600, abs=1)
    shared.advance(3_700)
    with pytest.raises(openai.NotFoundError):
        shared.client.files.content(done["output_file_id"])


@pytest.mark.parametrize(
    ("name", "data", "purpose", "status"),
    [
        ("in.txt", b"{}", "batch", 400),
        ("in.jsonl", b"", "batch", 400),
        ("in.jsonl", b"no\n{}", "batch", 400),
        ("in.jsonl", b"{}\nno", "batch", 200),
        ("in.jsonl", b"{}", "nonsense", 400),
        ("in.txt", b"text", "user_data", 200),
        ("in.jsonl", b'{"a": "' + b"x" * 3_000_000 + b'"}', "batch", 413),
    ],
)
def test_uploads_are_checked_by_name_first_line_and_size(
    shared: Running, name: str, data: bytes, purpose: str, status: int
) -> None:
    answer = shared.http.post("/v1/files", files={"file": (name, data)}, data={"purpose": purpose})
    assert answer.status_code == status
    if name == "in.txt" and status == 400:
        assert answer.json()["error"]["message"] == "Invalid file format for Batch API. Must be .jsonl"
        assert set(answer.json()) == {"error", "detail"}


def test_an_input_file_deleted_while_it_is_read_is_read_to_its_end(shared: Running) -> None:
    batch = shared.create([line(n) for n in range(10)])
    shared.client.files.delete(batch.input_file_id)
    assert shared.after(batch, 2_000)["request_counts"]["completed"] == 10
