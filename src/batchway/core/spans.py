"""Ranges of an input file: the line index made at upload, and the lines of one job or chunk read back from it.

The index names blocks of at most 256 lines (or 4 MB): where each begins, and how many lines and bytes of each model it
holds. Jobs and chunks are cut at block borders, so a million lines are split without reading the file, and a chunk is
read by byte range. A range may hold lines of other models; `Span.models` says which belong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

import msgspec

from batchway.core.jobs import Span
from batchway.core.textlines import lines
from batchway.wire.lines import InputLine, body_head, input_line

BLOCK_LINES = 256
BLOCK_BYTES = 4 << 20
MAX_LINE_BYTES = 64 << 20
INDEX_SUFFIX = ".index"  # of the storage key of a file, for the key of its index


class Tally(msgspec.Struct, array_like=True, gc=False):
    """Lines and bytes."""

    lines: int = 0
    bytes: int = 0


class Block(msgspec.Struct, array_like=True):
    """One block: byte offset of its first line, that line's number (from 1), and a tally a model."""

    offset: int
    first_line: int
    models: dict[str, Tally]


class LineIndex(msgspec.Struct):
    """The index of one file; `bytes` is the file's size."""

    bytes: int
    blocks: list[Block]

    def ends(self) -> Iterator[tuple[Block, int]]:
        """Each block with the offset where it ends."""
        following = [block.offset for block in self.blocks[1:]] + [self.bytes]
        return zip(self.blocks, following, strict=True)


encode_index = msgspec.msgpack.Encoder().encode
decode_index = msgspec.msgpack.Decoder(LineIndex).decode


class Cut(msgspec.Struct, frozen=True):
    """A span and what it holds of the wanted models."""

    span: Span
    lines: int
    bytes: int


def cut(index: LineIndex, file_key: str, models: frozenset[str], *, lines: int, size: int) -> Iterator[Cut]:
    """Spans of at most `lines` lines and `size` bytes of `models` (empty means every line), in file order.

    A single block is never divided: `lines` below `BLOCK_LINES` is served by spans of one block.
    """
    pending: list[tuple[Block, int]] = []
    held = Tally()
    for block, end in index.ends():
        tally = _tally(block, models)
        if not tally.lines:
            continue
        if pending and (held.lines + tally.lines > lines or held.bytes + tally.bytes > size):
            yield _cut(pending, held, file_key, models)
            pending, held = [], Tally()
        pending.append((block, end))
        held = Tally(held.lines + tally.lines, held.bytes + tally.bytes)
    if pending:
        yield _cut(pending, held, file_key, models)


def within(index: LineIndex, start: int, end: int) -> LineIndex:
    """The part of an index that covers bytes [start, end) of the file."""
    return LineIndex(bytes=end, blocks=[block for block in index.blocks if start <= block.offset < end])


def _tally(block: Block, models: frozenset[str]) -> Tally:
    chosen: Iterable[Tally] = (
        (tally for model, tally in block.models.items() if model in models) if models else block.models.values()
    )
    total = Tally()
    for tally in chosen:
        total = Tally(total.lines + tally.lines, total.bytes + tally.bytes)
    return total


def _cut(pending: list[tuple[Block, int]], held: Tally, file_key: str, models: frozenset[str]) -> Cut:
    first, (_, end) = pending[0][0], pending[-1]
    span = Span(file_key=file_key, start=first.offset, end=end, first_line=first.first_line, models=models)
    return Cut(span, held.lines, held.bytes)


class Line(msgspec.Struct, gc=False):
    """One input line of a job: its number in the file (from 1), its parsed head, and its raw bytes."""

    number: int
    request: InputLine
    raw: bytes


async def span_lines(chunks: AsyncIterator[bytes], span: Span) -> AsyncIterator[list[Line]]:
    """The lines of `span` that belong to it, a window at a time; `chunks` are the span's bytes."""
    number = span.first_line
    async for window in lines(chunks, limit=MAX_LINE_BYTES):
        mine: list[Line] = []
        for raw in window:
            if raw.strip():
                request = input_line.decode(raw)
                if not span.models or body_head.decode(request.body).model in span.models:
                    mine.append(Line(number, request, raw))
            number += 1
        if mine:
            yield mine
