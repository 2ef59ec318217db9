from __future__ import annotations

import json

import pytest

from batchway.core.jobs import Span
from batchway.core.linecheck import LineCheck
from batchway.core.spans import (
    BLOCK_LINES,
    Block,
    LineIndex,
    Tally,
    cut,
    decode_index,
    encode_index,
    span_lines,
    within,
)


def request(number: int, model: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode() + b"\n"


def indexed(*models: str) -> tuple[bytes, LineIndex]:
    data = b"".join(request(number, model) for number, model in enumerate(models, 1))
    check = LineCheck()
    check.feed(data)
    return data, decode_index(check.finish().index)


async def read(data: bytes, span: Span, piece: int = 100):
    async def chunks():
        for at in range(span.start, span.end, piece):
            yield data[at : min(at + piece, span.end)]

    return [line async for window in span_lines(chunks(), span) for line in window]


def blocks(*tallies: dict[str, tuple[int, int]]) -> LineIndex:
    found, line, offset = [], 1, 0
    for tally in tallies:
        found.append(Block(offset, line, {name: Tally(*counts) for name, counts in tally.items()}))
        line += sum(counts[0] for counts in tally.values())
        offset += sum(counts[1] for counts in tally.values())
    return LineIndex(bytes=offset, blocks=found)


def test_an_index_survives_its_storage():
    _, index = indexed(*["m"] * 600)
    assert decode_index(encode_index(index)) == index
    assert [block.first_line for block in index.blocks] == [1, BLOCK_LINES + 1, 2 * BLOCK_LINES + 1]


async def test_a_span_reads_back_its_own_lines_and_their_numbers():
    data, index = indexed(*["a", "b", "b"] * 200)
    for models, wanted in ((frozenset("a"), range(1, 601, 3)), (frozenset(), range(1, 601))):
        spans = [part.span for part in cut(index, "key", models, lines=256, size=1 << 30)]
        found = [line for span in spans for line in await read(data, span)]
        assert [line.number for line in found] == list(wanted)
        assert all(line.request.custom_id == f"line-{line.number}" for line in found)
        assert all(json.loads(line.raw)["custom_id"] == line.request.custom_id for line in found)


async def test_blank_lines_and_a_missing_last_newline_do_no_harm():
    data = request(1, "m") + b"\n" + request(2, "m").rstrip() + b"\r\n  \n" + request(3, "m").rstrip()
    span = Span(file_key="k", start=0, end=len(data), first_line=1, models=frozenset())
    assert [(line.number, line.request.custom_id) for line in await read(data, span)] == [
        (1, "line-1"),
        (3, "line-2"),
        (5, "line-3"),
    ]


def test_cuts_keep_within_lines_and_bytes():
    index = blocks(*[{"m": (256, 1000)}] * 10)
    assert [part.lines for part in cut(index, "k", frozenset("m"), lines=600, size=1 << 30)] == [512] * 5
    assert [part.bytes for part in cut(index, "k", frozenset("m"), lines=1 << 30, size=3500)] == [
        3000,
        3000,
        3000,
        1000,
    ]


def test_a_cut_counts_only_the_wanted_models():
    index = blocks(*[{"a": (1, 10), "b": (255, 990)}] * 10)
    (part,) = cut(index, "k", frozenset("a"), lines=256, size=100)
    assert (part.lines, part.bytes) == (10, 100)
    assert (part.span.start, part.span.end, part.span.models) == (0, 10_000, frozenset("a"))


def test_blocks_without_a_wanted_line_are_left_out_at_the_ends():
    index = blocks({"a": (10, 10)}, {"b": (10, 10)}, {"a": (5, 5), "b": (5, 5)}, {"a": (10, 10)})
    (part,) = cut(index, "k", frozenset("b"), lines=100, size=100)
    assert (part.span.start, part.span.end, part.span.first_line, part.lines) == (10, 30, 11, 15)


def test_a_block_is_never_divided():
    (part,) = cut(blocks({"m": (256, 1000)}), "k", frozenset(), lines=10, size=10)
    assert (part.lines, part.bytes) == (256, 1000)


def test_a_model_that_is_nowhere_has_no_span():
    assert not list(cut(blocks({"a": (1, 1)}), "k", frozenset("z"), lines=10, size=10))


@pytest.mark.parametrize(("start", "end", "first"), [(0, 3000, [1, 257, 513]), (1000, 2000, [257]), (0, 1, [1])])
def test_a_part_of_an_index(start, end, first):
    part = within(blocks(*[{"m": (256, 1000)}] * 4), start, end)
    assert ([block.first_line for block in part.blocks], part.bytes) == (first, end)
