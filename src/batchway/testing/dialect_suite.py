"""What every dialect must do: subclass `DialectSuite` and provide the fixtures `dialect` and `samples`.

    class TestMine(DialectSuite):
        @pytest.fixture
        def dialect(self):
            return batchway.dialects.mine

        @pytest.fixture
        def samples(self):
            return [Sample(endpoint=CHAT, model="m", body={"messages": [...]}, answer={...}, tokens=(12, 5))]

A sample is a body that the dialect can express and a real native answer to it. A dialect is pure: the tests call it and
look at what it was given, no more. At least one sample for each endpoint of its table is wanted.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from batchway.core.usage import line_usage
from batchway.dialects.protocol import Dialect, Fate, Refused
from batchway.wire.lines import LineResponse, OutputLine, encode

NOWHERE = "/v1/none/such"
VALUES: Sequence[Any] = ("something", 1, True, 0.5, {"some": "thing"}, ["something"])  # of each JSON type
ODD_ANSWERS: Sequence[Mapping[str, Any]] = ({}, {"x": 1}, {"candidates": 7}, {"choices": None}, {"error": "no"})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A body, and what the provider answered to it; `tokens` are its input and its output tokens."""

    endpoint: str
    model: str
    body: Mapping[str, Any]
    answer: Mapping[str, Any]
    tokens: tuple[int, int]


def expressed(dialect: Dialect, sample: Sample) -> Callable[[Mapping[str, Any]], dict[str, Any] | None]:
    """What gives the native form of a body in the sample's place, None of one that is refused."""

    def native(body: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            return dialect.to_native(sample.endpoint, body, sample.model)
        except Refused:
            return None

    return native


class DialectSuite:
    """Nothing is guessed, nothing given is changed, nothing is dropped unsaid; usage comes over without loss."""

    def test_every_parameter_has_a_fate_and_a_reason(self, dialect: Dialect) -> None:
        assert dialect.PARAMS
        for endpoint, table in dialect.PARAMS.items():
            assert endpoint.startswith("/v1/")
            for name, row in table.items():
                assert row.fate in set(Fate), name
                assert row.note.strip(), name
                assert not (row.harmless and row.fate is not Fate.REFUSED), name

    def test_every_endpoint_has_a_sample(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        assert {sample.endpoint for sample in samples} == set(dialect.PARAMS)

    def test_a_request_is_new_json_and_what_was_given_stays(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        for sample in samples:
            given = copy.deepcopy(dict(sample.body))
            native = dialect.to_native(sample.endpoint, given, sample.model)
            assert given == sample.body
            assert json.loads(json.dumps(native)) == native
            assert native == dialect.to_native(sample.endpoint, given, sample.model)

    def test_an_unknown_endpoint_is_refused(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        with pytest.raises(Refused) as refused:
            dialect.to_native(NOWHERE, samples[0].body, samples[0].model)
        assert refused.value.param == "url"

    def test_an_unknown_parameter_is_refused_by_its_name(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        for sample in samples:
            with pytest.raises(Refused) as refused:
                dialect.to_native(sample.endpoint, {**sample.body, "no_such_thing": 1}, sample.model)
            assert refused.value.param == "no_such_thing"
            assert refused.value.message
            assert refused.value.code

    def test_a_refused_parameter_is_refused_unless_it_asks_for_nothing(
        self, dialect: Dialect, samples: Sequence[Sample]
    ) -> None:
        for sample in samples:
            plain = dialect.to_native(sample.endpoint, sample.body, sample.model)
            for name, row in dialect.PARAMS[sample.endpoint].items():
                if row.fate is not Fate.REFUSED or name in sample.body:
                    continue
                with pytest.raises(Refused) as refused:
                    dialect.to_native(sample.endpoint, {**sample.body, name: {"some": "thing"}}, sample.model)
                assert refused.value.param == name
                for value in (None, *row.harmless):
                    assert dialect.to_native(sample.endpoint, {**sample.body, name: value}, sample.model) == plain

    def test_null_asks_for_nothing(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        for sample in samples:
            plain = dialect.to_native(sample.endpoint, sample.body, sample.model)
            for name in set(dialect.PARAMS[sample.endpoint]) - set(sample.body):
                body = {**sample.body, name: None}
                assert dialect.to_native(sample.endpoint, body, sample.model) == plain, name

    def test_an_ignored_parameter_changes_nothing(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        for sample in samples:
            plain = dialect.to_native(sample.endpoint, sample.body, sample.model)
            for name, row in dialect.PARAMS[sample.endpoint].items():
                if row.fate is Fate.IGNORED and name not in sample.body:
                    bodies = [{**sample.body, name: value} for value in VALUES]
                    taken = [native for native in map(expressed(dialect, sample), bodies) if native is not None]
                    assert taken, f"{name} is said to be ignored, and is refused whatever it is"
                    assert all(native == plain for native in taken), name

    def test_an_answer_has_openais_shape_and_keeps_its_usage(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        for sample in samples:
            given = copy.deepcopy(dict(sample.answer))
            body = dialect.from_native(sample.endpoint, given, sample.body, sample.model)
            assert given == sample.answer
            assert body["object"] in ("chat.completion", "response", "list", "text_completion")
            assert body["model"]
            assert body.get("choices") or body.get("output") or body.get("data")
            response = LineResponse(status_code=200, request_id="r", body=msgspec.Raw(encode(body)))
            usage = line_usage(encode(OutputLine(id="1", custom_id="c", response=response)))
            assert (usage.input_tokens, usage.output_tokens) == sample.tokens

    def test_an_answer_of_another_form_is_a_value_error(self, dialect: Dialect, samples: Sequence[Sample]) -> None:
        for sample in samples:
            for odd in ODD_ANSWERS:
                try:
                    dialect.from_native(sample.endpoint, odd, sample.body, sample.model)
                except ValueError:
                    continue  # said; an answer that a lenient dialect can make sense of is fine, another error is not
