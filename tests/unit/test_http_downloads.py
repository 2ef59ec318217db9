"""Downloads: streamed, passed on as they come, never silently short."""

from __future__ import annotations

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.http import Http
from tests.unit.http_peer import (
    Answer,
    Server,
    answer,
    http,
    server,
    stopping_after,
    waits,
)

__all__ = ["http", "server", "waits"]


async def test_a_download_is_streamed(http: Http, server: Server) -> None:
    body = bytes(range(256)) * 20_000
    server.script = [answer(503), answer(206, body, content_range="bytes 5-9/10")]
    async with http.stream(server.url, headers={"range": "bytes=5-"}, timeout=5) as download:
        assert (download.status, download.headers["content-range"]) == (206, "bytes 5-9/10")
        received = [chunk async for chunk in download.chunks()]
    assert b"".join(received) == body
    assert len(received) > 1


async def test_a_slow_download_is_passed_on_as_it_comes(http: Http, server: Server) -> None:
    server.script = [stopping_after(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc", silently=True)]
    async with http.stream(server.url, timeout=5) as download:
        assert await anext(download.chunks()) == b"abc"


@pytest.mark.parametrize(
    "first",
    [
        stopping_after(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"),
        stopping_after(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        stopping_after(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc", silently=True),
    ],
)
async def test_a_download_that_breaks_off_is_an_error_never_a_short_file(
    http: Http, server: Server, first: Answer
) -> None:
    server.script = [first]
    received = b""
    with pytest.raises(ProviderError, match="ended after") as caught:  # noqa: PT012 - what came before counts
        async with http.stream(server.url, timeout=0.3) as download:
            async for chunk in download.chunks():
                received += chunk
    assert (caught.value.fault, received) == (Fault.TRANSIENT, b"abc")


async def test_a_refused_download_tells_why(http: Http, server: Server) -> None:
    server.script = [answer(404, b'[{"error": {"code": 404, "status": "NOT_FOUND"}}]')]
    with pytest.raises(ProviderError) as caught:
        async with http.stream(server.url, timeout=5):
            pass
    assert (caught.value.fault, caught.value.status, caught.value.code) == (Fault.REJECTED, 404, "NOT_FOUND")


async def test_a_download_left_early_frees_its_connection(http: Http, server: Server) -> None:
    server.script = [answer(200, bytes(20_000_000)), answer(200, b"next")]
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is under test
        async with http.stream(server.url, timeout=5) as download:
            await anext(download.chunks())
            _ = 1 / 0
    assert (await http.request("GET", server.url, timeout=5)).body == b"next"
