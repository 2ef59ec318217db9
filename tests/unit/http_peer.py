"""A server that answers each connection with given bytes, or with a fault: the other end of the HTTP client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

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
