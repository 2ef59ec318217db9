from __future__ import annotations

from pathlib import Path
from typing import ClassVar, get_args

import pytest
from anthropic.types import StopReason

from batchway.dialects import anthropic
from batchway.dialects.anthropic.models import generation
from batchway.dialects.anthropic.schemas import closed
from batchway.dialects.protocol import CHAT, Refused
from batchway.testing.dialect_suite import DialectSuite, samples
from tests.unit.official_types import Official, judge

SAMPLES = Path(__file__).parent / "samples"


class TestAnthropic(Official, DialectSuite):
    dialect = anthropic
    model = "claude-haiku-4-5"
    requests: ClassVar = samples(SAMPLES / "anthropic_requests.jsonl")
    answers: ClassVar = samples(SAMPLES / "anthropic_answers.jsonl")


def chat(*messages, model="claude-haiku-4-5", **parameters):
    return anthropic.to_native(CHAT, {"model": "m", "messages": list(messages) or [user("x")], **parameters}, model)


def user(content):
    return {"role": "user", "content": content}


def refusal(*messages, **parameters):
    with pytest.raises(Refused) as caught:
        chat(*messages, **parameters)
    return caught.value.param, caught.value.code


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("claude-3-5-haiku@20241022", (3, 5)),
        ("claude-3-opus", (3, 0)),
        ("claude-3-7-sonnet@20250219", (3, 7)),
        ("claude-haiku-4-5-20251001", (4, 5)),
        ("claude-opus-4@20250514", (4, 0)),
        ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-opus-5-5@default", (5, 5)),
        ("publishers/anthropic/models/claude-sonnet-5", (5, 0)),
        ("my-tuned-model", (0, 0)),
    ],
)
def test_the_generation_is_read_from_the_name(name, known):
    assert generation(name) == known


def test_a_limit_is_always_sent():
    assert chat()["max_tokens"] == 32000
    assert chat(model="claude-3-haiku@20240307")["max_tokens"] == 4096
    assert chat(model="my-tuned-model")["max_tokens"] == 4096
    assert chat(max_tokens=5, max_completion_tokens=7)["max_tokens"] == 7


def test_sampling_is_sent_where_it_is_taken():
    assert chat(temperature=0.5)["temperature"] == 0.5
    assert chat(temperature=0.5, model="claude-opus-4-6")["temperature"] == 0.5
    assert "temperature" not in chat(temperature=1, model="claude-opus-4-7")
    assert refusal(temperature=0, model="claude-sonnet-5") == ("temperature", "unsupported_value")
    assert refusal(temperature=1.5) == ("temperature", "unsupported_value")


@pytest.mark.parametrize(
    ("model", "effort", "limit", "thinking"),
    [
        ("claude-sonnet-4-5", "low", 9000, {"type": "enabled", "budget_tokens": 1024}),
        ("claude-sonnet-4-5", "max", 9000, {"type": "enabled", "budget_tokens": 4500}),
        ("claude-sonnet-4-5", "max", 1025, {"type": "enabled", "budget_tokens": 1024}),
        ("claude-sonnet-4-5", "none", 9000, None),
        ("claude-opus-4-6", "none", 9000, {"type": "disabled"}),
        ("claude-opus-5", "xhigh", 100, {"type": "adaptive"}),
    ],
)
def test_effort_goes_by_the_generation_of_the_model(model, effort, limit, thinking):
    native = chat(model=model, reasoning_effort=effort, max_tokens=limit)
    assert native.get("thinking") == thinking
    assert ("effort" in native.get("output_config", {})) == (thinking == {"type": "adaptive"})


def test_thinking_that_does_not_fit_is_refused():
    assert refusal(reasoning_effort="low", max_tokens=1024)[0] == "reasoning_effort"
    assert refusal(reasoning_effort="low", model="claude-3-5-haiku")[0] == "reasoning_effort"


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"verbosity": "low"}, "verbosity"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_name(parameters, param):
    assert refusal(**parameters)[0] == param


def test_a_schema_needs_a_model_that_takes_it():
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    assert refusal(model="claude-3-5-haiku", response_format=wanted) == ("response_format", "unsupported_value")


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}, "type"),
        ({"type": "image_url", "image_url": {"url": "gs://b/a.png"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,QUJD"}}, "image_url.url"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "data:video/mp4;base64,QUJD"}}, "file.file_data"),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64,!"}}, "file.file_data"),
    ],
)
def test_parts_that_cannot_be_expressed_are_refused_by_their_place(part, param):
    assert refusal(user([part]))[0] == f"messages[0].content[0].{param}"


def test_a_text_file_is_read():
    part = {"type": "file", "file": {"file_data": "data:text/plain;base64,QUJD"}}
    source = {"type": "text", "media_type": "text/plain", "data": "ABC"}
    assert chat(user([part]))["messages"][0]["content"] == [{"type": "document", "source": source}]


def test_results_stand_before_words_in_one_message():
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in "ab"]
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in "ab"]
    messages = chat(user("x"), {"role": "assistant", "tool_calls": calls}, results[0], user("y"), results[1])[
        "messages"
    ]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [block.get("tool_use_id") for block in messages[2]["content"]] == ["a", "b", None]


def test_thinking_given_back_comes_first():
    answer = {"content": [{"type": "thinking", "thinking": "h", "signature": "s"}, {"type": "text", "text": "a"}]}
    message = anthropic.from_native(CHAT, answer, {}, "m")["choices"][0]["message"]
    assert chat(user("x"), message, user("y"))["messages"][1]["content"] == answer["content"]


def test_a_schema_is_closed_and_left_as_it_was():
    schema = {"type": "array", "items": {"properties": {"not": {"type": "string", "pattern": "a"}}}, "minItems": 2}
    before = repr(schema)
    assert closed(schema) == {
        "type": "array",
        "items": {"properties": {"not": {"type": "string", "pattern": "a"}}, "additionalProperties": False},
        "description": '{"minItems":2}',
    }
    assert repr(schema) == before


def test_a_schema_nested_too_deeply_is_refused():
    schema: dict = {}
    for _ in range(600):
        schema = {"items": schema}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert refusal(response_format=wanted) == ("response_format", "invalid_value")


@pytest.mark.parametrize("reason", [*get_args(StopReason), "compaction", "never_seen", None])
def test_no_stop_reason_is_an_accident(reason):
    completion = anthropic.from_native(CHAT, {"stop_reason": reason, "content": [{"type": "text"}]}, {}, "m")
    judge(CHAT, completion)
