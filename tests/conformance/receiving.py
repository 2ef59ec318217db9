"""Peers that receivers tell, with troubles on command: an HTTP server that keeps what it got, a proxy before others.

`trouble` is the word of `ReceiverGround.disturb`. A peer keeps its port over "away".
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from batchway.core.ids import new_id
from batchway.db.engine import Database
from batchway.http import Http
from batchway.integrations.protocol import Tools
from batchway.storage import LocalStorage
from batchway.testing.receiver_ground import RETRY_AFTER, Trouble

log = logging.getLogger("tests.receiving")


@dataclass
class Asked:
    """One request that was answered with success."""

    path: str
    headers: dict[str, str]
    body: bytes


class _Peer:
    """A server on a port of its own."""

    def __init__(self) -> None:
        self.trouble: Trouble = ""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def disturb(self, how: Trouble) -> None:
        await self.stop()  # whoever hangs is let go, and no connection of the former mood is used again
        self.trouble = how
        if how != "away":
            await self.start()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.trouble == "hangs":
                await asyncio.Event().wait()
            await self.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            log.debug("the caller went")
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


async def request(reader: asyncio.StreamReader) -> Asked:
    """The one request of a connection: a kept one may be found dead when the peer's mood changes."""
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(first.split()[1], headers, body)


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    listed = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {len(body)}\r\n{listed}\r\n".encode() + body


class HttpPeer(_Peer):
    """Keeps the bodies, unpacked, of what it answers with 200 and `reply`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.reply = b""
        self.media = "application/json"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await request(reader)
        if self.trouble == "busy":
            writer.write(answer(429, b'{"error":"later"}', Retry_After=str(int(RETRY_AFTER))))
        elif self.trouble == "refuses":
            writer.write(answer(400, b"no"))
        else:
            if asked.headers.get("content-encoding") == "gzip":
                asked.body = gzip.decompress(asked.body)
            self.asked.append(asked)
            writer.write(answer(200, self.reply, Content_Type=self.media))
        await writer.drain()


class Proxy(_Peer):
    """Carries bytes to a server on a port or a unix socket; what is busy or refuses answers as an HTTP server does."""

    def __init__(self, target: int | str) -> None:
        super().__init__()
        self._target = target

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.trouble in ("busy", "refuses"):
            await reader.read(65536)
            writer.write(answer(503, Retry_After=str(int(RETRY_AFTER))) if self.trouble == "busy" else answer(403))
            return
        if isinstance(self._target, str):
            there_reader, there_writer = await asyncio.open_unix_connection(self._target)
        else:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_carry(reader, there_writer))
                both.create_task(_carry(there_reader, writer))
        except* ConnectionError:
            log.debug("one side went")
        finally:
            there_writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@asynccontextmanager
async def opened_tools(folder: Path) -> AsyncIterator[Tools]:
    """What receivers share, over an empty database."""
    http = Http(user_agent="tests", random=Random(1))
    db = Database(f"sqlite:///{folder / 'db'}")
    made = Tools(
        http=http,
        db=db,
        storage=LocalStorage(folder / "files", durable=False),
        clock=lambda: 1_790_000_000.0,
        new_id=new_id,
        seal=lambda text: text,
        unseal=lambda text: text,
    )
    try:
        yield made
    finally:
        await http.close()
        db.close()
