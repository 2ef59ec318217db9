from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import ClassVar

import pytest
from google.genai import types

from batchway.dialects import gemini
from batchway.dialects.protocol import CHAT, EMBEDDINGS, RESPONSES, Refused
from batchway.testing.dialect_suite import DialectSuite, samples
from tests.unit.official_types import Official, judge

SAMPLES = Path(__file__).parent / "samples"
FILTERED = "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII OTHER MODEL_ARMOR ESCALATION NO_IMAGE".split()


class TestGemini(Official, DialectSuite):
    dialect = gemini
    model = "gemini-2.5-flash"
    requests: ClassVar = samples(SAMPLES / "gemini_requests.jsonl")
    answers: ClassVar = samples(SAMPLES / "gemini_answers.jsonl")


def chat(*messages, model="gemini-2.5-flash", **parameters):
    return gemini.to_native(CHAT, {"model": "m", "messages": list(messages) or [user("x")], **parameters}, model)


def user(content):
    return {"role": "user", "content": content}


def refusal(*messages, **parameters):
    with pytest.raises(Refused) as caught:
        chat(*messages, **parameters)
    return caught.value.param, caught.value.code


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-flash-lite-preview-09-2025", "minimal", {"thinkingBudget": 512}),
        ("gemini-2.5-flash", "minimal", {"thinkingBudget": 1}),
        ("publishers/google/models/gemini-2.5-pro", "high", {"thinkingBudget": 24576}),
        ("gemini-2.5-pro", "max", {"thinkingBudget": 32768}),
        ("gemini-3-flash-preview", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-pro-preview", "none", {"thinkingLevel": "LOW"}),
        ("gemini-4-argon", "max", {"thinkingLevel": "XHIGH"}),
    ],
)
def test_effort_goes_by_the_generation_of_the_model(model, effort, config):
    assert chat(model=model, reasoning_effort=effort)["generationConfig"] == {"thinkingConfig": config}


def test_a_model_that_does_not_think_takes_no_effort_but_none():
    assert "generationConfig" not in chat(model="gemini-2.0-flash", reasoning_effort="none")
    assert refusal(model="gemini-2.0-flash", reasoning_effort="low") == ("reasoning_effort", "unsupported_parameter")
    assert refusal(model="projects/1/locations/l/models/7", reasoning_effort="low")[0] == "reasoning_effort"


@pytest.mark.parametrize(
    ("parameters", "param", "code"),
    [
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"seed": 1 << 40}, "seed", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata[...]", "invalid_type"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "invalid_value"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_value"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_name(parameters, param, code):
    assert refusal(**parameters) == (param, code)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "system", "content": "x"}], "messages"),
        ([user("")], "messages"),
        ([{"role": "assistant", "content": "x"}, user("x")], "messages"),
        ([user("x"), {"role": "function", "name": "f", "content": "x"}], "messages[1].role"),
        ([user("x"), {"role": "tool", "tool_call_id": "c", "content": "x"}], "messages[1].tool_call_id"),
        ([user([{"type": "text", "text": "x", "colour": "red"}])], "messages[0].content[0].colour"),
        (
            [user([{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}])],
            "messages[0].content[0].image_url.url",
        ),
        ([user([{"type": "image_url", "image_url": {"url": "gs://b/a"}}])], "messages[0].content[0].image_url.url"),
        ([user([{"type": "file", "file": {"file_id": "file-1"}}])], "messages[0].content[0].file.file_id"),
        ([user("x"), {"role": "assistant", "audio": {"id": "a"}}], "messages[1].audio"),
    ],
)
def test_messages_that_cannot_be_expressed_are_refused_by_their_place(messages, param):
    with pytest.raises(Refused) as caught:
        gemini.to_native(CHAT, {"model": "m", "messages": messages}, "gemini-2.5-flash")
    assert caught.value.param == param


def test_the_nearest_name_is_told():
    with pytest.raises(Refused, match="Did you mean 'temperature'"):
        chat(temprature=1)


def test_an_answer_given_back_whole_is_taken():
    answered = gemini.from_native(CHAT, {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}, {}, "m")
    message = answered["choices"][0]["message"] | {"annotations": [], "audio": None, "function_call": None}
    assert chat(user("x"), message, user("y"))["contents"][1] == {"role": "model", "parts": [{"text": "a"}]}


def test_only_allowed_tools_are_offered():
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    allow = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    native = chat(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": allow})
    assert native["tools"] == [{"functionDeclarations": [{"name": "g"}]}]
    assert native["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}


@pytest.mark.parametrize("reason", [*(reason.value for reason in types.FinishReason), "NEVER_SEEN", None])
def test_no_finish_reason_is_an_accident(reason):
    answer = {"candidates": [{"finishReason": reason}]}
    completion = gemini.from_native(CHAT, answer, {}, "m")
    judge(CHAT, completion)
    filtered = completion["choices"][0]["finish_reason"] == "content_filter"
    assert filtered == (reason in FILTERED or (reason or "").startswith("IMAGE_"))


def test_an_answer_of_another_form_is_a_value_error():
    with pytest.raises(ValueError, match="Expected"):
        gemini.from_native(CHAT, {"candidates": 5}, {}, "m")


def test_metadata_become_labels():
    assert chat(metadata={"Team 1": "Röd/Blå", "9": "x" * 99})["labels"] == {"team_1": "r_d_bl_", "k9": "x" * 63}


def test_an_embeddings_line_is_one_row_an_input():
    rows = gemini.to_rows({"model": "m", "input": ["a", "b"], "dimensions": 8, "user": "u"}, "gemini-embedding-001")
    assert rows == [{"content": {"parts": [{"text": text}]}, "output_dimensionality": 8} for text in "ab"]
    assert gemini.to_rows({"model": "m", "input": "a"}, "text-embedding-005") == [{"content": "a"}]
    assert gemini.to_native(EMBEDDINGS, {"model": "m", "input": "a"}, "gemini-embedding-001") == {
        "content": {"parts": [{"text": "a"}]}
    }


@pytest.mark.parametrize("given", [[], [1, 2], [[1, 2]], {"a": 1}, 5, None])
def test_embedding_anything_but_texts_is_refused(given):
    with pytest.raises(Refused) as caught:
        gemini.to_rows({"model": "m", "input": given}, "gemini-embedding-001")
    assert caught.value.param.startswith("input")


def test_the_rows_of_an_embeddings_line_are_one_answer():
    new = {"embedding": {"values": [0.5, -1]}, "usageMetadata": {"promptTokenCount": 3}}
    old = {"predictions": [{"embeddings": {"values": [0.25], "statistics": {"token_count": 4, "truncated": False}}}]}
    answer = gemini.from_rows([new, old], {"model": "m", "input": ["a", "b"]}, "gemini-embedding-001")
    judge(EMBEDDINGS, answer)
    assert [one["embedding"] for one in answer["data"]] == [[0.5, -1], [0.25]]
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    packed = gemini.from_rows([new], {"input": "a", "encoding_format": "base64"}, "m")["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -1)


def test_a_response_comes_back_over_the_bridge():
    answer = {
        "candidates": [{"content": {"parts": [{"text": "a"}, {"functionCall": {"id": "c", "name": "f"}}]}}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
        "responseId": "r",
    }
    response = gemini.from_native(RESPONSES, answer, {"model": "m", "input": "x", "temperature": 0.5}, "m")
    judge(RESPONSES, response)
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    assert response["usage"]["total_tokens"] == 5
