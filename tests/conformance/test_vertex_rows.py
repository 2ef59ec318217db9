"""What a Vertex row says and where it belongs, the names of models, Google's error words: the pure parts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from batchway.providers.vertex import provider, statuses
from batchway.providers.vertex.families import family, priced_as, resource
from batchway.providers.vertex.rows import Echoes, Place, read

SAMPLES = Path(provider.__file__).parent / "samples"


@pytest.mark.parametrize(
    ("text", "status", "name"),
    [
        (
            'Bad Request: {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}',
            400,
            "INVALID_ARGUMENT",
        ),
        ('{"code": 8, "message": "slow"}', 429, "RESOURCE_EXHAUSTED"),
        ('{"code": 503, "message": "later"}', 503, "UNAVAILABLE"),
        ("Error code: 429 RESOURCE_EXHAUSTED. Try again.", 429, "RESOURCE_EXHAUSTED"),
        ("failed with 404", 404, "NOT_FOUND"),
        ("Quota exceeded", 429, "RESOURCE_EXHAUSTED"),
        ("something { odd", 500, "INTERNAL"),
        ("UNAUTHENTICATED", 401, "UNAUTHENTICATED"),
    ],
)
def test_the_text_of_a_failed_row_becomes_a_status(text: str, status: int, name: str) -> None:
    found = statuses.of_text(text)
    assert (found.status, found.name) == (status, name)
    assert found.message


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b'{"key":"3#1","response":{"embedding":{}}}', Place(3, 1)),
        (b'{"custom_id":"7","request":{"labels":{"batchway_line":"9"}},"response":{"id":"x"}}', Place(7)),
        (b'{"request":{"labels":{"batchway_line":"9"}},"response":{"a":1},"more":[]}', Place(9)),
        (b'{"request":"text","response":{"a":1}}', None),
        (b'{"request":{"labels":[]},"response":null,"status":{"code":3}}', None),
        (b'{"key":"x#1","custom_id":5,"response":{}}', None),
        (b"nonsense", None),
        (b"[1]", None),
    ],
)
def test_rows_of_any_form_are_read(raw: bytes, place: Place | None) -> None:
    assert read(raw).place == place


def test_a_row_with_neither_answer_nor_status_is_a_failure() -> None:
    assert read(b'{"key":"1","response":{},"status":""}').failure is not None
    assert read(b'{"key":"1"}').failure is not None


def test_a_normalised_echo_matches_what_was_sent() -> None:
    echoes = Echoes()
    sent = {
        "contents": [{"parts": [{"text": "a"}]}],
        "generationConfig": {"temperature": 0.7, "n": 0},
        "labels": {"a": "b"},
    }
    echoes.add([(Place(1), sent), (Place(2), sent)])
    echo = msgspec.Raw(b'{"generationConfig":{"temperature":0.699999988},"contents":[{"parts":[{"text":"a"}]}]}')
    assert [echoes.take(echo), echoes.take(echo), echoes.take(echo)] == [Place(1), Place(2), None]
    assert echoes.take(msgspec.Raw(b"")) is None
    assert echoes.take(msgspec.Raw(b'"text"')) is None


@pytest.mark.parametrize(
    ("model", "named", "priced"),
    [
        ("gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gemini-2.0-flash-001", "publishers/google/models/gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("gemini-2.0-flash-lite-001", "publishers/google/models/gemini-2.0-flash-lite-001", "gemini-2.0-flash-lite"),
        ("gemini-embedding-001", "publishers/google/models/gemini-embedding-001", "gemini-embedding-001"),
        ("text-embedding-005", "publishers/google/models/text-embedding-005", "text-embedding-005"),
        ("claude-haiku-4-5@20251001", "publishers/anthropic/models/claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("publishers/google/models/gemini-2.5-pro", "publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("publishers/qwen/models/q", "publishers/qwen/models/q", "qwen/q"),
        ("projects/p/locations/l/models/9", "projects/p/locations/l/models/9", "projects/p/locations/l/models/9"),
    ],
)
def test_a_model_has_a_resource_name_and_a_name_in_the_price_table(model: str, named: str, priced: str) -> None:
    assert (resource(model), priced_as(model)) == (named, priced)
    assert (family(model) is None) is ("qwen" in model)


def test_samples_are_read_as_what_they_are() -> None:
    for name, bad in (("output_gemini", 1), ("output_claude", 1), ("output_embedding", 0)):
        found = [read(raw) for raw in (SAMPLES / f"{name}.jsonl").read_bytes().splitlines()]
        assert sum(row.failure is not None for row in found) == bad
