"""The bodies that run in this process, on the host's event loop.

A durable function of DBOS runs on DBOS's own loop and only waits here; the body itself runs on the host's loop, in an
empty context, where it may use the host's clients and locks. Invariant: a body is listed from before its first
instruction until after its last, so an empty list means that nothing of ours runs, not that it was asked to stop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

Body = Callable[[str], Awaitable[None]]
"""An idempotent coroutine function over one id; the database tells it what is done already."""


class _Run:
    """One run of a body: its task, once it has one, and whether it is to end."""

    __slots__ = ("interrupted", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.interrupted = False


class Work:
    """Runs bodies on `loop` for callers on another loop; thread-safe."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed = threading.Condition()
        self._runs: set[_Run] = set()

    async def carry(self, body: Body, key: str, may_run: Callable[[], bool]) -> None:
        """Run `body(key)` on the host's loop, if it may still run, and wait for its end.

        `CancelledError` says that it was not run, or interrupted: it has not ended.
        """
        run = _Run()
        with self._changed:
            self._runs.add(run)
        coroutine = _drive(run, body, key, may_run)
        try:
            # An empty context: the body must not find DBOS's own and become a step of it.
            future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)
        except RuntimeError:  # the host's loop is closed
            coroutine.close()
            self._ended(run)
            raise asyncio.CancelledError from None

        def ended(_future: Future[None]) -> None:
            self._ended(run)

        future.add_done_callback(ended)
        await asyncio.wrap_future(future)

    def _ended(self, run: _Run) -> None:
        with self._changed:
            self._runs.discard(run)
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Cancel every body that runs now; they end on the host's loop, in their own time."""
        with self._changed:
            for run in self._runs:
                run.interrupted = True
                if run.task is not None and not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(run.task.cancel)

    def wait_idle(self, timeout: float | None) -> bool:
        """Block until no body runs, at most `timeout` seconds; True when none does."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._runs, timeout)


async def _drive(run: _Run, body: Body, key: str, may_run: Callable[[], bool]) -> None:
    run.task = asyncio.current_task()
    if run.interrupted or not may_run():
        raise asyncio.CancelledError
    await body(key)
