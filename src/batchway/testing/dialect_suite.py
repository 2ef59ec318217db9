"""What every dialect must do: subclass `DialectSuite`, name the dialect, a model of it and its samples.

    class TestMine(DialectSuite):
        dialect = mine
        model = "mine-1"
        requests = samples(FOLDER / "mine_requests.jsonl")
        answers = samples(FOLDER / "mine_answers.jsonl")

        def parameters(self, endpoint): ...  # the names that the official types have
        def judge(self, endpoint, answer): ...  # fails when the official types do not take it

A sample of a request is `{what, source, endpoint, model, body, native}`, one of an answer `{what, source, endpoint,
model, body, answer, completion}`; `source` says where the native form was read. The tests need pytest.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from batchway.dialects.protocol import CHAT, Dialect, Fate, Refused

UNKNOWN = "a_parameter_that_nobody_has"
SOMETHING: object = ["something"]  # a value that no parameter takes for nothing
SOUND: Mapping[str, object] = {"metadata": {"a": "b"}, "seed": 1}  # values of parameters that are no strings


def samples(path: Path) -> list[dict[str, Any]]:
    """The samples in a file, one a line."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def minimal(endpoint: str) -> dict[str, Any]:
    """The least body."""
    if endpoint == CHAT:
        return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    return {"model": "m", "input": "Hello"}


class DialectSuite(ABC):
    """Each parameter has a fate and meets it; bodies are left as they were; answers have OpenAI's form."""

    dialect: ClassVar[Dialect]
    model: ClassVar[str]
    requests: ClassVar[Sequence[Mapping[str, Any]]] = ()
    answers: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @abstractmethod
    def parameters(self, endpoint: str) -> Iterable[str]:
        """The names of all parameters that the official types of OpenAI's client have for an endpoint."""
        ...

    @abstractmethod
    def judge(self, endpoint: str, answer: Mapping[str, Any]) -> None:
        """Fails when the official types of OpenAI's client do not take the answer."""
        ...

    def test_every_official_parameter_has_a_fate_and_a_note(self) -> None:
        for endpoint, table in self.dialect.PARAMS.items():
            assert not set(self.parameters(endpoint)) - set(table), endpoint
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
                body = {**minimal(endpoint), name: SOUND.get(name, "something")}
                assert self.dialect.to_native(endpoint, body, self.model) == plain

    def test_an_unknown_parameter_is_refused_by_its_name(self) -> None:
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
        self.judge(CHAT, answer)
        assert answer["usage"]["total_tokens"] == 0

    def test_sampled_requests_have_the_native_form_that_was_read(self) -> None:
        for sample in self.requests:
            body = copy.deepcopy(sample["body"])
            native = self.dialect.to_native(sample["endpoint"], body, sample["model"])
            assert msgspec.json.decode(msgspec.json.encode(native)) == sample["native"], sample["what"]
            assert body == sample["body"]

    def test_sampled_answers_have_the_official_form(self) -> None:
        for sample in self.answers:
            answer = self.dialect.from_native(sample["endpoint"], sample["answer"], sample["body"], sample["model"])
            assert answer == sample["completion"], sample["what"]
            self.judge(sample["endpoint"], answer)
