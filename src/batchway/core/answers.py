"""The form in which answers are stored, a line each: `<number> <1 if ok, else 0> <milliseconds> <output line>`.

The output line is OpenAI's, as JSON without a newline. So place and success are known without parsing JSON. Segments of
the executor and the collected answers of a job share this form.
"""

from __future__ import annotations

from typing import NamedTuple


class Stored(NamedTuple):
    """One answered line: its number in the input file (from 1), whether it succeeded, OpenAI's output line.

    `milliseconds` are those that the endpoint of an executed line was busy with the attempt that is kept; else 0.
    """

    number: int
    ok: bool
    line: bytes
    milliseconds: int = 0


def pack(number: int, *, ok: bool, line: bytes, milliseconds: int = 0) -> bytes:
    """The stored form, with its newline."""
    return b"%d %d %d %b\n" % (number, ok, milliseconds, line)


def unpack(raw: bytes) -> Stored:
    """The answer in one stored line (without its newline); also in the form of 0.1, which had no milliseconds."""
    parts = raw.split(b" ", 3)
    number, ok, third = int(parts[0]), parts[1] == b"1", parts[2]
    if third == b"0":  # of nearly all, and all of them are read for every account
        return Stored(number, ok, parts[3])
    if third.startswith(b"{"):
        return Stored(number, ok, raw.split(b" ", 2)[2])
    return Stored(number, ok, parts[3], int(third))
