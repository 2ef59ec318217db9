from __future__ import annotations

import copy

import msgspec
import openai.types.chat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchway.core.usage import Usage, line_usage
from batchway.dialects import anthropic, gemini
from batchway.dialects.protocol import CHAT, Refused
from tests.properties.chat_requests import call_id, chat_requests
from tests.properties.native_types import accept_claude, accept_gemini

GEMINI_MODELS = ("gemini-2.0-flash", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3.1-pro-preview", "tuned-7")
CLAUDE_MODELS = ("claude-3-5-haiku", "claude-sonnet-4-5@20250929", "claude-opus-4-6", "claude-sonnet-5", "tuned-7")
count = st.integers(0, 10**7)
quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def translated(dialect, body, model, accept):
    before = copy.deepcopy(body)
    native, refusal = outcome(dialect, body, model)
    if refusal:
        assert refusal.param
        assert refusal.message.endswith(".")
        assert refusal.code
    else:
        accept(native)
    assert body == before


def outcome(dialect, body, model):
    """The native body, or the refusal."""
    try:
        return dialect.to_native(CHAT, body, model), None
    except Refused as refusal:
        return None, refusal


@quick
@given(body=chat_requests(), model=st.sampled_from(GEMINI_MODELS))
def test_a_chat_request_becomes_one_that_gemini_knows_or_is_refused_with_a_reason(body, model):
    translated(gemini, body, model, accept_gemini)


@quick
@given(body=chat_requests(), model=st.sampled_from(CLAUDE_MODELS))
def test_a_chat_request_becomes_one_that_claude_knows_or_is_refused_with_a_reason(body, model):
    translated(anthropic, body, model, accept_claude)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "type", "text"]), inner),
    max_leaves=8,
)


@quick
@given(body=chat_requests(), parameter=st.sampled_from(sorted(gemini.PARAMS[CHAT])), value=json_values)
def test_nonsense_is_refused_or_passed_on_and_never_an_accident(body, parameter, value):
    for dialect, model in ((gemini, "gemini-2.5-flash"), (anthropic, "claude-sonnet-4-5")):
        native, refusal = outcome(dialect, body | {parameter: value}, model)
        assert msgspec.json.encode(native) if native else refusal.param


def usage_in(completion) -> Usage:
    return line_usage(msgspec.json.encode({"response": {"body": completion}}))


@quick
@given(prompt=count, cached=count, said=count, thought=count, tools=count, heard=count, drawn=count)
def test_every_token_that_gemini_counts_is_counted(prompt, cached, said, *, thought, tools, heard, drawn):
    counted = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "candidatesTokenCount": said,
        "thoughtsTokenCount": thought,
        "toolUsePromptTokenCount": tools,
        "totalTokenCount": prompt + said + thought + tools,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1}, {"modality": "AUDIO", "tokenCount": heard}],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": drawn}],
    }
    told = {name: value for name, value in counted.items() if value}  # as Google leaves out zeros
    completion = gemini.from_native(CHAT, {"usageMetadata": told}, {}, "m")
    openai.types.chat.ChatCompletion.model_validate(completion)
    assert usage_in(completion) == Usage(
        input_tokens=prompt + tools,
        cached_tokens=cached,
        audio_input_tokens=heard,
        output_tokens=said + thought,
        reasoning_tokens=thought,
        image_output_tokens=drawn,
    )
    assert completion["usage"]["total_tokens"] == prompt + said + thought + tools


@quick
@given(fresh=count, read=count | st.none(), written=count | st.none(), said=count, thought=count)
def test_every_token_that_claude_counts_is_counted(fresh, read, written, said, thought):
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written or 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"thinking_tokens": thought},
    }
    completion = anthropic.from_native(CHAT, {"usage": usage}, {}, "m")
    openai.types.chat.ChatCompletion.model_validate(completion)
    read, written = read or 0, written or 0
    assert usage_in(completion) == Usage(
        input_tokens=fresh + read + written,
        cached_tokens=read,
        cache_write_tokens=written,
        output_tokens=said,
        reasoning_tokens=thought,
    )
    details = completion["usage"].get("prompt_tokens_details", {}).get("cache_write_tokens_details", {})
    assert sum(details.values()) == written


@pytest.mark.parametrize("dialect", [gemini, anthropic])
@quick
@given(ids=st.lists(call_id | st.text("abAB:-_é", min_size=1), min_size=1, max_size=4, unique=True))
def test_results_find_their_calls_whatever_the_ids(dialect, ids):
    calls = [
        {"id": one, "type": "function", "function": {"name": f"f{n}", "arguments": "{}"}} for n, one in enumerate(ids)
    ]
    results = [{"role": "tool", "tool_call_id": one, "content": str(n)} for n, one in enumerate(ids)]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}, *results]
    native = dialect.to_native(CHAT, {"model": "m", "messages": messages}, "gemini-2.5-flash")
    if dialect is gemini:
        _, asked, answered = (content["parts"] for content in native["contents"])
        pairs = [
            (call["functionCall"], result["functionResponse"]) for call, result in zip(asked, answered, strict=True)
        ]
        assert [(call["id"], call["name"]) for call, _ in pairs] == [
            (result["id"], result["name"]) for _, result in pairs
        ]
        assert [result["response"] for _, result in pairs] == [{"result": str(n)} for n in range(len(ids))]
    else:
        _, asked, answered = (message["content"] for message in native["messages"])
        sent = [call["id"] for call in asked]
        assert sent == [result["tool_use_id"] for result in answered]
        assert len(set(sent)) == len(ids)


@quick
@given(given_id=st.none() | call_id, name=st.sampled_from(["f", "g"]))
def test_a_call_that_gemini_answers_can_be_answered(given_id, name):
    call = {"name": name, "args": {"a": 1}} | ({"id": given_id} if given_id else {})
    part = {"functionCall": call, "thoughtSignature": "QUJD"}
    answer = {"candidates": [{"content": {"parts": [part]}}], "responseId": "r"}
    message = gemini.from_native(CHAT, answer, {}, "m")["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "ok"}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}, message, result]}
    again = gemini.to_native(CHAT, body, "gemini-3-flash")["contents"]
    assert again[1]["parts"][0]["thoughtSignature"] == "QUJD"
    assert again[1]["parts"][0]["functionCall"]["args"] == {"a": 1}
    assert again[2]["parts"][0]["functionResponse"]["name"] == name
    assert given_id in (None, again[1]["parts"][0]["functionCall"]["id"])
