"""Posts windows of events to any URL, as a JSON array or as lines of JSON (NDJSON).

Each element is an event as docs/events.schema.json says, or with `lines: true` also a line record, whose `type` is
`line`. A POST has at most `max_bytes` (one larger element goes alone), and `Idempotency-Key` names what is in it: a
repeat of the same elements has the same key. Any status 200 to 299 means that all are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Literal

import msgspec

from batchway.core.events import Event
from batchway.integrations.posting import checked_headers, checked_url, post
from batchway.integrations.protocol import LineRecord, Receiver, Tools

KIND = "http"

encode = msgspec.json.Encoder().encode


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    url: str
    headers: dict[str, str] = {}
    format: Literal["json", "ndjson"] = "json"
    max_bytes: int = 1 << 20
    timeout: float = 15.0
    lines: bool = False

    def __post_init__(self) -> None:
        checked_url(self.url)
        checked_headers(self.headers)
        if self.max_bytes < 1:
            raise ValueError("max_bytes: at least 1")


def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
    """A sink at the entry's URL."""
    return HttpSink(name, options, tools)


class HttpSink:
    """See the module."""

    window = 100

    def __init__(self, name: str, options: Options, tools: Tools) -> None:
        self.lines = options.lines
        self._name = name
        self._options = options
        self._http = tools.http

    async def tell(self, events: Sequence[Event]) -> None:
        """Posts these events."""
        await self._post([encode(event) for event in events])

    async def tell_lines(self, event: Event, records: Sequence[LineRecord]) -> None:
        """Posts these records."""
        await self._post([b'{"type":"line",' + encode(record)[1:] for record in records])

    async def close(self) -> None:
        """Nothing is held back."""

    async def _post(self, elements: Sequence[bytes]) -> None:
        array = self._options.format == "json"
        media = "application/json" if array else "application/x-ndjson"
        for part in parts(elements, self._options.max_bytes):
            body = b"[" + b",".join(part) + b"]" if array else b"".join(element + b"\n" for element in part)
            named = {"content-type": media, "idempotency-key": sha256(body).hexdigest()}
            headers = named | {name.lower(): value for name, value in self._options.headers.items()}
            await post(self._http, self._name, self._options.url, headers, body, self._options.timeout)


def parts(elements: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    """The elements in order, in parts of at most `most` bytes, but at least one element."""
    part: list[bytes] = []
    size = 0
    for element in elements:
        if part and size + len(element) + 1 > most:
            yield part
            part, size = [], 0
        part.append(element)
        size += len(element) + 1
    if part:
        yield part
