"""Calls over HTTP, by pyreqwest: one transport that blocks and one for event loops, alike but for their awaits.

Uploads are streamed from their source, answers read piece by piece. No redirect is followed: it would carry the key to
a place nobody named. A proxy comes from the environment, but never for loopback.

`timeout` is for the whole exchange of a small call, for each silence of a streamed answer; an upload gets what its size
needs at SLOWEST on top.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies_environment

from pyreqwest.client import Client, ClientBuilder, SyncClient, SyncClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)
from pyreqwest.http import HeaderMap
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import BaseRequestBuilder, StreamRequest, SyncStreamRequest
from pyreqwest.response import Response, SyncResponse

from batchway.sdk.call import Call
from batchway.sdk.errors import APIConnectionError, APITimeoutError, BadRequestError
from batchway.sdk.place import configured_key
from batchway.sdk.upload import Body

B = TypeVar("B", ClientBuilder, SyncClientBuilder)
R = TypeVar("R", bound=BaseRequestBuilder)

LOOPBACK = "localhost,127.0.0.0/8,::1"
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0
SLOWEST = 64 << 10  # bytes a second


class Http:
    """What both transports share: the place, the key, and one pool of connections per length of silence."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self.base_url = checked_url(base_url)
        self._api_key = api_key

    def _url(self, call: Call[Any]) -> str:
        base = self.base_url if call.base_url is None else checked_url(call.base_url)
        return f"{base}{call.path}" + (f"?{urlencode(call.query)}" if call.query else "")

    def _fill(self, builder: R, call: Call[Any]) -> R:
        headers = {"authorization": f"Bearer {key}"} if (key := self._key(call)) else {}
        if isinstance(call.body, Body) and call.body.size is not None:
            headers["content-length"] = str(call.body.size)
        builder = builder.headers({**headers, **call.headers})
        if isinstance(call.body, bytes):
            builder = builder.body_bytes(call.body)
        if call.streamed:  # or the first pieces would wait for a buffer to be full
            builder = builder.streamed_read_buffer_limit(0)
        timeout = _exchange_seconds(call)
        return builder if timeout is None else builder.timeout(timedelta(seconds=timeout))

    def _key(self, call: Call[Any]) -> str | None:
        return call.api_key or self._api_key or configured_key()


class BlockingHttp(Http):
    """HTTP without an event loop; its coroutines never suspend. Threads may share it."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        super().__init__(base_url, api_key)
        self._clients: dict[float | None, SyncClient] = {}

    async def send(self, call: Call[Any]) -> _BlockingAnswer:
        """The answer, open."""
        request = self._build(call)
        try:
            return _BlockingAnswer(request, request.__enter__())
        except PyreqwestError as error:
            failure = _failure(call, error)
        raise failure

    async def close(self) -> None:
        """Closes every connection."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _build(self, call: Call[Any]) -> SyncStreamRequest:
        url, silence = self._url(call), _silence_seconds(call)
        try:
            client = self._clients.get(silence)
            if client is None:
                client = self._clients.setdefault(silence, _configured(SyncClientBuilder(), url, silence).build())
            builder = self._fill(client.request(call.method, url), call)
            if isinstance(call.body, Body):
                builder = builder.body_stream(call.body.pieces())
            return builder.build_streamed()
        except ValueError as error:
            failure = _unbuildable(error)
        raise failure


class LoopHttp(Http):
    """HTTP for event loops."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        super().__init__(base_url, api_key)
        self._clients: dict[float | None, Client] = {}

    async def send(self, call: Call[Any]) -> _LoopAnswer:
        """The answer, open."""
        request = self._build(call)
        try:
            return _LoopAnswer(request, await request.__aenter__())
        except PyreqwestError as error:
            failure = _failure(call, error)
        raise failure

    async def close(self) -> None:
        """Closes every connection."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    def _build(self, call: Call[Any]) -> StreamRequest:
        url, silence = self._url(call), _silence_seconds(call)
        try:
            client = self._clients.get(silence)
            if client is None:
                client = self._clients.setdefault(silence, _configured(ClientBuilder(), url, silence).build())
            builder = self._fill(client.request(call.method, url), call)
            if isinstance(call.body, Body):
                builder = builder.body_stream(_threaded(call.body))
            return builder.build_streamed()
        except ValueError as error:
            failure = _unbuildable(error)
        raise failure


class _BlockingAnswer:
    def __init__(self, request: SyncStreamRequest, response: SyncResponse) -> None:
        self.status = response.status
        self.headers = _plain(response.headers)
        self._reader = response.body_reader
        self._request = request

    async def read(self) -> bytes:
        try:
            return bytes(self._reader.read_chunk() or b"")
        except PyreqwestError as error:
            failure = _broken(error)
        raise failure

    async def close(self) -> None:
        self._request.__exit__(None, None, None)


class _LoopAnswer:
    def __init__(self, request: StreamRequest, response: Response) -> None:
        self.status = response.status
        self.headers = _plain(response.headers)
        self._reader = response.body_reader
        self._request = request

    async def read(self) -> bytes:
        try:
            return bytes(await self._reader.read_chunk() or b"")
        except PyreqwestError as error:
            failure = _broken(error)
        raise failure

    async def close(self) -> None:
        await self._request.__aexit__(None, None, None)


async def _threaded(body: Body) -> AsyncGenerator[bytes]:
    """The pieces of a body, read in threads: a file's read may wait."""
    pieces = body.pieces()
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def checked_url(url: str) -> str:
    """The gateway's root, without the `/v1` that OpenAI's clients want; BadRequestError when it is no URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadRequestError("Invalid 'base_url': expected http(s)://host[:port][/path].", param="base_url")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _configured(builder: B, url: str, silence: float | None) -> B:
    builder = (
        builder.user_agent(f"batchway-python/{_version()}")
        .follow_redirects(enable=False)
        .connect_timeout(timedelta(seconds=CONNECT_SECONDS))
        .pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
        .no_proxy()
    )
    if silence is not None:
        builder = builder.read_timeout(timedelta(seconds=silence))
    if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):  # compressing costs more than the wire
        return builder.gzip(enable=False).zstd(enable=False).brotli(enable=False).deflate(enable=False)
    proxies = getproxies_environment()
    spared = ",".join(filter(None, [LOOPBACK, proxies.get("no", "")]))
    for scheme, make in (("http", ProxyBuilder.http), ("https", ProxyBuilder.https), ("all", ProxyBuilder.all)):
        if proxy := proxies.get(scheme):
            builder = builder.proxy(make(proxy).no_proxy(spared))
    return builder


def _version() -> str:
    try:
        return version("batchway")
    except PackageNotFoundError:  # run from a source tree
        return "0"


def _exchange_seconds(call: Call[Any]) -> float | None:
    if call.streamed or call.timeout is None:
        return None
    if not isinstance(call.body, Body):
        return call.timeout
    return None if call.body.size is None else call.timeout + call.body.size / SLOWEST


def _silence_seconds(call: Call[Any]) -> float | None:
    return call.timeout if call.streamed else None


def _plain(headers: HeaderMap) -> dict[str, str]:
    readable: dict[str, str] = {}
    for name in headers:
        with suppress(ValueError):  # one value outside UTF-8 must not cost the answer
            readable[name] = headers[name]
    return readable


def _failure(call: Call[Any], error: PyreqwestError) -> Exception:
    """Why there is no answer. pyreqwest's own errors quote the whole URL, so they are not chained."""
    if isinstance(error, BuilderError):
        return _unbuildable(error)
    unsent = isinstance(error, PoolTimeoutError) or "client error (Connect)" in _causes(error)
    text = f"No connection to the gateway ({_reason(error)})." if unsent else f"No answer ({_reason(error)})."
    kind = APITimeoutError if isinstance(error, RequestTimeoutError) else APIConnectionError
    return kind(f"{call.name}: {text}", sent=not unsent)


def _broken(error: PyreqwestError) -> APIConnectionError:
    kind = APITimeoutError if isinstance(error, RequestTimeoutError) else APIConnectionError
    return kind(f"The answer broke off ({_reason(error)}).")


def _unbuildable(error: Exception) -> BadRequestError:
    return BadRequestError(f"The call has an invalid URL or header ({type(error).__name__}).")


def _causes(error: PyreqwestError) -> list[str]:
    causes = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return [cause["message"] for cause in causes or ()]


def _reason(error: PyreqwestError) -> str:
    """The innermost reason, as the system words it, unless it quotes a URL."""
    if isinstance(error, RequestTimeoutError):
        return "timed out"
    last = (_causes(error) or [""])[-1]
    return last[:200] if last and "://" not in last else type(error).__name__
