"""Bad input gets OpenAI's own error, and nothing is lost: the gateway goes on and keeps no trace of what it refused."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from tests.journeys.serving import FORM, MASTER, form
from tests.journeys.trips import CHAT, Running, chat, jsonl, line

GOOD = {"endpoint": CHAT, "completion_window": "24h"}
BODY = {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}
MISMATCH = "The URL provided for this request does not match the batch endpoint."
NOT_JSON = "This line is not parseable as valid JSON."


@pytest.fixture(scope="module", autouse=True)
def nothing_is_lost(world: Running):
    """A batch that was there before ends well; nothing of the refused is left."""
    batch_id = world.create(world.upload(chat(300, "frozen")))["id"]
    yield
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    world.simulators["still"].advance(5000)
    assert world.wait(batch_id)["request_counts"] == {"total": 300, "completed": 300, "failed": 0}
    assert world.violations(batch_id) == []
    assert world.open_holds() == []
    assert world.strays() == []


def raw(**changes) -> bytes:
    """One line with fields changed; None leaves a field out."""
    request = {"custom_id": "row-1", "method": "POST", "url": CHAT, "body": BODY, **changes}
    return json.dumps({name: value for name, value in request.items() if value is not ...}).encode()


FAULTS = [
    ("not json", b"{nope", "invalid_json_line", None, NOT_JSON),
    ("half a line", raw()[:-5], "invalid_json_line", None, NOT_JSON),
    ("an array", b"[]", "invalid_json_line", None, NOT_JSON),
    ("a number", b"17", "invalid_json_line", None, NOT_JSON),
    ("a blank line", b"", "invalid_json_line", None, NOT_JSON),
    ("bad UTF-8", raw().replace(b"hi", b"\xff\xfe"), "invalid_json_line", None, NOT_JSON),
    ("bad UTF-8 in the id", raw().replace(b"row-1", b"row-\xc3"), "invalid_json_line", None, NOT_JSON),
    ("a BOM in the middle", b"\xef\xbb\xbf" + raw(), "invalid_json_line", None, NOT_JSON),
    ("two objects", raw() + raw(), "invalid_json_line", None, NOT_JSON),
    ("NaN", raw().replace(b'"hi"', b"NaN"), "invalid_json_line", None, NOT_JSON),
    ("deep", b"[" * 100_000, "invalid_json_line", None, NOT_JSON),
    ("no custom_id", raw(custom_id=...), "missing_required_parameter", "custom_id", "Missing required parameter: 'custom_id'."),
    ("no method", raw(method=...), "missing_required_parameter", "method", "Missing required parameter: 'method'."),
    ("no url", raw(url=...), "missing_required_parameter", "url", "Missing required parameter: 'url'."),
    ("no body", raw(body=...), "missing_required_parameter", "body", "Missing required parameter: 'body'."),
    ("a null body", raw(body=None), "missing_required_parameter", "body", "Missing required parameter: 'body'."),
    ("a custom_id that is a number", raw(custom_id=1), "invalid_type", "custom_id", "Invalid type for 'custom_id'"),
    ("an empty custom_id", raw(custom_id=""), "invalid_value", "custom_id", "Invalid value for 'custom_id'"),
    ("a method that is a list", raw(method=["POST"]), "invalid_type", "method", "Invalid type for 'method'"),
    ("GET", raw(method="GET"), "invalid_method", "method", "Invalid method"),
    ("post", raw(method="post"), "invalid_method", "method", "Invalid method"),
    ("a text as body", raw(body="text"), "invalid_type", "body", "Invalid type for 'body'"),
    ("another endpoint", raw(url="/v1/embeddings", body={"model": "fast", "input": "x"}), "invalid_url", "url", MISMATCH),
    ("another endpoint's body", raw(url="/v1/embeddings"), "invalid_url", "url", MISMATCH),
    ("a whole url", raw(url=f"https://api.openai.com{CHAT}"), "invalid_url", "url", MISMATCH),
    ("no version", raw(url="/chat/completions"), "invalid_url", "url", MISMATCH),
    ("a used custom_id", raw(custom_id="row-0"), "duplicate_custom_id", "custom_id", "The custom_id 'row-0' is used"),
    ("no model", raw(body={**BODY, "model": None}), "invalid_request", "body.model", "Model parameter is required."),
    ("a model that is a list", raw(body={**BODY, "model": []}), "invalid_type", "body.model", "Invalid type for 'body.model'"),
    ("no messages", raw(body={"model": "fast"}), "invalid_request", "body.messages", "Messages parameter is required."),
    ("a stream", raw(body={**BODY, "stream": True}), "streaming_unsupported", "body.stream", "Streaming is not supported in the Batch API."),
    ("an unknown model", raw(body={**BODY, "model": "fsat"}), "model_not_found", "body.model",
     "The provided model 'fsat' is not supported by the Batch API. Near names: fast"),
]  # fmt: skip


@pytest.fixture(scope="module")
def failed(world):
    """Every faulty line between two good ones, all batches at once: the ended batch of each."""
    ids = {
        name: world.create(world.upload(b"\n".join([raw(custom_id="row-0"), bad, raw(custom_id="row-2")]) + b"\n"))["id"]
        for name, bad, *_ in FAULTS
    }
    return {name: world.wait(batch_id) for name, batch_id in ids.items()}


@pytest.mark.parametrize(("name", "code", "param", "message"), [(one[0], *one[2:]) for one in FAULTS])
def test_a_faulty_line_fails_the_batch_with_its_number(failed, name, code, param, message):
    batch = failed[name]
    assert batch["status"] == "failed"
    (fault,) = batch["errors"]["data"]
    assert (fault["code"], fault["param"], fault["line"]) == (code, param, 2)
    assert fault["message"].startswith(message)
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)


def test_a_stream_that_is_off_is_fine_and_so_are_a_missing_last_newline_crlf_and_unicode(world):
    lines = [raw(custom_id=f"row-{number}", body={**BODY, "stream": False}) for number in range(3)]
    lines.append(raw(custom_id="row-3").replace(b"hi", "\u2028 漢 ö".encode()))
    batch = world.run(b"\r\n".join(lines))
    assert batch["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert world.violations(batch["id"]) == []


def test_every_fault_of_a_file_is_told_in_order_one_a_line(world):
    lines = [raw(custom_id="row-0"), b"{", raw(custom_id="row-0", url="/v1/x"), raw(method="GET"), raw(custom_id="row-9")]
    batch = world.run(b"\n".join(lines) + b"\n")
    assert [(fault["line"], fault["code"]) for fault in batch["errors"]["data"]] == [
        (2, "invalid_json_line"), (3, "invalid_url"), (4, "invalid_method"),
    ]  # fmt: skip


def test_a_line_that_is_too_long_fails_the_batch_and_does_not_hold_it_up(world):
    big = raw(custom_id="row-2", body={**BODY, "user": "x" * (64 << 20)})
    batch = world.run(b"\n".join([raw(url="/v1/embeddings"), big, raw(custom_id="row-3")]))
    assert batch["status"] == "failed"
    assert [(fault["line"], fault["code"]) for fault in batch["errors"]["data"]] == [
        (1, "invalid_url"), (2, "line_too_long"),
    ]  # fmt: skip


def test_a_strict_upload_tells_every_fault_and_keeps_nothing(world):
    before = world.ask("GET", "/v1/files").json["data"]
    bad = b"\n".join([raw(custom_id="row-0"), *(one[1] for one in FAULTS if one[2] != "model_not_found" and b"embeddings" not in one[1])]) + b"\n"
    answer = world.served.upload(bad, purpose="batch", path="/v1/files?validate=strict")
    assert answer.status == 400
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", "file")
    faults = answer.json["faults"]
    assert [fault["line"] for fault in faults] == list(range(2, len(faults) + 2))
    assert answer.error["message"].startswith(f"The file has {len(faults)} faults, the first in line 2")
    assert world.ask("GET", "/v1/files").json["data"] == before
    good = world.served.upload(chat(2), purpose="batch", path="/v1/files?validate=strict")
    assert good.status == 200


@pytest.mark.parametrize(
    ("content", "name", "code", "message"),
    [
        (b"", "in.jsonl", "empty_file", "The file is empty."),
        (b"\n\n", "in.jsonl", "empty_file", "The file holds no lines."),
        (b"hello\nworld\n", "in.jsonl", None, "Invalid file format for Batch API. Must be .jsonl"),
        (b"\x89PNG\r\n\x1a\n", "in.jsonl", None, "Invalid file for Batch API. Must be utf-8 encoded"),
        (chat(1).decode().encode("utf-16"), "in.jsonl", None, "Invalid file"),
        (chat(1), "in.txt", None, "Invalid file format for Batch API. Must be .jsonl"),
    ],
)
def test_what_is_no_jsonl_is_refused_at_upload(world, content, name, code, message):
    answer = world.served.upload(content, name, purpose="batch")
    assert answer.status == 400
    assert (answer.error["code"], answer.error["type"]) == (code, "invalid_request_error")
    assert answer.error["message"].startswith(message)


def test_a_bom_fails_line_one(world):
    batch = world.run(b"\xef\xbb\xbf" + chat(2))
    (fault,) = batch["errors"]["data"]
    assert (fault["line"], fault["code"]) == (1, "invalid_json_line")
    assert "BOM" in fault["message"]


def test_an_unknown_file_is_accepted_and_fails_the_batch(world):
    batch = world.wait(world.create("file-nothing")["id"])
    (fault,) = batch["errors"]["data"]
    assert (fault["code"], fault["param"], fault["line"]) == ("invalid_request", "file_id", None)
    assert fault["message"].startswith("Cannot find file file-nothing, or ")


def test_somebody_elses_file_looks_like_an_unknown_one(world):
    file_id = world.upload(chat(1))
    stranger = world.served.key("strangers")
    made = world.create(file_id, key=stranger)
    batch_id, foreign = made["id"], world.create("file-nothing", key=stranger)["id"]
    told = []
    for name in (batch_id, foreign):
        assert world.wait(name)["status"] == "failed"
        answer = world.ask("GET", f"/v1/batches/{name}", key=stranger).json
        told.append(json.dumps(answer["errors"]).replace(file_id, "file-nothing"))
    assert told[0] == told[1]
    assert world.ask("POST", "/v1/batches/estimate", {"input_file_id": file_id}, key=stranger).status == 404


@pytest.mark.parametrize("purpose", ["user_data", "batch_output"])
def test_a_file_with_another_purpose_is_refused_at_once(world, purpose):
    if purpose == "user_data":
        file_id = world.upload(chat(1), purpose="user_data")
    else:
        file_id = world.run(chat(1))["output_file_id"]
    answer = world.ask("POST", "/v1/batches", {**GOOD, "input_file_id": file_id})
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "input_file_id", "invalid_file_purpose")
    estimate = world.ask("POST", "/v1/batches/estimate", {"input_file_id": file_id})
    assert (estimate.status, estimate.error["code"]) == (400, "invalid_file_purpose")


LONG = "x" * 513


@pytest.mark.parametrize(
    ("change", "param", "code", "message"),
    [
        ({"input_file_id": None}, "input_file_id", "missing_required_parameter", "Missing required parameter: 'input_file_id'."),
        ({"endpoint": ...}, "endpoint", "missing_required_parameter", "Missing required parameter: 'endpoint'."),
        ({"completion_window": ...}, "completion_window", "missing_required_parameter", "Missing required parameter: 'completion_window'."),
        ({"endpoint": "/v1/chat"}, "endpoint", "invalid_value", "Invalid value: '/v1/chat'. Supported values are: '/v1/chat/completions'"),
        ({"endpoint": None}, "endpoint", "invalid_type", "Invalid type for 'endpoint': expected a string, but got null instead."),
        ({"completion_window": "1x"}, "completion_window", "invalid_value", "Invalid value: '1x'."),
        ({"completion_window": "0h"}, "completion_window", "invalid_value", "Invalid value: '0h'."),
        ({"completion_window": "31d"}, "completion_window", "invalid_value", "Invalid value: '31d'."),
        ({"completion_window": "٣h"}, "completion_window", "invalid_value", "Invalid value"),
        ({"completion_window": 24}, "completion_window", "invalid_type", "Invalid type for 'completion_window': expected a string, but got an integer instead."),
        ({"input_file_id": ["f"]}, "input_file_id", "invalid_type", "Invalid type for 'input_file_id'"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type", "Invalid type for 'metadata.a': expected a string, but got an integer instead."),
        ({"metadata": {"a": None}}, "metadata.a", "invalid_type", "Invalid type for 'metadata.a': expected a string, but got null instead."),
        ({"metadata": {"a": {}}}, "metadata.a", "invalid_type", "Invalid type for 'metadata.a': expected a string, but got an object instead."),
        ({"metadata": []}, "metadata", "invalid_type", "Invalid type for 'metadata'"),
        ({"metadata": "{}"}, "metadata", "invalid_type", "Invalid type for 'metadata'"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties",
         "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object with 17 properties instead."),
        ({"metadata": {"a": LONG}}, "metadata.a", "string_above_max_length",
         "Invalid 'metadata.a': string too long. Expected a string with maximum length 512, but got a string with length 513 instead."),
        ({"metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 65}", "property_name_above_max_length",
         "Invalid property name in 'metadata': 'kkk...kkk' is too long. Expected a string with maximum length 64, but got a string with length 65 instead."),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 10}}, "output_expires_after.seconds", "integer_below_min_value",
         "Invalid 'output_expires_after.seconds': integer below minimum value. Expected a value >= 3600, but got 10 instead."),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 2592001}}, "output_expires_after.seconds", "integer_above_max_value",
         "Invalid 'output_expires_after.seconds': integer above maximum value. Expected a value <= 2592000, but got 2592001 instead."),
        ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, "output_expires_after.anchor", "invalid_value", "Invalid value"),
        ({"output_expires_after": {"seconds": 3600}}, "output_expires_after.anchor", "missing_required_parameter", "Missing required parameter: 'output_expires_after.anchor'."),
        ({"custom_llm_provider": "nobody"}, "custom_llm_provider", "invalid_value", "No provider 'nobody' is configured."),
    ],
)  # fmt: skip
def test_a_bad_create_names_the_parameter_and_makes_nothing(world, change, param, code, message):
    before = world.rows("select count(*) as n from batches")
    wanted = {**GOOD, "input_file_id": "file-x", **change}
    answer = world.ask("POST", "/v1/batches", {name: value for name, value in wanted.items() if value is not ...})
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == (param, code)
    assert answer.error["message"].startswith(message)
    assert answer.error["type"] == "invalid_request_error"
    assert world.rows("select count(*) as n from batches") == before


def test_the_largest_metadata_and_null_ones_are_fine(world):
    file_id = world.upload(chat(1))
    most = {f"{n:02}" + "k" * 62: "ö" * 512 for n in range(16)}
    assert world.create(file_id, metadata=most)["metadata"] == most
    assert world.create(file_id, metadata=None, output_expires_after=None)["metadata"] is None
    assert world.create(file_id, metadata={})["metadata"] in (None, {})


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff", b'{"endpoint": }', b"[" * 50_000])
@pytest.mark.parametrize("path", ["/v1/batches", "/v1/uploads", "/v1/batches/adopt", "/v1/batches/estimate"])
def test_a_body_that_is_no_json_object_is_a_400(world, path, body):
    answer = world.ask("POST", path, body, Content_Type="application/json")
    assert (answer.status, answer.error["type"], answer.error["param"]) == (400, "invalid_request_error", None)
    assert answer.error["message"].startswith("We could not parse the JSON body of your request.")


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=-1", "limit", "integer_below_min_value"),
        ("limit=", "limit", "invalid_type"),
        ("limit=1.5", "limit", "invalid_type"),
        ("limit=ten", "limit", "invalid_type"),
        ("order=up", "order", "invalid_value"),
        ("status=done", "status", "invalid_value"),
    ],
)
def test_limits_out_of_range_are_named(world, query, param, code):
    answer = world.ask("GET", f"/v1/batches?{query}")
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code)
    if param == "limit" and "101" not in query:
        assert world.ask("GET", f"/v1/files?{query}").error["param"] == param
    assert world.ask("GET", "/v1/files?limit=10001").error["param"] == "limit"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/batches/batch_nothing", 404),
        ("POST", "/v1/batches/batch_nothing/cancel", 404),
        ("POST", "/v1/batches/batch_nothing/retry", 404),
        ("GET", "/v1/batches/batch_nothing/results", 404),
        ("GET", "/v1/batches?after=batch_nothing", 404),
        ("GET", "/v1/files?after=file-nothing", 404),
        ("GET", "/v1/files/file-nothing", 404),
        ("GET", "/v1/files/file-nothing/content", 404),
        ("DELETE", "/v1/files/file-nothing", 404),
        ("POST", "/v1/uploads/upload_nothing/complete", 404),
        ("GET", "/v1/models/nothing", 404),
        ("GET", "/v1/chat", 404),
        ("POST", "/v1/chat/completions", 404),
        ("DELETE", "/v1/batches/batch_nothing", 405),
        ("PATCH", "/v1/files", 405),
    ],
)
def test_what_is_not_there_is_an_envelope(world, method, path, status):
    body = {"part_ids": ["p"]} if path.endswith("complete") else None
    answer = world.ask(method, path, body)
    assert answer.status == status
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.error["type"] == "invalid_request_error"
    if path == "/v1/batches/batch_nothing":
        if method == "GET":
            assert answer.error["message"] == "No batch found with id 'batch_nothing'."


def test_no_key_and_a_bad_key_are_401(world):
    for key in (None, "sk-bw-wrong"):
        for method, path in [("GET", "/v1/files"), ("POST", "/v1/batches"), ("POST", "/v1/files"), ("GET", "/v1/keys")]:
            answer = world.ask(method, path, key=key)
            assert (answer.status, answer.error["code"], answer.error["type"]) == (
                401, "invalid_api_key", "invalid_request_error",
            )  # fmt: skip
    assert world.ask("POST", "/v1/keys", {"name": "n"}, key=world.served.key("plain")).status == 403


def test_ended_batches_cannot_be_cancelled(world, failed):
    done = world.run(chat(1))["id"]
    for batch_id, status in [(done, "completed"), (failed["GET"]["id"], "failed")]:
        answer = world.ask("POST", f"/v1/batches/{batch_id}/cancel")
        assert answer.status == 409
        assert answer.error["message"] == f"Cannot cancel a batch with status '{status}'."
        assert world.batch(batch_id)["status"] == status
    for batch_id in (done, failed["GET"]["id"]):
        assert world.ask("POST", f"/v1/batches/{batch_id}/retry").status == 409, "nothing to try again"


def test_a_file_in_use_cannot_be_deleted_until_its_batch_ends(world):
    file_id = world.upload(chat(2, "frozen"))
    batch_id = world.create(file_id)["id"]
    answer = world.ask("DELETE", f"/v1/files/{file_id}")
    assert (answer.status, answer.error["code"]) == (409, "file_in_use")
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    world.ask("POST", f"/v1/batches/{batch_id}/cancel")
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"][0]["remote_status"] == "cancelling" or batch["status"] == "cancelled")
    world.simulators["still"].advance(60)
    batch = world.wait(batch_id)
    assert world.ask("DELETE", f"/v1/files/{file_id}").json == {"id": file_id, "object": "file", "deleted": True}
    assert world.ask("GET", f"/v1/files/{file_id}/content").status == 404
    assert world.ask("POST", f"/v1/batches/{batch_id}/retry").status == 409
    assert len(world.files_of(batch)[1]) == 2


def test_the_same_idempotency_key_makes_one_batch_also_for_twenty_at_once(world):
    file_id = world.upload(chat(2))
    wanted = {**GOOD, "input_file_id": file_id, "metadata": {"once": file_id}}
    start = threading.Barrier(20)

    def create(_: int) -> tuple[int, str]:
        start.wait()
        answer = world.ask("POST", "/v1/batches", wanted, Idempotency_Key=f"twenty-{file_id}")
        return answer.status, answer.json["id"]

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(create, range(20)))
    ((status, batch_id),) = answers
    assert status == 200
    assert [row["id"] for row in world.rows("select id from batches where input_file_id = :f", f=file_id)] == [batch_id]
    other = world.ask("POST", "/v1/batches", {**wanted, "metadata": None}, Idempotency_Key=f"twenty-{file_id}")
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")
    assert world.wait(batch_id)["status"] == "completed"
    assert create_again(world, wanted, f"twenty-{file_id}") == batch_id, "also when it has ended"


def create_again(world: Running, wanted: dict, key: str) -> str:
    return world.ask("POST", "/v1/batches", wanted, Idempotency_Key=key).json["id"]


def test_a_retry_asked_twenty_times_with_one_key_makes_one_batch(world):
    old = world.run(jsonl(line(number, simulate="400") for number in range(3)))["id"]
    start = threading.Barrier(20)

    def retry(_: int) -> str:
        start.wait()
        return world.ask("POST", f"/v1/batches/{old}/retry", Idempotency_Key=f"retry-{old}").json["id"]

    with ThreadPoolExecutor(20) as pool:
        made = set(pool.map(retry, range(20)))
    assert len(made) == 1
    rows = world.rows("select id from batches where json_extract(extra, '$.retry_of') = :old", old=old)
    assert {row["id"] for row in rows} == made


def begin(world: Running, size: int) -> HTTPConnection:
    """An upload whose head is sent."""
    connection = HTTPConnection("127.0.0.1", world.gateway.port, timeout=20)
    connection.putrequest("POST", "/v1/files")
    for name, value in {"Authorization": f"Bearer {MASTER}", "Content-Type": FORM, "Content-Length": str(size)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def test_an_oversized_upload_is_a_413_before_it_is_sent(world):
    connection = begin(world, 9 << 30)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["type"] == "invalid_request_error"
    connection.close()
    assert world.served.upload(b"x" * (81 << 20), purpose="user_data").status == 413
    assert world.ask("POST", "/v1/batches", b"{" + b" " * (17 << 20)).status == 413


def test_a_client_that_leaves_midway_leaves_nothing(world):
    body = form({"purpose": "batch"}, "in.jsonl", chat(5000), {})
    before = world.rows("select count(*) as n from files")
    for _ in range(3):
        connection = begin(world, len(body))
        connection.send(body[: len(body) // 2])
        connection.close()
    assert world.upload(chat(1)), "others are served"
    left = world.rows("select count(*) as n from files")
    assert left[0]["n"] == before[0]["n"] + 1
    deadline = time.monotonic() + 10
    while world.strays():
        assert time.monotonic() < deadline, "also no half-written object"
        time.sleep(0.02)  # the server hears of it a moment later
