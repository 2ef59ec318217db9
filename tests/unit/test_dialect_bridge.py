from __future__ import annotations

import pytest

from batchway.dialects import anthropic, bridge, gemini
from batchway.dialects.bridge_answer import from_chat
from batchway.dialects.protocol import RESPONSES, Refused
from batchway.dialects.reading import body_of
from tests.unit.official_types import judge

TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}


def chat_of(**body):
    return bridge.chat_body({"model": "m", "input": "x", **body})


def test_words_and_parameters_cross():
    assert chat_of(
        instructions="i", max_output_tokens=5, reasoning={"effort": "low", "summary": "auto"}, store=True
    ) == {
        "model": "m",
        "messages": [{"role": "system", "content": "i"}, {"role": "user", "content": "x"}],
        "max_completion_tokens": 5,
        "reasoning_effort": "low",
        "store": True,
    }


def test_a_conversation_with_tools_crosses():
    given = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}]},
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
        {"type": "message", "role": "assistant", "id": "m", "status": "completed",
         "content": [{"type": "output_text", "text": "b", "annotations": []}, {"type": "refusal", "refusal": "no"}]},
    ]  # fmt: skip
    body = chat_of(input=given, tools=[TOOL], tool_choice={"type": "function", "name": "f"})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "r"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "refusal", "refusal": "no"}]},
    ]
    function = {name: value for name, value in TOOL.items() if name != "type"}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}


def test_a_schema_stands_deeper_in_chat():
    body = chat_of(
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}, "verbosity": "low"}
    )
    schema = {"name": "n", "schema": {}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert body["verbosity"] == "low"


def test_logprobs_are_asked_for_by_including_them():
    assert chat_of(include=[bridge.LOGPROBS])["logprobs"] is True
    assert "logprobs" not in chat_of(include=["reasoning.encrypted_content"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"previous_response_id": "r"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"max_output_tokens": "x"}, "max_output_tokens"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"temperature": "x"}, "temperature"),
    ],
)
@pytest.mark.parametrize("dialect", [gemini, anthropic])
def test_refusals_name_the_fields_of_responses(dialect, body, param):
    with pytest.raises(Refused) as caught:
        dialect.to_native(RESPONSES, {"model": "m", "input": "x", **body}, "claude-opus-5")
    assert caught.value.param == param


def completion(finish="stop", **message):
    chosen = {"index": 0, "finish_reason": finish, "logprobs": None}
    chosen["message"] = {"role": "assistant", "content": None, "refusal": None, **message}
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    return {"id": "chatcmpl-1", "created": 7, "model": "m", "choices": [chosen], "usage": usage}


def test_an_answer_is_a_response():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = completion("tool_calls", content="a", reasoning_content="h", tool_calls=[call])
    response = from_chat(message, {"model": "m", "input": "x", "tools": [TOOL], "metadata": {"k": "v"}})
    judge(RESPONSES, response)
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call"]
    assert response["output"][2]["call_id"] == "c"
    assert (response["status"], response["incomplete_details"]) == ("completed", None)
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
    }


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_cut_short_is_incomplete(finish, reason):
    response = from_chat(completion(finish, refusal="no"), {})
    judge(RESPONSES, response)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})


@pytest.mark.parametrize(
    "raw", [b"[]", b'{"a": 1e400}', b'{"a": "\\ud800"}', b"{", b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"]
)
def test_a_body_that_no_decoder_takes_is_refused(raw):
    with pytest.raises(Refused) as caught:
        body_of(raw)
    assert caught.value.param == "body"
