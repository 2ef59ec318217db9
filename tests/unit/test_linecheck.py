from __future__ import annotations

import hashlib
import json
import math
import sys

import msgspec
import pytest

from batchway.core import linecheck, linefaults
from batchway.core.fingerprints import Fingerprints
from batchway.core.linecheck import Findings, LineCheck, ModelStats
from batchway.core.spans import BLOCK_LINES, decode_index
from batchway.core.tokenguess import guess
from batchway.wire.batches import ENDPOINTS
from batchway.wire.errors import LineFault

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


def line(custom_id="a", body=None, **changes) -> bytes:
    fields = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body or CHAT} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def check(*lines: bytes, end: bytes = b"\n", piece: int = 1 << 18, **settings) -> Findings:
    return check_bytes(b"\n".join(lines) + end, piece=piece, **settings)


def check_bytes(data: bytes, piece: int = 1 << 18, **settings) -> Findings:
    checking = LineCheck(**settings)
    for start in range(0, len(data), piece):
        checking.feed(data[start : start + piece])
    return checking.finish()


def only_fault(findings: Findings) -> LineFault:
    assert findings.fault_count == 1
    return findings.faults[0]


def told(findings: Findings) -> list[tuple]:
    return [(fault.line, fault.code, fault.param) for fault in findings.faults]


def test_a_clean_file_has_its_hash_counts_and_no_fault():
    data = b"\n".join([line("a"), line("b", {**CHAT, "model": "x", "max_tokens": 7, "n": 2}), line("c")]) + b"\n"
    found = check_bytes(data)
    assert (found.bytes, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (found.lines, found.fault_count, found.faults, found.unreadable) == (3, 0, [], False)
    assert found.urls == {"/v1/chat/completions": 3}
    tokens = math.ceil(guess(msgspec.Raw(json.dumps(CHAT["messages"]).encode())))
    assert found.models["x"] == ModelStats(
        1, len(line("b", {**CHAT, "model": "x", "max_tokens": 7, "n": 2})) + 1, tokens, 14, 0
    )
    assert found.models["gpt-4o-mini"].lines == 2
    assert found.models["gpt-4o-mini"].unlimited == 2


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_every_name_of_the_output_limit_counts(name):
    assert check(line(body={**CHAT, name: 5})).models["gpt-4o-mini"].output_limit == 5


def test_absurd_limits_stay_within_64_bits():
    stats = check(line(body={**CHAT, "max_tokens": 10**30}), line("b", {**CHAT, "max_tokens": -5, "n": -1})).models
    assert 0 < stats["gpt-4o-mini"].output_limit < 1 << 33


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 18])
def test_the_size_of_the_pieces_changes_nothing(piece):
    data = b"\r\n".join([line("ä"), b"", b"{", line("b"), line("b"), b"\xff", line("c", {**CHAT, "model": None})])
    assert check_bytes(data, piece) == check_bytes(data)
    assert [code for _, code, _ in told(check_bytes(data))] == [
        "invalid_json_line", "invalid_json_line", "duplicate_custom_id", "invalid_json_line", "invalid_request",
    ]  # fmt: skip


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \n"])
def test_the_last_line_may_end_as_it_likes(end):
    found = check(line("a"), line("b"), end=end)
    assert (found.lines, found.fault_count) == (2, 0)


def test_crlf_is_accepted():
    assert check_bytes(line("a") + b"\r\n" + line("b") + b"\r\n").fault_count == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"{", linefaults.NOT_JSON),
        (line()[:-1] + b",}", linefaults.NOT_JSON),
        (line() + line("b"), linefaults.NOT_JSON),
        (line().replace(b'"hi"', b'"hi'), linefaults.NOT_JSON),
        (line().replace(b'"hi"', b'"\xff"'), linefaults.NOT_UTF8),
        (line().replace(b'"hi"', b'"\xed\xa0\x80"'), linefaults.NOT_UTF8),
        (line().replace(b'"hi"', b'"' + b"\\" + b'ud83d "'), linefaults.HALF_PAIR),
        (line().replace(b'"hi"', b'"' + b"\\" + b'udc00 and more"'), linefaults.HALF_PAIR),
        (b"[" + line() + b"]", linefaults.NOT_OBJECT),
        (line().replace(b'"hi"', b"[" * 100_000 + b"]" * 100_000), linefaults.NOT_JSON),
        (b"\xef\xbb\xbf" + line(), linefaults.BOM),
    ],
)
def test_what_is_not_json_is_named(bad, message):
    assert only_fault(check(bad, line("z"))) == LineFault(code="invalid_json_line", message=message, line=1)


def test_openai_s_words_are_used():
    assert linefaults.NOT_JSON == "This line is not parseable as valid JSON."
    assert only_fault(check(line(url=...))).message == "Missing required parameter: 'url'."
    assert only_fault(check(line(body={"messages": [1, 2, 3]}))).message == "Model parameter is required."
    assert only_fault(check(line(body={"model": "m"}))).message == "Messages parameter is required."


@pytest.mark.parametrize("name", ["custom_id", "method", "url", "body"])
@pytest.mark.parametrize("value", [..., None])
def test_missing_parameters_are_faults(name, value):
    bad = json.loads(line()) | {name: value}
    if value is ...:
        del bad[name]
    bad = json.dumps(bad | {"padding": "x" * 60}).encode()
    assert told(check(bad)) == [(1, "missing_required_parameter", name)]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"custom_id": 7}, "invalid_type", "custom_id"),
        ({"custom_id": ""}, "invalid_value", "custom_id"),
        ({"method": ["POST"]}, "invalid_type", "method"),
        ({"method": "GET"}, "invalid_method", "method"),
        ({"url": {}}, "invalid_type", "url"),
        ({"url": "/v1/nonsense/of/mine"}, "invalid_url", "url"),
        ({"body": "text that is long enough"}, "invalid_type", "body"),
        ({"body": [CHAT]}, "invalid_type", "body"),
        ({"body": {**CHAT, "model": 4}}, "invalid_type", "body.model"),
        ({"body": {**CHAT, "model": "m" * 257}}, "invalid_value", "body.model"),
        ({"body": {**CHAT, "model": "a\u0000b"}}, "invalid_value", "body.model"),
        ({"body": {**CHAT, "stream": "yes"}}, "invalid_type", "body.stream"),
        ({"body": {**CHAT, "stream": True}}, "streaming_unsupported", "body.stream"),
        ({"body": {"model": "m"}}, "invalid_request", "body.messages"),
        ({"body": {"model": "m", "messages": None}}, "invalid_request", "body.messages"),
        ({"body": {"messages": CHAT["messages"]}}, "invalid_request", "body.model"),
        ({"body": {**CHAT, "model": ""}}, "invalid_request", "body.model"),
        ({"url": "/v1/embeddings"}, "invalid_request", "body.input"),
        ({"url": "/v1/responses"}, "invalid_request", "body.input"),
        ({"url": "/v1/completions"}, "invalid_request", "body.prompt"),
    ],
)
def test_each_fault_has_its_code_line_and_param(changes, code, param):
    assert told(check(line("z"), line(**changes))) == [(2, code, param)]


def test_every_endpoint_of_the_wire_is_checked():
    assert tuple(linefaults.CONTENT) == ENDPOINTS


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/embeddings", {"input": ""}),
        ("/v1/embeddings", {"input": ["a", "b"]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/responses", {"prompt": {"id": "pmpt_1"}}),
        ("/v1/responses", {"input": "x", "max_output_tokens": "five", "n": [1.5]}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": [1], "stream": False}),
        ("/v1/chat/completions", {"messages": [1], "stream": None, "n": None, "max_tokens": None}),
    ],
)
def test_what_only_the_provider_may_forbid_passes(url, body):
    assert check(line(body={"model": "m", **body}, url=url)).fault_count == 0


def test_numbers_out_of_range_in_fields_that_nobody_looks_at_pass():
    assert check(line(body={**CHAT, "seed": 7}).replace(b"7", b"1e999")).fault_count == 0


def test_a_line_has_one_fault_the_most_basic_one():
    assert told(check(line(""), line(method="GET", url="/no", body={"stream": True}))) == [
        (1, "invalid_value", "custom_id"),
        (2, "invalid_method", "method"),
    ]


def test_duplicates_are_found_however_they_are_written():
    found = check(line("a"), line("b"), line("a"), line("a").replace(b'"a"', rb'"\u0061"'), line("b", method="GET"))
    assert [(number, code) for number, code, _ in told(found)] == [
        (3, "duplicate_custom_id"),
        (4, "duplicate_custom_id"),
        (5, "invalid_method"),
    ]
    assert "'a'" in found.faults[0].message
    assert len(only_fault(check(line("x" * 5000), line("x" * 5000))).message) < 250


def test_blank_lines_inside_are_faults():
    assert told(check(line("a"), b"", b" \r", line("b"), b"")) == [
        (2, "invalid_json_line", None),
        (3, "invalid_json_line", None),
    ]


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\n\r\n"])
def test_a_file_without_lines_is_empty(data):
    found = check_bytes(data)
    assert only_fault(found) == LineFault(code="empty_file", message="The file holds no lines.")
    assert found.lines == 0
    assert decode_index(found.index).blocks == []


@pytest.mark.parametrize("piece", [10, 1 << 18])
def test_a_line_over_the_limit_is_a_fault_and_the_next_is_read(piece):
    found = check(line("a"), line("b", {**CHAT, "x": "y" * 5000}), b"q" * 1000, line("c"), piece=piece, line_bytes=500)
    assert told(found) == [(2, "line_too_long", None), (3, "line_too_long", None)]
    assert found.lines == 4
    assert found.models["gpt-4o-mini"].lines == 2


def test_a_line_of_exactly_the_limit_passes():
    assert check(line("abc"), line_bytes=len(line("abc"))).fault_count == 0
    assert check(line("abc"), line_bytes=len(line("abc")) - 1).fault_count == 1


def test_faults_beyond_the_kept_ones_are_counted(monkeypatch):
    monkeypatch.setattr(linecheck, "MAX_FAULTS", 5)
    no_model = line("m", {"messages": [1, 2, 3]})
    found = check(no_model, *[b"{"] * 7, *[b"{" * 100] * 3, b"", line("b"))
    assert found.fault_count == 12
    assert [fault.line for fault in found.faults] == [2, 3, 4, 5, 6]


def test_a_missing_model_may_be_waived_and_tells_how_often():
    lines = [
        line(str(number), {"messages": CHAT["messages"], "model": model})
        for number, model in enumerate(["", None, "m"])
    ]
    found = check(*lines, line("0", {"messages": [1, 2]}))
    assert [linefaults.waivable(fault) for fault in found.faults] == [True, True, False]
    assert found.faults[-1].code == "duplicate_custom_id"
    assert found.fault_count - found.models[""].lines == 1
    assert found.lines == 4
    assert decode_index(found.index).blocks[0].models[""].lines == 2


def test_the_number_of_models_is_bounded(monkeypatch):
    monkeypatch.setattr(linefaults, "MAX_MODELS", 3)
    found = check(*[line(str(n), {**CHAT, "model": f"m{n % 5}"}) for n in range(10)])
    assert {fault.code for fault in found.faults} == {"too_many_models"}
    assert set(found.models) == {"m0", "m1", "m2"}


def test_the_first_line_tells_whether_it_is_jsonl_at_all():
    assert check(b"PK\x03\x04").unreadable
    assert check(b"[", b"  {").unreadable
    assert check(b"", line()).unreadable
    assert not check(b"\xef\xbb\xbf" + line()).unreadable
    assert not check(b"{}").unreadable
    assert not check(line(), b"{").unreadable


def test_the_index_names_every_line_by_offset_and_number():
    lines = [line(str(n), {**CHAT, "model": f"m{n % 2}"}) for n in range(2 * BLOCK_LINES + 10)]
    data = b"\n".join(lines) + b"\n"
    found = check_bytes(data, 1000)
    index = decode_index(found.index)
    assert index.bytes == len(data)
    assert [block.first_line for block in index.blocks] == [1, BLOCK_LINES + 1, 2 * BLOCK_LINES + 1]
    for block, end in index.ends():
        part = data[block.offset : end].split(b"\n")[:-1]
        assert part == lines[block.first_line - 1 : block.first_line - 1 + len(part)]
        assert sum(tally.lines for tally in block.models.values()) == len(part)
        assert sum(tally.bytes for tally in block.models.values()) == end - block.offset
    assert {name: sum(block.models[name].lines for block in index.blocks) for name in found.models} == {
        name: stats.lines for name, stats in found.models.items()
    }


def test_large_lines_make_blocks_of_their_own(monkeypatch):
    monkeypatch.setattr(linecheck, "BLOCK_BYTES", 1000)
    lines = [line(str(n), {**CHAT, "x": "y" * size}) for n, size in enumerate([10, 10, 5000, 10, 900, 5])]
    found = check(*lines)
    assert [block.first_line for block in decode_index(found.index).blocks] == [1, 3, 4, 5, 6]


def test_without_looking_a_file_is_hashed_only():
    found = check(b"\xff not json", look=False)
    assert (found.fault_count, found.lines, found.bytes) == (0, 0, 11)
    assert found.sha256 == hashlib.sha256(b"\xff not json\n").hexdigest()


def test_fingerprints_find_every_repeat_and_stay_within_24_bytes_a_string():
    seen = Fingerprints()
    names = [f"request-{n}" for n in range(100_000)]
    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)
    held = sys.getsizeof(seen._buckets) + sum(map(sys.getsizeof, seen._buckets))
    assert held / len(names) < 24


def test_no_fault_holds_what_a_user_wrote_but_its_custom_id():
    secret = "sk-secret"
    bad = [line("a", {**CHAT, "stream": secret}), line("b", {**CHAT, "model": [secret]}), secret.encode(),
           line("c", method=secret), line("d", url=secret), line("e", {**CHAT, "model": secret * 99})]  # fmt: skip
    found = check(*bad)
    assert found.fault_count == 6
    assert secret.encode() not in msgspec.json.encode(found.faults)
