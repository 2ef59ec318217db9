"""A transport to an ASGI application on another thread's event loop: no socket, the same server code.

Memory is bounded as over a socket: an upload's pieces are read when the application asks for them, an answer waits when
WINDOW of its pieces are unread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import unquote, urlencode

from batchway.sdk.call import Call
from batchway.sdk.errors import APIConnectionError, APITimeoutError
from batchway.sdk.upload import Body

T = TypeVar("T")
Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

WINDOW = 4  # pieces of an answer that wait to be read

log = logging.getLogger("batchway")


class Wait(Protocol):
    """Waits for what another loop does, at most `timeout` seconds."""

    def __call__(self, future: Future[T], timeout: float | None, /) -> Awaitable[T]: ...


async def blocked(future: Future[T], timeout: float | None) -> T:
    """Waits without suspending, for callers that have no loop."""
    return future.result(timeout)


async def suspended(future: Future[T], timeout: float | None) -> T:
    """Waits in the caller's own loop."""
    async with asyncio.timeout(timeout):
        return await asyncio.wrap_future(future)


class InProcess:
    """Calls the application; `key` is sent with every call that brings none of its own."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, key: str, wait: Wait) -> None:
        self._app = app
        self._loop = loop
        self._key = key
        self._wait = wait
        self._pid = os.getpid()

    async def send(self, call: Call[Any]) -> _Answer:
        """The answer, open."""
        if os.getpid() != self._pid:
            raise APIConnectionError("The gateway lives in the process that this one was forked from.", sent=False)
        exchange = _Exchange(self._app, _scope(call, self._key), _pieces(call.body))
        answer = _Answer(exchange, self._loop, self._wait, call.timeout)
        await answer.begin()
        return answer

    async def close(self) -> None:
        """The gateway outlives its clients."""


class _Answer:
    """What the caller's side sees of an exchange."""

    def __init__(self, exchange: _Exchange, loop: asyncio.AbstractEventLoop, wait: Wait, timeout: float | None) -> None:
        self._exchange = exchange
        self._loop = loop
        self._wait = wait
        self._timeout = timeout
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def begin(self) -> None:
        self.status, self.headers = await self._there(self._exchange.begin)

    async def read(self) -> bytes:
        return await self._there(self._exchange.read)

    async def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._exchange.leave)

    async def _there(self, step: Callable[[], Any]) -> Any:
        if self._loop.is_closed():
            raise APIConnectionError("The gateway of this process has stopped.", sent=False)
        future = asyncio.run_coroutine_threadsafe(step(), self._loop)
        try:
            return await self._wait(future, self._timeout)
        except TimeoutError:
            await self.close()
            raise APITimeoutError(f"No answer within {self._timeout} s.") from None
        except BaseException:  # an interrupted caller leaves nothing running behind
            await self.close()
            raise


class _Exchange:
    """One request and its answer, on the application's loop."""

    def __init__(self, app: App, scope: MutableMapping[str, Any], pieces: Iterator[bytes] | None) -> None:
        self._app = app
        self._scope = scope
        self._pieces = pieces
        self._answer: asyncio.Queue[bytes | None] = asyncio.Queue(WINDOW)
        self._begun = asyncio.Event()
        self._left = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._unreadable: Exception | None = None  # what the caller's own file failed with
        self._whole = False

    async def begin(self) -> tuple[int, Mapping[str, str]]:
        self._task = asyncio.create_task(self._run())
        await self._begun.wait()
        if self._unreadable is not None:
            raise self._unreadable
        if not self._status:
            raise APIConnectionError("The gateway of this process gave no answer: see its log.")
        return self._status, self._headers

    async def read(self) -> bytes:
        piece = await self._answer.get()
        if piece is not None:
            return piece
        self._answer.put_nowait(None)  # whoever reads on meets the end again
        if not self._whole:
            raise APIConnectionError("The answer broke off: see the log of this process.")
        return b""

    def leave(self) -> None:
        self._left.set()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception:
            if self._unreadable is None:
                log.exception("the gateway failed to answer %s", self._scope["path"])
        finally:
            self._begun.set()
            if not self._left.is_set():
                await self._answer.put(None)

    async def _receive(self) -> Message:
        if self._pieces is None:
            await self._left.wait()
            return {"type": "http.disconnect"}
        try:
            piece = await asyncio.to_thread(next, self._pieces, None)
        except Exception as error:
            self._unreadable = error
            raise
        if piece is None:
            self._pieces = None
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": piece, "more_body": True}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message.get("headers", ())
            }
            self._begun.set()
        elif message["type"] == "http.response.body":
            if message.get("body"):
                await self._answer.put(bytes(message["body"]))
            self._whole = not message.get("more_body", False)


def _pieces(body: bytes | Body | None) -> Iterator[bytes]:
    if isinstance(body, Body):
        return body.pieces()
    return iter(() if body is None else (body,))


def _scope(call: Call[Any], key: str) -> MutableMapping[str, Any]:
    size = len(call.body) if isinstance(call.body, bytes) else call.body.size if call.body is not None else None
    own = {"host": "localhost", "authorization": f"Bearer {call.api_key or key}"}
    headers = {**own, **call.headers} if size is None else {**own, "content-length": str(size), **call.headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": unquote(call.path),
        "raw_path": call.path.encode("ascii"),
        "query_string": urlencode(call.query).encode("ascii"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 80),
        "state": {},
    }
