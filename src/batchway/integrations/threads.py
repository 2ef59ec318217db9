"""Blocking work of a receiver, each piece in a daemon thread of its own: what hangs there holds up nothing else.

Who stops waiting leaves the thread behind; it ends with its own timeout, and neither the next tell nor the end of the
process waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], name: str) -> T:
    """What `work()` answers or raises."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[T] = loop.create_future()

    def answer(result: T | None, error: BaseException | None) -> None:
        if waiting.done():  # given up
            return
        if error is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(result)  # pyright: ignore[reportArgumentType] - T may be None itself

    def run() -> None:
        try:
            told = partial(answer, work(), None)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            told = partial(answer, None, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(told)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await waiting
