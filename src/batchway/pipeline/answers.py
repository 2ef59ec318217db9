"""The form in which a job's answers are stored: one line each, in input order, `<number> <ok> <output line>`.

Written by collect, read by account, finalize and results. Not a stage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from batchway.core.textlines import lines
from batchway.storage import Storage

MAX_ANSWER_BYTES = 256 << 20


class Stored(NamedTuple):
    """One answer: the input line's number (from 1), whether it belongs to the output file, its JSON."""

    number: int
    ok: bool
    line: bytes


def pack(number: int, *, ok: bool, line: bytes) -> bytes:
    """The stored form, with its newline."""
    return b"%d %d %b\n" % (number, ok, line)


def unpack(raw: bytes) -> Stored:
    """The answer of one stored line (without its newline)."""
    number, ok, line = raw.split(b" ", 2)
    return Stored(int(number), ok == b"1", line)


async def read_answers(storage: Storage, key: str) -> AsyncIterator[list[Stored]]:
    """The answers of one stored object, a window at a time."""
    async for window in lines(storage.read(key, chunk=1 << 18), limit=MAX_ANSWER_BYTES):
        yield [unpack(raw) for raw in window]
