"""Answers while the batch runs: the segments in commit order, each line with a cursor to go on from. Not a stage.

After the end every input line was given exactly once. A cursor is `<segment>.<lines taken of it>`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from sqlalchemy import RowMapping

from batchway.core.errors import RequestError
from batchway.db import batches, segments
from batchway.pipeline.answers import read_answers
from batchway.pipeline.trip import Trip

CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")
SEGMENTS = 100  # rows at a time


async def results(
    trip: Trip, project: str | None, batch_id: str, after: str | None, *, ok: bool | None
) -> AsyncIterator[bytes]:
    """NDJSON windows of the answers stored so far; `ok` narrows them. NotFound and a bad cursor raise at once."""
    await trip.db.read(batches.get, batch_id, project)
    seq, skip = _parse(after)
    while rows := await trip.db.read(segments.after, batch_id, seq - 1, SEGMENTS):
        for row in rows:
            async for window in _segment(trip, row, skip if row["seq"] == seq else 0, ok=ok):
                yield window
        seq, skip = rows[-1]["seq"] + 1, 0


async def _segment(trip: Trip, row: RowMapping, skip: int, *, ok: bool | None) -> AsyncIterator[bytes]:
    taken = 0
    async for window in read_answers(trip.storage, row["storage_key"]):
        lines: list[bytes] = []
        for answer in window:
            taken += 1
            if taken > skip and ok in (None, answer.ok):
                lines.append(b'%b,"cursor":"%d.%d"}\n' % (answer.line.rstrip()[:-1], row["seq"], taken))
        if lines:
            yield b"".join(lines)


def _parse(after: str | None) -> tuple[int, int]:
    if after is None:
        return 0, 0
    match = CURSOR.fullmatch(after)
    if match is None:
        raise RequestError(f"Invalid cursor: '{after}'.", code="invalid_value", param="after")
    return int(match[1]), int(match[2])
