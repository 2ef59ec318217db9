"""The one HTTP client, and the one retry loop.

Every call to a provider, a model server or a receiver goes through `Http`, over pyreqwest. It keeps these rules:

- Memory is bounded: an answer is read up to `max_body` bytes, downloads and uploads are streamed in windows.
- A repeat happens only where it cannot do a thing twice. A call that never left (`NotSent`) may always be repeated;
  anything else only when it is marked idempotent. A call that is not, and whose answer never came, ends as
  `Fault.LOST`: whoever sent it must find out what became of it.
- Every failure is a `ProviderError`. Its message holds method, host, path, status and size, never a body, a key or a
  query value. pyreqwest's own errors quote the whole URL, so they are not chained either.
- No redirect is followed: it would carry a key or a body to a place nobody configured.

pyreqwest 0.15 calls all that breaks before the status line a `ConnectError`, even a reset after the whole request was
sent; only the cause "client error (Connect)" says that nothing was. `test_http.py` holds it to that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from random import Random
from typing import TypeVar
from urllib.request import getproxies_environment

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)
from pyreqwest.http import HeaderMap
from pyreqwest.multipart import FormBuilder, PartBuilder
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import RequestBuilder, StreamRequest
from pyreqwest.response import Response

from batchway import metrics
from batchway.core.errors import Fault, ProviderError
from batchway.core.refusal import refusal, shown
from batchway.core.retry import ONCE, REPEATABLE, SAFE, Retry

log = logging.getLogger(__name__)

MAX_BODY = 4 << 20
MAX_ANSWER = 64 << 20  # of an executed line: thousands of embeddings
LOOPBACK = "localhost,127.0.0.0/8,::1"
SUCCESS = range(200, 300)

T = TypeVar("T")
Source = Callable[[], AsyncIterator[bytes]]  # opens a body; a repeat opens it again
Query = Mapping[str, str | int | bool]


class NotSent(ProviderError):
    """There was no connection: the other side has seen nothing of this call."""


class Reply(msgspec.Struct, frozen=True):
    """A whole answer: status, headers with lower-case names, and at most `max_body` bytes."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class FilePart:
    """The file of a multipart upload. With `size` in bytes known, the request has a Content-Length."""

    field: str
    filename: str
    content_type: str
    source: Source
    size: int | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    """One request as data; `fill` puts the body in, anew for each attempt."""

    method: str
    url: str
    headers: Mapping[str, str] | None
    query: Query | None
    fill: Callable[[RequestBuilder], RequestBuilder]
    timeout: float
    retry: Retry
    ok: Container[int] = SUCCESS
    max_body: int = MAX_BODY

    @property
    def name(self) -> str:
        return shown(self.method, self.url)


class Download:
    """An open answer; `chunks` may be read once, and only inside the block of `Http.stream`."""

    def __init__(self, call: _Call, answer: Response) -> None:
        self.status = answer.status
        self.headers = _plain(answer.headers)
        self._call = call
        self._answer = answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece; an early end or a silence of `timeout` seconds is a transient ProviderError."""
        read = self._answer.body_reader.read_chunk
        size = 0
        while True:
            try:
                async with asyncio.timeout(self._call.timeout):
                    chunk = await read()
                failure = None
            except (PyreqwestError, TimeoutError) as error:
                chunk = None
                failure = ProviderError(
                    f"{self._call.name}: the answer ended after {size} bytes: {_cause(error)}",
                    fault=Fault.TRANSIENT,
                    status=self.status,
                )
            if failure is not None:
                raise failure
            if chunk is None:
                return
            size += len(chunk)
            yield bytes(chunk)


class Http:
    """A client with one pool of connections; proxies come from the environment, but never for loopback.

    `pinned` maps hosts (lower case) to the address where they are found, whatever DNS says, and then without a proxy.
    """

    def __init__(  # noqa: PLR0913 - public API
        self,
        *,
        user_agent: str,
        random: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        connect_timeout: float = 10.0,
        pool_idle: float = 30.0,
        max_connections: int | None = None,
        pinned: Mapping[str, str] | None = None,
    ) -> None:
        self._random = random
        self._sleep = sleep
        builder = (
            ClientBuilder()
            .user_agent(user_agent)
            .follow_redirects(enable=False)
            .connect_timeout(timedelta(seconds=connect_timeout))
            .pool_idle_timeout(timedelta(seconds=pool_idle))
            .max_connections(max_connections)
            .no_proxy()
        )
        self._client: Client = (_with_proxies(builder) if pinned is None else _pinned(builder, pinned)).build()

    async def close(self) -> None:
        """Close every connection; calls in flight fail."""
        await self._client.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Reply:
        """The answer, whatever its status, to one try: the executor's hot path. No answer: `NotSent` or `LOST`."""
        try:
            builder = self._client.post(url).headers(headers).body_bytes(body).timeout(timedelta(seconds=timeout))
            async with builder.build_streamed() as answer:
                found = bytes(await answer.body_reader.read(MAX_ANSWER + 1) or b"")
                if len(found) <= MAX_ANSWER:
                    return Reply(answer.status, _plain(answer.headers), found)
            failure = _too_big(shown("POST", url), MAX_ANSWER, idempotent=False)
        except PyreqwestError as error:
            failure = _silence(shown("POST", url), error, idempotent=False)
        except ValueError:
            failure = _unbuildable(shown("POST", url))
        raise failure

    async def request(  # noqa: PLR0913 - public API
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Query | None = None,
        json: bytes | None = None,
        body: bytes | Source | None = None,
        timeout: float,
        retry: Retry | None = None,
        ok: Container[int] = SUCCESS,
        max_body: int = MAX_BODY,
    ) -> Reply:
        """The whole answer, at most `max_body` bytes, with a status that is in `ok`.

        `timeout` is seconds for one try. Without `retry`, the method decides: `SAFE` for the idempotent ones of HTTP,
        `ONCE` for POST and PATCH. A streamed body is a function that opens it, since a repeat must open it again.
        """
        if json is not None:
            headers = {"content-type": "application/json", **(headers or {})}
            body = json
        chosen = retry or (SAFE if method in REPEATABLE else ONCE)
        call = _Call(method, url, headers, query, _filling(body), timeout, chosen, ok, max_body)
        return await self._persist(call, self._whole)

    async def upload_multipart(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, str],
        file: FilePart,
        timeout: float,
        retry: Retry = ONCE,
    ) -> Reply:
        """The answer to a multipart POST whose file is streamed; `timeout` covers the whole upload."""

        def fill(builder: RequestBuilder) -> RequestBuilder:
            form = FormBuilder()
            for name, value in fields.items():
                form = form.text(name, value)
            data, size = file.source(), file.size
            part = PartBuilder.from_stream(data) if size is None else PartBuilder.from_stream_with_length(data, size)
            return builder.multipart(form.part(file.field, part.file_name(file.filename).mime(file.content_type)))

        return await self._persist(_Call("POST", url, headers, None, fill, timeout, retry), self._whole)

    @asynccontextmanager
    async def stream(  # noqa: PLR0913 - public API
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Query | None = None,
        timeout: float,
        retry: Retry = SAFE,
        ok: Container[int] = SUCCESS,
        post: bytes | None = None,
    ) -> AsyncGenerator[Download]:
        """An open answer to a GET, or to a `post`. `timeout` is the longest silence in seconds, not the whole download.

        Only the opening is retried: after the first bytes the caller knows where to go on, by `Range`.
        """
        method = "GET" if post is None else "POST"
        call = _Call(method, url, headers, query, _filling(post), timeout, retry, ok)
        opened, download = await self._persist(call, self._open)
        try:
            yield download
        finally:
            await opened.__aexit__(None, None, None)

    async def _persist(self, call: _Call, attempt: Callable[[_Call], Awaitable[T]]) -> T:
        """The retry loop: the only one."""
        clock = asyncio.get_running_loop().time
        last_start = clock() + call.retry.total
        for tries in count(1):
            try:
                return await attempt(call)
            except ProviderError as error:
                error.add_note(f"after {tries} of {call.retry.attempts} attempts")
                repeatable = error.retryable and (call.retry.idempotent or isinstance(error, NotSent))
                delay = self._delay(call.retry, tries, error.retry_after)
                again = repeatable and tries < call.retry.attempts and clock() + delay <= last_start
                metrics.tried(error, again=again)
                where = call.name.partition("/")[0]  # without the path: that of a webhook is a secret
                log.debug("try %d: %s: %s, status %s", tries, where, error.fault, error.status)
                if not again:
                    raise
            await self._sleep(delay)
        raise AssertionError

    def _delay(self, retry: Retry, tries: int, retry_after: float | None) -> float:
        if retry_after is not None:
            return retry_after + self._random.uniform(0, retry.base)  # spread those who were told the same second
        return self._random.uniform(0, min(retry.cap, retry.base * 2.0 ** (tries - 1)))

    async def _whole(self, call: _Call) -> Reply:
        request = self._build(call, timeout=call.timeout)
        try:
            async with request as answer:
                raw = await answer.body_reader.read(call.max_body + 1)
                reply = Reply(answer.status, _plain(answer.headers), bytes(raw or b""))
            if reply.status not in call.ok:
                failure = refusal(call.name, reply.status, reply.headers, reply.body, idempotent=call.retry.idempotent)
            elif len(reply.body) > call.max_body:
                failure = _too_big(call.name, call.max_body, idempotent=call.retry.idempotent)
            else:
                return reply
        except PyreqwestError as error:
            failure = _silence(call.name, error, idempotent=call.retry.idempotent)
        raise failure

    async def _open(self, call: _Call) -> tuple[StreamRequest, Download]:
        request = self._build(call, timeout=None)
        try:
            async with asyncio.timeout(call.timeout):
                answer = await request.__aenter__()
                if answer.status in call.ok:
                    return request, Download(call, answer)
                raw = await answer.body_reader.read(MAX_BODY)
            await request.__aexit__(None, None, None)
            headers, body = _plain(answer.headers), bytes(raw or b"")
            failure = refusal(call.name, answer.status, headers, body, idempotent=call.retry.idempotent)
        except (PyreqwestError, TimeoutError) as error:
            failure = _silence(call.name, error, idempotent=call.retry.idempotent)
        raise failure

    def _build(self, call: _Call, *, timeout: float | None) -> StreamRequest:
        try:
            builder = self._client.request(call.method, call.url)
            if call.headers:
                builder = builder.headers(call.headers)
            if call.query:
                builder = builder.query(call.query)
            if timeout is not None:
                builder = builder.timeout(timedelta(seconds=timeout))
            else:
                # The default holds an answer back until 64 KiB of it have come: a slow stream would look dead.
                builder = builder.streamed_read_buffer_limit(1)
            return call.fill(builder).build_streamed()
        except ValueError:
            failure = _unbuildable(call.name)
        raise failure


def _filling(body: bytes | Source | None) -> Callable[[RequestBuilder], RequestBuilder]:
    if body is None:
        return lambda builder: builder
    if isinstance(body, bytes):
        return lambda builder: builder.body_bytes(body)
    return lambda builder: builder.body_stream(body())


def _with_proxies(builder: ClientBuilder) -> ClientBuilder:
    proxies = getproxies_environment()
    spared = ",".join(filter(None, [LOOPBACK, proxies.get("no", "")]))
    for scheme, make in (("http", ProxyBuilder.http), ("https", ProxyBuilder.https), ("all", ProxyBuilder.all)):
        if url := proxies.get(scheme):
            builder = builder.proxy(make(url).no_proxy(spared))
    return builder


def _pinned(builder: ClientBuilder, addresses: Mapping[str, str]) -> ClientBuilder:
    for host, address in addresses.items():
        builder = builder.resolve(host, address, 0)  # 0: at the URL's own port
    return builder


def _plain(headers: HeaderMap) -> dict[str, str]:
    try:
        return dict(headers.items())
    except ValueError:  # one value outside UTF-8 must not cost the answer: leave that header out
        readable: dict[str, str] = {}
        for name in headers:
            with suppress(ValueError):
                readable[name] = headers[name]
        return readable


def _too_big(name: str, limit: int, *, idempotent: bool) -> ProviderError:
    fault = Fault.REJECTED if idempotent else Fault.LOST
    return ProviderError(f"{name}: the answer is longer than {limit} bytes", fault=fault)


def _unbuildable(name: str) -> ProviderError:
    return ProviderError(f"{name}: not a valid URL, header or query value", fault=Fault.REJECTED)


def _silence(name: str, error: Exception, *, idempotent: bool) -> ProviderError:
    """The error for a call that got no answer."""
    if isinstance(error, BuilderError):  # some faults of a URL show only when it is sent
        return _unbuildable(name)
    if isinstance(error, PoolTimeoutError) or "client error (Connect)" in _causes(error):
        return NotSent(f"{name}: no connection: {_cause(error)}", fault=Fault.TRANSIENT)
    fault = Fault.TRANSIENT if idempotent else Fault.LOST
    return ProviderError(f"{name}: no answer: {_cause(error)}", fault=fault)


def _causes(error: Exception) -> list[str]:
    causes = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return [cause["message"] for cause in causes or ()]


def _cause(error: Exception) -> str:
    """The innermost reason, as the system words it, unless it quotes a URL."""
    if isinstance(error, (TimeoutError, RequestTimeoutError)):
        return "timed out"
    last = (_causes(error) or [""])[-1]
    return last[:200] if last and "://" not in last else type(error).__name__
