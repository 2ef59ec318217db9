"""The parts of the SDK that need no gateway: arguments, objects, results, sources, errors."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
from array import array
from decimal import Decimal
from pathlib import Path

import pytest
from multipart import MultipartSegment, PushMultipartParser

import batchway
from batchway import Client, Result
from batchway.sdk import calls
from batchway.sdk.caller import retry_after
from batchway.sdk.content import Content
from batchway.sdk.errors import status_error
from batchway.sdk.lines import prepared
from batchway.sdk.objects import Batch, BatchPage, Object, made
from batchway.sdk.transport import play
from batchway.sdk.upload import body, source

BATCH = {
    "id": "batch_1", "status": "completed", "metadata": {"to_dict": "a"}, "errors": None, "new": {"deep": [{"x": 1}]},
    "request_counts": {"total": 3, "completed": 2, "failed": 1}, "batchway": {"jobs": [{"id": "job_1"}]},
}  # fmt: skip


class Unreachable:
    """A transport that must not be used."""

    async def send(self, call: object) -> object:
        raise AssertionError("something was sent")

    async def close(self) -> None:
        pass


# Arguments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "param"),
    [
        ("create_file", {"file": 3}, "file"),
        ("create_file", {"file": "/nowhere/at/all.jsonl"}, "file"),
        ("create_file", {"file": io.StringIO("text")}, "file"),
        ("create_file", {"file": ("a",)}, "file"),
        ("create_file", {"file": b"", "purpose": ""}, "purpose"),
        ("create_file", {"file": b"", "expires_after": {"seconds": 1}}, "expires_after"),
        ("create_batch", {"endpoint": "/v1/x", "completion_window": "24h"}, "input_file_id"),
        ("create_batch", {"endpoint": "x", "completion_window": "24h", "input_file_id": "f"}, "endpoint"),
        ("create_batch", {"endpoint": "/v1/x", "completion_window": "soon", "input_file_id": "f"}, "completion_window"),
        (
            "create_batch",
            {"endpoint": "/v1/x", "completion_window": "1h", "input_file_id": "f", "metadata": {"k": 1}},
            "metadata.k",
        ),
        (
            "create_batch",
            {"endpoint": "/v1/x", "completion_window": "1h", "requests": [{"a": object()}]},
            None,
        ),
        ("list_batches", {"limit": 0}, "limit"),
        ("list_batches", {"limit": 101}, "limit"),
        ("list_batches", {"order": "up"}, "order"),
        ("file_list", {"limit": 10_001}, "limit"),
        ("retrieve_batch", {"batch_id": ""}, "batch_id"),
        ("retrieve_batch", {"batch_id": None}, "batch_id"),
        ("file_content", {"file_id": ".."}, "file_id"),
        ("file_retrieve", {"file_id": "f", "extra_body": {"a": 1}}, "extra_body"),
        ("run", {"source": "no-such-file.jsonl"}, "source"),
        ("run", {"source": []}, "source"),
        ("run", {"source": ["a"]}, "model"),
        ("run", {"source": [{"input": "a"}], "model": "m"}, "endpoint"),
        ("run", {"source": ["a", 3], "model": "m"}, "source"),
        ("run", {"source": {"a": 1}, "model": "m"}, "source"),
        ("run", {"source": io.BytesIO(b"{not json\n")}, "source"),
        ("run", {"source": io.BytesIO(b"\n \n")}, "source"),
        ("run", {"source": ["a"], "model": "m", "completion_window": "soon"}, "completion_window"),
    ],
)
def test_a_bad_argument_is_told_before_anything_is_sent(name, given, param):
    with pytest.raises(batchway.BadRequestError) as refused:
        getattr(Client(transport=Unreachable()), name)(**given)
    assert refused.value.param == param
    assert refused.value.status_code == 400
    assert refused.value.request_id is None


@pytest.mark.parametrize("given", [{"batch": "x"}, {"batch_id": "x", "timeou": 3}, {}])
def test_a_wrong_call_is_a_type_error(given):
    with pytest.raises(TypeError, match="retrieve_batch"):
        Client(transport=Unreachable()).retrieve_batch(**given)


@pytest.mark.parametrize("url", ["ftp://x", "localhost:4000", "http://", "http://x?a=1"])
def test_a_base_url_that_is_none_is_told(url):
    with pytest.raises(batchway.BadRequestError, match="base_url"):
        Client(base_url=url)


def test_an_id_cannot_change_the_path():
    assert calls.retrieve_batch("../keys?x=1#y").path == "/v1/batches/..%2Fkeys%3Fx%3D1%23y"


def test_a_call_tells_the_provider_and_the_callers_headers_win():
    made_call = calls.create_batch(
        "24h", "/v1/x", "f", custom_llm_provider="main", extra_headers={"Idempotency-Key": "k", "X-Own": "1"}
    )
    assert made_call.headers["custom-llm-provider"] == "main"
    assert (made_call.headers["idempotency-key"], made_call.headers["x-own"]) == ("k", "1")


def test_a_transport_that_suspends_is_no_blocking_one():
    import asyncio

    with pytest.raises(RuntimeError, match="suspended"):
        play(asyncio.sleep(0))


# Objects --------------------------------------------------------------------------------------------------------------


def test_an_object_has_openais_attributes_and_keeps_what_it_does_not_know():
    batch = made(Batch, BATCH)
    assert batch.request_counts.failed == 1
    assert batch.batchway.jobs[0].id == "job_1"
    assert batch.new.deep[0].x == 1
    assert batch.metadata == {"to_dict": "a"}
    assert batch.to_dict() == batch.model_dump(exclude_none=True) == BATCH
    assert json.loads(batch.to_json()) == json.loads(batch.model_dump_json()) == BATCH
    assert "\n" in batch.to_json()
    assert repr(batch).startswith("Batch(id='batch_1', status='completed'")
    with pytest.raises(AttributeError):
        batch.nothing  # noqa: B018


def test_objects_can_be_compared_copied_and_pickled():
    batch = made(Batch, BATCH)
    assert batch == made(Batch, BATCH)
    assert batch != Object(BATCH)
    assert copy.deepcopy(batch) == batch
    assert pickle.loads(pickle.dumps(batch)) == batch


def test_a_page_holds_objects_of_its_kind():
    page = made(BatchPage, {"object": "list", "data": [BATCH], "has_more": False, "last_id": "batch_1"})
    assert len(page) == 1
    assert next(iter(page)) == made(Batch, BATCH)
    assert page.to_dict()["data"] == [BATCH]


# Results --------------------------------------------------------------------------------------------------------------


def result(body: object, status: int = 200, **fields: object) -> Result:
    response = {"status_code": status, "request_id": "r", "body": body}
    return Result({"custom_id": "a", "response": response, "error": None, **fields})


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"choices": [{"message": {"content": "chat"}}]}, "chat"),
        ({"choices": [{"message": {"content": None, "tool_calls": []}}]}, None),
        ({"choices": [{"text": "completion"}]}, "completion"),
        ({"choices": []}, None),
        (
            {
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "content": [{"type": "output_text", "text": "re"}, {"type": "refusal"}]},
                    {"type": "message", "content": [{"type": "output_text", "text": "sponse"}]},
                ]
            },
            "response",
        ),
        ({"data": [{"embedding": [0.5]}]}, None),
    ],
)
def test_the_text_of_each_endpoints_answer(answer, text):
    assert result(answer).text == text
    assert result(answer).error is None


def test_embeddings_come_as_numbers_in_both_encodings():
    packed = base64.b64encode(array("f", [0.5, -2.0]).tobytes()).decode()
    assert result({"data": [{"embedding": [0.5, -2.0]}]}).embedding == [0.5, -2.0]
    assert result({"data": [{"embedding": packed}]}).embedding == [0.5, -2.0]
    assert result({"choices": [{"text": "x"}]}).embedding is None


def test_a_failure_tells_why():
    refused = result({"error": {"message": "Too long.", "code": "context"}}, 400)
    assert (refused.error.code, refused.error.message, refused.error.status_code) == ("context", "Too long.", 400)
    assert (refused.ok, refused.text, refused.usage) == (False, None, None)
    unsent = Result({"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "Late."}})
    assert str(unsent.error) == "batch_expired: Late."
    assert unsent.body is None
    assert result("<html>", 502).error.message == "The provider answered with status 502."
    assert "error='context: Too long.'" in repr(refused)


def test_an_amount_is_exact_and_an_unknown_one_is_none():
    assert result({}, amount_usd="0.000000000001").cost == Decimal("0.000000000001")
    assert result({}).cost is None
    assert json.loads(result({}, cursor="1.2").to_json())["cursor"] == "1.2"


# Sources and lines ----------------------------------------------------------------------------------------------------


def parsed(sent: bytes, content_type: str) -> dict[str, tuple[str | None, bytes]]:
    parts: dict[str, tuple[str | None, bytes]] = {}
    with PushMultipartParser(content_type.partition("boundary=")[2]) as parser:
        name = ""
        for found in parser.parse(sent):
            if isinstance(found, MultipartSegment):
                name = found.name
                parts[name] = (found.filename, b"")
            elif found:
                parts[name] = (parts[name][0], parts[name][1] + bytes(found))
    return parts


@pytest.mark.parametrize("name", ["plain.jsonl", 'quo"te\r\nx-evil: 1.jsonl', "ünïcode 文件.jsonl", "100%.jsonl"])
def test_a_multipart_body_is_what_a_parser_reads(name):
    made_body = body((name, b"a\r\n--b--\r\n"), {"purpose": "batch"})
    sent = b"".join(made_body.pieces())
    assert len(sent) == made_body.size
    parts = parsed(sent, made_body.content_type)
    assert parts["purpose"] == (None, b"batch")
    assert parts["file"][1] == b"a\r\n--b--\r\n"
    assert set(parts) == {"purpose", "file"}


def test_sources_are_named_and_measured(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"abc")
    with path.open("rb") as opened:
        opened.read(1)
        rest = source(opened)
        assert (rest.filename, rest.size, b"".join(rest.pieces())) == ("in.jsonl", 2, b"bc")
        assert b"".join(rest.pieces()) == b"bc"
    for given in (path, str(path), b"abc", bytearray(b"abc"), ("x", path), (None, b"abc", "text/plain")):
        assert b"".join(source(given).pieces()) == b"abc"
    assert source(("x", b"", "text/plain")).content_type == "text/plain"
    assert source(b"").filename == "upload.jsonl"


def lines_of(*given: object, **settings: object) -> list[dict]:
    made_input = prepared(*given, **{"model": "m", "endpoint": None, **settings})
    return [json.loads(line) for line in b"".join(made_input.source.pieces()).splitlines()]


def test_prompts_bodies_and_whole_lines_become_lines():
    chat = {"custom_id": "line-1", "method": "POST", "url": "/v1/chat/completions"}
    said = {"messages": [{"role": "user", "content": "hi"}]}
    assert lines_of(["hi"]) == [{**chat, "body": {**said, "model": "m"}}]
    assert lines_of([{**said, "model": "own"}])[0]["body"]["model"] == "own"
    assert lines_of([{"prompt": "hi"}])[0]["url"] == "/v1/completions"
    assert lines_of(["hi"], endpoint="/v1/embeddings")[0]["body"] == {"input": "hi", "model": "m"}
    assert lines_of(["hi"], endpoint="/v1/responses")[0]["body"]["input"] == "hi"
    assert lines_of(["hi"], endpoint="/v1/completions")[0]["body"]["prompt"] == "hi"
    whole = {"custom_id": "x", "method": "POST", "url": "/v1/embeddings", "body": {"model": "own", "input": "a"}}
    assert lines_of([whole]) == [whole]
    assert lines_of(iter([whole]))[0] == whole


def test_the_endpoint_is_the_first_lines(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('\n{"custom_id": "b", "url": "/v1/embeddings"}\n\n{"custom_id": "a"}')
    made_input = prepared(path, None, None)
    assert made_input.endpoint == "/v1/embeddings"
    assert prepared(path, None, "/v1/x").endpoint == "/v1/x"
    with path.open("rb") as opened:
        kept = prepared(opened, None, None)
    assert kept.endpoint == "/v1/embeddings"


# Content and errors ---------------------------------------------------------------------------------------------------


def content(*pieces: bytes) -> Content:
    return Content(iter(pieces), {})


def test_content_comes_in_any_form(tmp_path: Path):
    assert content(b"ab", b"c").content == b"abc"
    assert list(content(b"ab", b"cde").iter_bytes(2)) == [b"ab", b"cd", b"e"]
    assert list(content(b"a\nb", b"b\n\nc").iter_lines()) == ["a", "bb", "", "c"]
    once = content(b"ab")
    assert (once.text, once.read(), list(once.iter_bytes())) == ("ab", b"ab", [b"ab"])
    with content(b"x") as written:
        written.write_to_file(tmp_path / "out")
        with pytest.raises(RuntimeError, match="streamed already"):
            written.read()
    assert (tmp_path / "out").read_bytes() == b"x"
    content(b"x").write_to_file("/dev/null")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, batchway.BadRequestError),
        (401, batchway.AuthenticationError),
        (403, batchway.PermissionDeniedError),
        (404, batchway.NotFoundError),
        (409, batchway.ConflictError),
        (413, batchway.RequestTooLargeError),
        (422, batchway.UnprocessableEntityError),
        (429, batchway.RateLimitError),
        (502, batchway.InternalServerError),
        (418, batchway.APIStatusError),
    ],
)
def test_each_status_is_its_error(status, kind):
    told = {"message": "No.", "type": "t", "param": "p", "code": "c"}
    error = status_error(status, {"x-request-id": "req"}, json.dumps({"error": told}).encode())
    assert type(error) is kind
    assert isinstance(error, batchway.APIError)
    assert (error.message, error.type, error.param, error.code) == ("No.", "t", "p", "c")
    assert (error.status_code, error.request_id, error.body) == (status, "req", told)
    assert str(error) == "No. (request id req)"


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"error": "text"}', b"\xff", b""])
def test_an_error_that_is_none_of_ours_tells_its_status(answer):
    error = status_error(502, {}, answer)
    assert str(error) == "The gateway answered with status 502."
    assert error.body is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "9", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:05 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:05 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert retry_after(headers) == seconds
