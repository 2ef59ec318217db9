"""What holds for every dialect there is, beside the shipped suite: a package under `dialects/` is found here."""

from __future__ import annotations

import copy
import json
import pkgutil
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import msgspec
import pytest

from batchway import dialects
from batchway.core.usage import line_usage
from batchway.dialects.protocol import CHAT, EMBEDDINGS, RESPONSES
from batchway.wire.lines import LineResponse, OutputLine, encode

FOUND = {
    module.name: import_module(f"batchway.dialects.{module.name}")
    for module in pkgutil.iter_modules(dialects.__path__)
    if module.ispkg
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A body, and what a provider answers to it; `tokens` are its input and its output tokens."""

    endpoint: str
    model: str
    body: dict[str, Any]
    answer: dict[str, Any]
    tokens: tuple[int, int]


TALK = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say ö 漢"}]}
ASKED = {"input": "Say ö 漢", "instructions": "Be brief.", "max_output_tokens": 50}


def gemini() -> list[Sample]:
    words = {"role": "model", "parts": [{"text": "ö 漢"}]}
    answer = {
        "candidates": [{"content": words, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 5, "totalTokenCount": 17},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "abc",
    }
    vector = {"embedding": {"values": [0.25, -0.5]}, "usageMetadata": {"promptTokenCount": 3}}
    model = "gemini-2.5-flash"
    return [
        Sample(endpoint=CHAT, model=model, body={**TALK, "max_tokens": 50}, answer=answer, tokens=(12, 5)),
        Sample(endpoint=RESPONSES, model=model, body=ASKED, answer=answer, tokens=(12, 5)),
        Sample(endpoint=EMBEDDINGS, model="gemini-embedding-001", body={"input": "ö"}, answer=vector, tokens=(3, 0)),
    ]


def anthropic() -> list[Sample]:
    answer = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "ö 漢"}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 5},
    }  # fmt: skip
    model = "claude-sonnet-4-5"
    return [
        Sample(endpoint=CHAT, model=model, body={**TALK, "max_tokens": 50}, answer=answer, tokens=(12, 5)),
        Sample(endpoint=RESPONSES, model=model, body=ASKED, answer=answer, tokens=(12, 5)),
    ]


SAMPLES = {"gemini": gemini, "anthropic": anthropic}


CASES = [
    pytest.param(FOUND[name], sample, id=f"{name} {sample.endpoint}") for name in FOUND for sample in SAMPLES[name]()
]
EVERY = pytest.mark.parametrize(("dialect", "sample"), CASES)


def test_every_endpoint_of_every_dialect_has_a_sample():
    for name, dialect in FOUND.items():
        assert {sample.endpoint for sample in SAMPLES[name]()} == set(dialect.PARAMS), name


@EVERY
def test_a_request_is_new_json_and_what_was_given_stays(dialect, sample):
    given = copy.deepcopy(sample.body)
    native = dialect.to_native(sample.endpoint, given, sample.model)
    assert given == sample.body
    assert json.loads(json.dumps(native)) == native == dialect.to_native(sample.endpoint, given, sample.model)


@EVERY
def test_null_asks_for_nothing(dialect, sample):
    plain = dialect.to_native(sample.endpoint, sample.body, sample.model)
    for name in set(dialect.PARAMS[sample.endpoint]) - set(sample.body):
        assert dialect.to_native(sample.endpoint, {**sample.body, name: None}, sample.model) == plain, name


@EVERY
def test_usage_comes_over_without_loss_and_the_answer_stays_as_it_was(dialect, sample):
    given = copy.deepcopy(sample.answer)
    body = dialect.from_native(sample.endpoint, given, sample.body, sample.model)
    assert given == sample.answer
    response = LineResponse(status_code=200, request_id="r", body=msgspec.Raw(encode(body)))
    usage = line_usage(encode(OutputLine(id="1", custom_id="c", response=response)))
    assert (usage.input_tokens, usage.output_tokens) == sample.tokens


@EVERY
@pytest.mark.parametrize("odd", [{}, {"x": 1}, {"candidates": 7}, {"content": 7}, {"embedding": 7}, {"error": "no"}])
def test_an_answer_of_another_form_is_a_value_error_or_an_answer(dialect, sample, odd):
    with suppress(ValueError):
        assert dialect.from_native(sample.endpoint, odd, sample.body, sample.model)["object"]
