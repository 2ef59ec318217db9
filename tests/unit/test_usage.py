"""Tokens as they are read out of output lines."""

from __future__ import annotations

import json

import msgspec
import pytest

from batchway.billing.prices import PARTS
from batchway.core.usage import NO_USAGE, Usage, line_usage
from batchway.db.schema import USAGE_COLUMNS


def line(usage: object) -> bytes:
    return json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": {"usage": usage}}}).encode()


def test_every_detail_of_a_chat_answer_is_counted() -> None:
    found = line_usage(line({
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 30, "accepted_prediction_tokens": 1},
    }), 1234)  # fmt: skip
    assert found == Usage(
        input_tokens=100, cached_tokens=10, audio_input_tokens=20, output_tokens=50, reasoning_tokens=5,
        audio_output_tokens=30, milliseconds=1234,
    )  # fmt: skip


def test_every_detail_of_a_response_is_counted() -> None:
    found = line_usage(line({
        "input_tokens": 100, "output_tokens": 50,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 20},
        "output_tokens_details": {"reasoning_tokens": 5, "image_tokens": 40},
    }))  # fmt: skip
    assert found == Usage(
        input_tokens=100, cached_tokens=10, cache_write_tokens=20, output_tokens=50, reasoning_tokens=5,
        image_output_tokens=40,
    )  # fmt: skip


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"error": {}}', line(None), line("many"), line({"prompt_tokens": "many"})]
)
def test_an_answer_without_usage_still_kept_its_endpoint_busy(raw: bytes) -> None:
    assert line_usage(raw) == NO_USAGE
    assert line_usage(raw, 7) == Usage(milliseconds=7)


def test_adding_adds_every_field() -> None:
    one = Usage(*range(1, 10))
    assert msgspec.structs.astuple(one + one) == tuple(range(2, 20, 2))


def test_the_ledger_has_a_column_for_every_field_and_every_priced_part_is_counted() -> None:
    fields = [field.name for field in msgspec.structs.fields(Usage)]
    assert list(USAGE_COLUMNS) == fields
    counted = {f"{part}_tokens" for part in PARTS if part != "per_second"}
    assert counted <= {*fields}
