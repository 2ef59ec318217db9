r"""Lines out of a stream of bytes, in lists: one list a window, so that a million lines cost no million awaits.

Memory stays within one window and one unfinished line, which `limit` bounds. Only ``\n`` ends a line: JSON may hold
every other separator raw (U+2028), and a ``\r`` before it is white space to a parser.
"""

from __future__ import annotations

from collections.abc import AsyncIterator


class LineTooLong(ValueError):
    """A line of more than the allowed bytes; `line_number` counts from 1."""

    def __init__(self, line_number: int, limit: int) -> None:
        super().__init__(f"line {line_number} is longer than {limit} bytes")
        self.line_number = line_number
        self.limit = limit


async def lines(chunks: AsyncIterator[bytes], *, limit: int) -> AsyncIterator[list[bytes]]:
    r"""Every line once and in order, without its ``\n``; a last line needs none. Raises LineTooLong.

    Lines before a too long one are yielded first. Empty lines are lines.
    """
    number = 0  # lines yielded
    held: list[bytes] = []  # pieces of the unfinished line, joined once: no quadratic copying
    size = 0
    async for chunk in chunks:
        end = chunk.rfind(b"\n")
        if end >= 0:
            found = b"".join((*held, chunk[:end])).split(b"\n")
            # A window within the limit holds no line beyond it: the usual case looks at no line.
            if size + end > limit and max(map(len, found)) > limit:
                long = next(index for index, line in enumerate(found) if len(line) > limit)
                if long:
                    yield found[:long]
                raise LineTooLong(number + long + 1, limit)
            yield found
            number += len(found)
            held, size = [], 0
        rest = chunk[end + 1 :]
        if rest:
            held.append(rest)
            size += len(rest)
            if size > limit:
                raise LineTooLong(number + 1, limit)
    if held:
        yield [b"".join(held)]
