"""The gateway inside the caller's process: what SDK clients speak to when no other gateway is named.

There is one for each home folder and process, on a thread with its own event loop. It starts at the first call and
stops at the end of the process, politely: what is cut off goes on with the next process. When another process holds the
folder, its server is spoken to instead (`server.json` there, which `batchway serve` writes).

Callers inside the process are its admin: they come with a master key that is drawn anew for each process and stored
nowhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path

import msgspec
import uvloop
from starlette.types import ASGIApp

from batchway import app
from batchway.core.errors import ConfigError
from batchway.sdk.http import BlockingHttp, LoopHttp
from batchway.sdk.inprocess import InProcess, Wait, blocked, suspended
from batchway.sdk.place import Local
from batchway.server.app import create_app
from batchway.settings import Settings, load
from batchway.worker import Worker

STOP_SECONDS = 5.0
ANNOUNCED = "server.json"

Start = Callable[[Settings], AbstractAsyncContextManager[ASGIApp]]


class Announced(msgspec.Struct):
    """What `cli/serving.py` tells in the home folder; the two change together. The key ends with that process."""

    url: str
    pid: int
    key: str | None = None


@asynccontextmanager
async def wired(settings: Settings) -> AsyncGenerator[ASGIApp]:
    """The whole gateway with its roles at work, as an application."""
    gateway = await app.build(settings)
    try:
        working = Worker(gateway)
        await working.start()
        try:
            yield create_app(gateway)
        finally:
            await working.stop(STOP_SECONDS)
    finally:
        await gateway.close()


class LocalGateway:
    """A gateway on its own thread; making one waits until it works, and raises what hinders it."""

    def __init__(self, settings: Settings, start: Start = wired) -> None:
        self._key = secrets.token_urlsafe(32)
        self._settings = msgspec.structs.replace(settings, master_key=self._key, no_auth=False)
        self._start = start
        self._stopping = asyncio.Event()
        ready: Future[tuple[asyncio.AbstractEventLoop, ASGIApp]] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="batchway", daemon=True)
        self._thread.start()
        self._loop, self._app = ready.result()

    def blocking(self) -> InProcess:
        """A transport whose coroutines block instead of suspending."""
        return self._transport(blocked)

    def suspending(self) -> InProcess:
        """A transport for event loops."""
        return self._transport(suspended)

    def close(self) -> None:
        """Stops it and waits for that; without effect the second time."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _transport(self, wait: Wait) -> InProcess:
        return InProcess(self._app, self._loop, self._key, wait)

    def _run(self, ready: Future[tuple[asyncio.AbstractEventLoop, ASGIApp]]) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)  # the caller's to handle: it waits for it

    async def _serve(self, ready: Future[tuple[asyncio.AbstractEventLoop, ASGIApp]]) -> None:
        async with self._start(self._settings) as served:
            ready.set_result((asyncio.get_running_loop(), served))
            await self._stopping.wait()


class Neighbour:
    """The server of another process that holds the folder."""

    def __init__(self, announced: Announced) -> None:
        self._announced = announced

    def blocking(self) -> BlockingHttp:
        """HTTP without an event loop."""
        return BlockingHttp(self._announced.url, self._announced.key)

    def suspending(self) -> LoopHttp:
        """HTTP for event loops."""
        return LoopHttp(self._announced.url, self._announced.key)


_lock = threading.Lock()
_open: dict[Path, LocalGateway] = {}


def open_local(home: str | os.PathLike[str] | None = None) -> Local:
    """The gateway of this process for `home` (BATCHWAY_HOME by default), or the one that holds that folder.

    ConfigError when the settings cannot work, or the folder is held by a process that does not serve.
    """
    config = os.environ.get("BATCHWAY_CONFIG")
    overrides = {} if home is None else {"home": os.fspath(home)}
    settings = load(Path(config) if config else None, overrides=overrides)
    with _lock:
        if found := _open.get(settings.folder):
            return found
        try:
            opened = LocalGateway(settings)
        except ConfigError:
            if (announced := _announced(settings.folder)) is None:
                raise
            return Neighbour(announced)
        _close_at_exit()
        _open[settings.folder] = opened
        return opened


def _announced(home: Path) -> Announced | None:
    """The living server of the folder."""
    try:
        found = msgspec.json.decode((home / ANNOUNCED).read_bytes(), type=Announced)
        os.kill(found.pid, 0)
    except (OSError, msgspec.DecodeError):
        return None
    return found


def _close_all() -> None:
    while _open:
        _, opened = _open.popitem()
        opened.close()


def _forget_in_child() -> None:
    """A fork has none of our threads: its own first call opens anew."""
    _open.clear()
    _lock.release()


@cache
def _close_at_exit() -> None:
    # atexit comes too late: by then the pools of threads that stopping needs take no more work. This hook of the
    # standard library's own pools runs before, last registered first.
    register: Callable[[Callable[[], None]], None] = getattr(threading, "_register_atexit")  # noqa: B009
    register(_close_all)


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_in_child)
