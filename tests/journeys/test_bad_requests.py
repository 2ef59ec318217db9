"""Bad requests get OpenAI's own error, and nothing is lost: the gateway goes on and keeps no trace of them."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from tests.journeys.serving import FORM, MASTER, form
from tests.journeys.trips import CHAT, Running, chat

pytestmark = pytest.mark.usefixtures("nothing_is_lost")

GOOD = {"endpoint": CHAT, "completion_window": "24h"}
MISSING = "missing_required_parameter"
KEPT = "output_expires_after"
SECONDS = f"{KEPT}.seconds"
BELOW = f"Invalid '{SECONDS}': integer below minimum value. Expected a value >= 3600, but got 10 instead."
ABOVE = f"Invalid '{SECONDS}': integer above maximum value. Expected a value <= 2592000, but got 2592001 instead."
LONG_NAME = "k" * 65
METADATA = [
    ({"a": 1}, "metadata.a", "invalid_type",
     "Invalid type for 'metadata.a': expected a string, but got an integer instead."),
    ({"a": None}, "metadata.a", "invalid_type",
     "Invalid type for 'metadata.a': expected a string, but got null instead."),
    ({"a": {}}, "metadata.a", "invalid_type",
     "Invalid type for 'metadata.a': expected a string, but got an object instead."),
    ([], "metadata", "invalid_type", "Invalid type for 'metadata'"),
    ("{}", "metadata", "invalid_type", "Invalid type for 'metadata'"),
    ({str(number): "" for number in range(17)}, "metadata", "object_above_max_properties",
     ("Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
      "but got an object with 17 properties instead.")),
    ({"a": "x" * 513}, "metadata.a", "string_above_max_length",
     ("Invalid 'metadata.a': string too long. Expected a string with maximum length 512, "
      "but got a string with length 513 instead.")),
    ({LONG_NAME: "v"}, f"metadata.{LONG_NAME}", "property_name_above_max_length",
     ("Invalid property name in 'metadata': 'kkk...kkk' is too long. Expected a string with maximum length 64, "
      "but got a string with length 65 instead.")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "param", "code", "message"),
    [
        *(({"metadata": metadata}, *expected) for metadata, *expected in METADATA),
        ({"input_file_id": None}, "input_file_id", MISSING, "Missing required parameter: 'input_file_id'."),
        ({"endpoint": ...}, "endpoint", MISSING, "Missing required parameter: 'endpoint'."),
        ({"completion_window": ...}, "completion_window", MISSING, "Missing required parameter: 'completion_window'."),
        ({"endpoint": "/v1/x"}, "endpoint", "invalid_value", "Invalid value: '/v1/x'. Supported values are: '/v1/"),
        (
            {"endpoint": None},
            "endpoint",
            "invalid_type",
            "Invalid type for 'endpoint': expected a string, but got null",
        ),
        ({"completion_window": "1x"}, "completion_window", "invalid_value", "Invalid value: '1x'."),
        ({"completion_window": "0h"}, "completion_window", "invalid_value", "Invalid value: '0h'."),
        ({"completion_window": "31d"}, "completion_window", "invalid_value", "Invalid value: '31d'."),
        ({"completion_window": "٣h"}, "completion_window", "invalid_value", "Invalid value"),
        ({"completion_window": 24}, "completion_window", "invalid_type", "Invalid type for 'completion_window': expec"),
        ({"input_file_id": ["f"]}, "input_file_id", "invalid_type", "Invalid type for 'input_file_id'"),
        ({KEPT: {"anchor": "created_at", "seconds": 10}}, SECONDS, "integer_below_min_value", BELOW),
        ({KEPT: {"anchor": "created_at", "seconds": 2592001}}, SECONDS, "integer_above_max_value", ABOVE),
        ({KEPT: {"anchor": "now", "seconds": 3600}}, f"{KEPT}.anchor", "invalid_value", "Invalid value"),
        ({KEPT: {"seconds": 3600}}, f"{KEPT}.anchor", MISSING, f"Missing required parameter: '{KEPT}.anchor'."),
        ({"custom_llm_provider": "x"}, "custom_llm_provider", "invalid_value", "No provider 'x' is configured."),
    ],
)
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
    if (method, path) == ("GET", "/v1/batches/batch_nothing"):
        assert answer.error["message"] == "No batch found with id 'batch_nothing'."


def test_no_key_and_a_bad_key_are_401(world):
    for key in (None, "sk-bw-wrong"):
        for method, path in [("GET", "/v1/files"), ("POST", "/v1/batches"), ("POST", "/v1/files"), ("GET", "/v1/keys")]:
            answer = world.ask(method, path, key=key)
            assert (answer.status, answer.error["code"], answer.error["type"]) == (
                401, "invalid_api_key", "invalid_request_error",
            )  # fmt: skip
    assert world.ask("POST", "/v1/keys", {"name": "n"}, key=world.served.key("plain")).status == 403


def test_ended_batches_cannot_be_cancelled(world):
    done, failed = world.run(chat(1))["id"], world.run(b'{"custom_id": "x"}')["id"]
    for batch_id, status in [(done, "completed"), (failed, "failed")]:
        answer = world.ask("POST", f"/v1/batches/{batch_id}/cancel")
        assert answer.status == 409
        assert answer.error["message"] == f"Cannot cancel a batch with status '{status}'."
        assert world.batch(batch_id)["status"] == status
    for batch_id in (done, failed):
        assert world.ask("POST", f"/v1/batches/{batch_id}/retry").status == 409, "nothing to try again"


def test_a_file_in_use_cannot_be_deleted_until_its_batch_ends(world):
    file_id = world.upload(chat(2, "frozen"))
    batch_id = world.create(file_id)["id"]
    answer = world.ask("DELETE", f"/v1/files/{file_id}")
    assert (answer.status, answer.error["code"]) == (409, "file_in_use")
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    world.ask("POST", f"/v1/batches/{batch_id}/cancel")
    world.until(
        batch_id,
        lambda batch: batch["batchway"]["jobs"][0]["remote_status"] == "cancelling" or batch["status"] == "cancelled",
    )
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
