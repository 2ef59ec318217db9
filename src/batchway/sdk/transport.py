"""The seam between the SDK and a gateway: one method that sends a `Call`.

Three transports fill it: HTTP that blocks, HTTP for event loops (`http.py`), and the gateway inside this process
(`batchway.local`). All are written as coroutines; a blocking one never suspends, so `play` can run it without a loop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping
from typing import Any, Protocol, TypeVar

from batchway.sdk.call import Call

T = TypeVar("T")

_END = object()


class Answer(Protocol):
    """An open answer; `headers` have lower-case names."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end; APIConnectionError when it breaks off."""
        ...

    async def close(self) -> None:
        """Lets it go; without effect the second time."""
        ...


class Transport(Protocol):
    """Sends calls. Whatever the status, an answer is an answer; none is an APIConnectionError."""

    async def send(self, call: Call[Any]) -> Answer: ...

    async def close(self) -> None: ...


async def whole(answer: Answer, limit: int | None = None) -> bytes:
    """All of the body, or about `limit` bytes of it; the answer is closed."""
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await answer.read():
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size >= limit:
                break
    finally:
        await answer.close()
    return b"".join(pieces)


def play(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("a blocking transport suspended")


def play_all(generator: AsyncGenerator[T]) -> Generator[T]:
    """What an async generator that never suspends yields."""
    try:
        while (item := play(_next(generator))) is not _END:
            yield item  # pyright: ignore[reportReturnType] - all but _END are T
    finally:
        play(generator.aclose())


async def _next(generator: AsyncGenerator[T]) -> T | object:
    return await anext(generator, _END)


async def blocking_sleep(seconds: float) -> None:
    """Sleeps without suspending."""
    time.sleep(seconds)  # noqa: ASYNC251 - there is no loop to hold up
