"""The form of a stored segment: one answer a line, `<line number> <1 if it succeeded, else 0> <output line>`.

The output line is OpenAI's, as JSON without a newline. A reader so learns place and success without parsing JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from batchway.storage import Storage


class Stored(NamedTuple):
    """One answered line: its number in the input file (from 1), and OpenAI's output line as raw JSON."""

    number: int
    ok: bool
    line: bytes


def key_of(batch_id: str, job_id: str, name: str) -> str:
    """Where a segment of a job lies."""
    return f"{folder_of(batch_id, job_id)}/{name}.jsonl"


def folder_of(batch_id: str, job_id: str) -> str:
    """The folder of all segments of a job, also of those whose row was never committed."""
    return f"segments/{batch_id}/{job_id}"


def encode_segment(answers: Iterable[Stored]) -> bytes:
    """The bytes of a segment."""
    return b"".join(b"%d %d %b\n" % answer for answer in answers)


def decode_segment(data: bytes) -> list[Stored]:
    """The answers of a segment, in the order they were stored in."""
    parts = (line.split(b" ", 2) for line in data.split(b"\n") if line)
    return [Stored(int(number), ok == b"1", line) for number, ok, line in parts]


async def read_segment(storage: Storage, key: str) -> list[Stored]:
    """The answers of the segment at `key`; StorageMissing when there is none."""
    return decode_segment(await storage.get(key))
