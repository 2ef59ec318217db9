from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchway.core.textlines import LineTooLong, lines


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def collect(*chunks: bytes, limit: int = 1000) -> list[bytes]:
    return [line async for window in lines(pieces(*chunks), limit=limit) for line in window]


@given(st.lists(st.text(alphabet="ab\n\r\u2028", max_size=9).map(str.encode), max_size=9))
async def test_lines_are_those_of_the_whole_text_however_it_is_cut(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert await collect(*chunks) == expected


async def test_a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert await collect(b"ab", b"cd\n", limit=4) == [b"abcd"]
    with pytest.raises(LineTooLong) as caught:
        await collect(b"a\nbb\n", b"abcd", b"e\nx\n", limit=4)
    assert caught.value.line_number == 3


async def test_lines_before_a_too_long_one_are_yielded_first() -> None:
    seen: list[bytes] = []
    with pytest.raises(LineTooLong) as caught:  # noqa: PT012 - what came before the error counts
        async for window in lines(pieces(b"a\nb\nabcde\nc\n"), limit=4):
            seen += window
    assert (seen, caught.value.line_number) == ([b"a", b"b"], 3)


async def test_an_endless_line_is_refused_before_it_is_held() -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 100

    with pytest.raises(LineTooLong):
        _ = [window async for window in lines(endless(), limit=1000)]
    assert taken == 11
