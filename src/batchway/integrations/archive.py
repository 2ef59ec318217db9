"""Archives events as JSON lines in objects of a bucket or a folder, which nothing changes again.

    events/date=2026-11-22/00000000000000000041-00000000000000000057.jsonl     positions of the first and last event
    lines/date=2026-11-22/job_.../000000000001-000000000500.jsonl              line numbers, with `lines: true`

An object's name says what is in it, so a repeat of the same window overwrites the same object with the same bytes. A
repeat that is cut otherwise (a crash, and more came) makes another object: readers drop repeats by `id`, or by job and
`number`. The date is that of the first event, in UTC.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from batchway.core.errors import ConfigError
from batchway.core.events import Event
from batchway.integrations.protocol import LineRecord, Receiver, ReceiverError, Tools
from batchway.storage import Storage, StorageError, open_storage

KIND = "archive"

encode = msgspec.json.Encoder().encode


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`url` is a whole path of a folder, `file://`, `s3://bucket/prefix`, `gs://` or `az://`; `timeout` in seconds.

    Credentials come from each cloud's usual environment variables.
    """

    url: str
    compress: Literal["none", "gzip"] = "none"
    timeout: float = 20.0
    lines: bool = False

    def __post_init__(self) -> None:
        if "://" not in self.url and not Path(self.url).expanduser().is_absolute():
            raise ValueError("url: a whole path, file://, s3://, gs:// or az://")
        try:
            open_storage(self.url, home=Path("/"))
        except ConfigError as error:
            raise ValueError(f"url: {error}") from None


def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
    """An archive below the entry's URL."""
    return Archive(name, options)


class Archive:
    """See the module."""

    window = 500

    def __init__(self, name: str, options: Options) -> None:
        self.lines = options.lines
        self._name = name
        self._options = options
        self._storage: Storage = open_storage(options.url, home=Path("/"))

    async def tell(self, events: Sequence[Event]) -> None:
        """One object of these events."""
        first, last = (event.id if event.position is None else f"{event.position:020d}" for event in _ends(events))
        name = f"events/{_date(events[0].created_at)}/{first}-{last}"
        await self._put(name, b"".join(encode(event) + b"\n" for event in events))

    async def tell_lines(self, event: Event, records: Sequence[LineRecord]) -> None:
        """One object of these records."""
        first, last = (f"{record.number:012d}" for record in (records[0], records[-1]))
        name = f"lines/{_date(event.created_at)}/{records[0].job_id}/{first}-{last}"
        await self._put(name, b"".join(b'{"type":"line",' + encode(record)[1:] + b"\n" for record in records))

    async def close(self) -> None:
        await self._storage.close()

    async def _put(self, name: str, data: bytes) -> None:
        packed = self._options.compress == "gzip"
        key = f"{name}.jsonl.gz" if packed else f"{name}.jsonl"
        try:
            async with asyncio.timeout(self._options.timeout):  # the storage itself repeats for a minute
                stored = await asyncio.to_thread(gzip.compress, data, 6, mtime=0) if packed else data
                await self._storage.put(key, stored)
            return
        except TimeoutError:
            problem = f"no answer within {self._options.timeout} s"
        except StorageError:
            problem = "the storage failed"
        raise ReceiverError(f"{self._name}: {problem}")


def _ends(events: Sequence[Event]) -> tuple[Event, Event]:
    return events[0], events[-1]


def _date(seconds: float) -> str:
    return f"date={datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
