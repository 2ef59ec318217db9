"""An HTTP peer that takes webhooks: it remembers what came, and answers as a test says, host by host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Behaviour = Callable[["Asked"], "Awaitable[int | str] | int | str"]
"""Answers a status, or raw bytes as text; it may wait before, or never come back."""


@dataclass(frozen=True)
class Asked:
    host: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)


@dataclass
class Peer:
    """`behave` is asked about every request; `changed` is set after each."""

    port: int = 0
    behave: Behaviour = lambda _: 204
    asked: list[Asked] = field(default_factory=list)
    taken: list[Asked] = field(default_factory=list)  # those that were answered with 2xx
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, host: str, path: str = "/") -> str:
        return f"http://{host}.example.com:{self.port}{path}"

    def ids(self, host: str | None = None) -> list[str]:
        """The events that were taken, with their repeats."""
        return [one.event["id"] for one in self.taken if host in (None, one.host)]

    async def until(self, true: Callable[[], bool], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(true)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await _read(reader)
                await self._note(asked)
                said = self.behave(asked)
                said = said if isinstance(said, int | str) else await said
                if isinstance(said, int):
                    if 200 <= said < 300:
                        self.taken.append(asked)
                    said = f"HTTP/1.1 {said} X\r\ncontent-length: 0\r\n\r\n"
                writer.write(said.encode())
                await writer.drain()
                async with self.changed:
                    self.changed.notify_all()

    async def _note(self, asked: Asked) -> None:
        self.asked.append(asked)
        async with self.changed:
            self.changed.notify_all()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(headers["host"].split(".")[0], head[0].split(" ")[1], headers, body)


@asynccontextmanager
async def open_peer():
    """Every connection ends with the block, whatever it was doing."""
    peer, open_ends = Peer(), []

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ends.append((asyncio.current_task(), writer))
        with suppress(asyncio.CancelledError):
            await peer.serve(reader, writer)
        writer.close()

    listening = await asyncio.start_server(exchange, "127.0.0.1", 0)
    peer.port = listening.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        listening.close()
        for task, writer in open_ends:
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*(task for task, _ in open_ends), return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in a callback


async def here(host: str, port: int) -> list[str]:
    """Every name is on this machine."""
    return ["127.0.0.1"]
