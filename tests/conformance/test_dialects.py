"""The shipped dialect suite over every dialect: a package under `dialects/` with a parameter table is found here."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from batchway import dialects

pytest.register_assert_rewrite("batchway.testing.dialect_suite")

from batchway.dialects.protocol import CHAT, EMBEDDINGS, RESPONSES  # noqa: E402
from batchway.testing.dialect_suite import DialectSuite, Sample  # noqa: E402 - or its assertions would say nothing

FOUND = {
    module.name: import_module(f"batchway.dialects.{module.name}")
    for module in pkgutil.iter_modules(dialects.__path__)
    if module.ispkg
}
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


@pytest.mark.parametrize("name", sorted(FOUND))
class TestEveryDialect(DialectSuite):
    @pytest.fixture
    def dialect(self, name):
        return FOUND[name]

    @pytest.fixture
    def samples(self, name):
        return SAMPLES[name]()


def test_every_dialect_has_samples():
    assert set(FOUND) <= set(SAMPLES)
