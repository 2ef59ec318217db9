"""A server that answers each connection with given bytes, or with a fault: the other end of the HTTP client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from random import Random

import pytest

from batchway.core.errors import ProviderError
from batchway.http import Http, Reply

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server that answers each request with the next line of a script, and remembers what it was asked."""

    def __init__(self) -> None:
        self.script: list[bytes | Answer] = []
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.asked = asyncio.Event()
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                self.bodies.append(await self._body(reader, head.lower()))
                self.asked.set()
                answer = self.script.pop(0)
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(writer)
                    break
        writer.close()

    async def _body(self, reader: asyncio.StreamReader, head: str) -> bytes:
        if "transfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
            return body
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        return await reader.readexactly(int(length or 0))


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def cut(writer: asyncio.StreamWriter) -> None:
    """Close without an answer, as a crashed server does."""


async def reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def stopping_after(sent: bytes, *, silently: bool = False) -> Answer:
    async def begin(writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        if silently:
            await asyncio.Event().wait()

    return begin


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    handler = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await handler(reader, writer)

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    handler.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/things"
    yield handler
    listening.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
async def http(waits: list[float]) -> AsyncIterator[Http]:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    client = Http(user_agent="batchway/test", random=Random(7), sleep=sleep)
    yield client
    await client.close()


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1/x?key=SECRET"


async def failure(call: Awaitable[Reply]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value
