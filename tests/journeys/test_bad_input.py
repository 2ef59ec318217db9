"""Bad files and lines get OpenAI's own error with the line's number, and nothing is lost."""

from __future__ import annotations

import json

import pytest

from tests.journeys.trips import CHAT, chat

GOOD = {"endpoint": CHAT, "completion_window": "24h"}
BODY = {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}
MISMATCH = "The URL provided for this request does not match the batch endpoint."
NOT_JSON = "This line is not parseable as valid JSON."
NOT_SERVED = "The provided model 'fsat' is not supported by the Batch API."
MISSING = "Missing required parameter: "
EMBEDDING = {"model": "fast", "input": "x"}


pytestmark = pytest.mark.usefixtures("nothing_is_lost")


def raw(**changes) -> bytes:
    """One line with fields changed; None leaves a field out."""
    request = {"custom_id": "row-1", "method": "POST", "url": CHAT, "body": BODY, **changes}
    return json.dumps({name: value for name, value in request.items() if value is not ...}).encode()


def body(**changes) -> bytes:
    """One line with fields of its body changed."""
    return raw(body={**BODY, **changes})


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
    ("no custom_id", raw(custom_id=...), "missing_required_parameter", "custom_id", f"{MISSING}'custom_id'."),
    ("no method", raw(method=...), "missing_required_parameter", "method", f"{MISSING}'method'."),
    ("no url", raw(url=...), "missing_required_parameter", "url", f"{MISSING}'url'."),
    ("no body", raw(body=...), "missing_required_parameter", "body", f"{MISSING}'body'."),
    ("a null body", raw(body=None), "missing_required_parameter", "body", f"{MISSING}'body'."),
    ("a numeric custom_id", raw(custom_id=1), "invalid_type", "custom_id", "Invalid type for 'custom_id'"),
    ("an empty custom_id", raw(custom_id=""), "invalid_value", "custom_id", "Invalid value for 'custom_id'"),
    ("a method that is a list", raw(method=["POST"]), "invalid_type", "method", "Invalid type for 'method'"),
    ("GET", raw(method="GET"), "invalid_method", "method", "Invalid method"),
    ("post", raw(method="post"), "invalid_method", "method", "Invalid method"),
    ("a text as body", raw(body="text"), "invalid_type", "body", "Invalid type for 'body'"),
    ("another endpoint", raw(url="/v1/embeddings", body=EMBEDDING), "invalid_url", "url", MISMATCH),
    ("another endpoint's url", raw(url="/v1/embeddings"), "invalid_url", "url", MISMATCH),
    ("a whole url", raw(url=f"https://api.openai.com{CHAT}"), "invalid_url", "url", MISMATCH),
    ("no version", raw(url="/chat/completions"), "invalid_url", "url", MISMATCH),
    ("a used custom_id", raw(custom_id="row-0"), "duplicate_custom_id", "custom_id", "The custom_id 'row-0' is used"),
    ("no model", body(model=None), "invalid_request", "body.model", "Model parameter is required."),
    ("a model that is a list", body(model=[]), "invalid_type", "body.model", "Invalid type for 'body.model'"),
    ("no messages", body(messages=None), "invalid_request", "body.messages", "Messages parameter is required."),
    ("a stream", body(stream=True), "streaming_unsupported", "body.stream", "Streaming is not supported in the Batch"),
    ("an unknown model", body(model="fsat"), "model_not_found", "body.model", f"{NOT_SERVED} Near names: fast"),
]


@pytest.fixture(scope="module")
def failed(world):
    """Every faulty line between two good ones, all batches at once: the ended batch of each."""
    ids = {
        name: world.create(world.upload(b"\n".join([raw(custom_id="row-0"), bad, raw(custom_id="row-2")]) + b"\n"))[
            "id"
        ]
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
    lines = [
        raw(custom_id="row-0"),
        b"{",
        raw(custom_id="row-0", url="/v1/x"),
        raw(method="GET"),
        raw(custom_id="row-9"),
    ]
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
    bad = (
        b"\n".join(
            [
                raw(custom_id="row-0"),
                *(one[1] for one in FAULTS if one[2] != "model_not_found" and b"embeddings" not in one[1]),
            ]
        )
        + b"\n"
    )
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
    assert (answer.status, answer.error["param"], answer.error["code"]) == (
        400,
        "input_file_id",
        "invalid_file_purpose",
    )
    estimate = world.ask("POST", "/v1/batches/estimate", {"input_file_id": file_id})
    assert (estimate.status, estimate.error["code"]) == (400, "invalid_file_purpose")
