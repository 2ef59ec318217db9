"""What every dialect must do: subclass `DialectSuite` and name the dialect, a model of it and its samples.

    class TestMine(DialectSuite):
        dialect = mine
        model = "mine-1"
        requests = samples(FOLDER / "mine_requests.jsonl")
        answers = samples(FOLDER / "mine_answers.jsonl")

A sample of a request is `{what, source, endpoint, model, body, native}`, one of an answer `{what, source, endpoint,
model, body, answer, openai}`; `source` says where the native form was read. The tests need pytest and the openai package,
whose types say which parameters there are and whether an answer is one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import msgspec
import pytest

from batchway.dialects.protocol import CHAT, EMBEDDINGS, RESPONSES, Dialect, Fate, Refused

UNKNOWN = "a_parameter_that_nobody_has"
SOMETHING: object = ["something"]  # a value that no parameter takes for nothing


def samples(path: Path) -> list[dict[str, Any]]:
    """The samples in a file, one a line."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def official(endpoint: str) -> set[str]:
    """The names of all parameters that OpenAI's own types have for an endpoint."""
    from openai.types.chat import completion_create_params as chat  # noqa: PLC0415 - only tests have it
    from openai.types.embedding_create_params import EmbeddingCreateParams  # noqa: PLC0415
    from openai.types.responses import response_create_params as responses  # noqa: PLC0415

    forms: Mapping[str, Any] = {
        CHAT: chat.CompletionCreateParamsNonStreaming,
        EMBEDDINGS: EmbeddingCreateParams,
        RESPONSES: responses.ResponseCreateParamsNonStreaming,
    }
    return set(get_type_hints(forms[endpoint]))


def judge(endpoint: str, answer: Mapping[str, Any]) -> None:
    """Fails when OpenAI's types do not take the answer."""
    from openai.types import CreateEmbeddingResponse  # noqa: PLC0415 - only tests have it
    from openai.types.chat import ChatCompletion  # noqa: PLC0415
    from openai.types.responses import Response  # noqa: PLC0415

    forms: Mapping[str, Any] = {CHAT: ChatCompletion, EMBEDDINGS: CreateEmbeddingResponse, RESPONSES: Response}
    forms[endpoint].model_validate(answer)


def minimal(endpoint: str) -> dict[str, Any]:
    """The least body."""
    if endpoint == CHAT:
        return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    return {"model": "m", "input": "Hello"}


class DialectSuite:
    """Each parameter has a fate and meets it; bodies are left as they were; answers are OpenAI's."""

    dialect: ClassVar[Dialect]
    model: ClassVar[str]
    requests: ClassVar[Sequence[Mapping[str, Any]]] = ()
    answers: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def test_every_parameter_of_openai_has_a_fate_and_a_note(self) -> None:
        for endpoint, table in self.dialect.PARAMS.items():
            assert not official(endpoint) - set(table), endpoint
            assert all(row.note for row in table.values())

    def test_a_refused_parameter_is_refused_unless_it_asks_for_nothing(self) -> None:
        for endpoint, table in self.dialect.PARAMS.items():
            for name, row in table.items():
                if row.fate is Fate.REFUSED:
                    with pytest.raises(Refused) as refusal:
                        self.dialect.to_native(endpoint, {**minimal(endpoint), name: SOMETHING}, self.model)
                    assert refusal.value.param == name
                    for value in (None, *row.harmless):
                        self.dialect.to_native(endpoint, {**minimal(endpoint), name: value}, self.model)

    def test_an_ignored_parameter_changes_nothing(self) -> None:
        for endpoint, table in self.dialect.PARAMS.items():
            plain = self.dialect.to_native(endpoint, minimal(endpoint), self.model)
            for name in [name for name, row in table.items() if row.fate is Fate.IGNORED]:
                body = {**minimal(endpoint), name: SOMETHING}
                assert self.dialect.to_native(endpoint, body, self.model) == plain

    def test_an_unknown_parameter_is_refused_as_openai_does(self) -> None:
        for endpoint in self.dialect.PARAMS:
            with pytest.raises(Refused) as refusal:
                self.dialect.to_native(endpoint, {**minimal(endpoint), UNKNOWN: None}, self.model)
            assert (refusal.value.param, refusal.value.code) == (UNKNOWN, "unknown_parameter")

    def test_an_endpoint_that_the_dialect_lacks_is_refused(self) -> None:
        with pytest.raises(Refused) as refusal:
            self.dialect.to_native("/v1/moderations", {"input": "x"}, self.model)
        assert refusal.value.param == "url"

    def test_an_answer_without_anything_is_still_an_answer(self) -> None:
        answer = self.dialect.from_native(CHAT, {}, minimal(CHAT), self.model)
        judge(CHAT, answer)
        assert answer["usage"]["total_tokens"] == 0

    def test_sampled_requests_have_the_native_form_that_was_read(self) -> None:
        for sample in self.requests:
            body = copy.deepcopy(sample["body"])
            native = self.dialect.to_native(sample["endpoint"], body, sample["model"])
            assert msgspec.json.decode(msgspec.json.encode(native)) == sample["native"], sample["what"]
            assert body == sample["body"]

    def test_sampled_answers_have_the_form_of_openai(self) -> None:
        for sample in self.answers:
            answer = self.dialect.from_native(sample["endpoint"], sample["answer"], sample["body"], sample["model"])
            assert answer == sample["openai"], sample["what"]
            judge(sample["endpoint"], answer)
