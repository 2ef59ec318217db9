"""The form in which answers are stored: one line each, `<line number> <1 if it succeeded, else 0> <output line>`.

The output line is OpenAI's, as JSON without a newline. So place and success are known without parsing JSON. Segments of
the executor and the collected answers of a job share this form.
"""

from __future__ import annotations

from typing import NamedTuple


class Stored(NamedTuple):
    """One answered line: its number in the input file (from 1), whether it succeeded, OpenAI's output line."""

    number: int
    ok: bool
    line: bytes


def pack(number: int, *, ok: bool, line: bytes) -> bytes:
    """The stored form, with its newline."""
    return b"%d %d %b\n" % (number, ok, line)


def unpack(raw: bytes) -> Stored:
    """The answer in one stored line (without its newline)."""
    number, ok, line = raw.split(b" ", 2)
    return Stored(int(number), ok == b"1", line)
