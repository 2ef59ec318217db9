"""Events as JSON lines on the standard output, for whoever collects a container's logs.

Each line is an event, as `docs/events.schema.json` says, or with `lines: true` also a line record, whose `type` is
`line`. The records of a job come before its `job.accounted`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from batchway.core.events import Event
from batchway.integrations.apart import Apart
from batchway.integrations.protocol import LineRecord, Receiver, ReceiverError, Tools

KIND = "stdout"

encode = msgspec.json.Encoder().encode


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`lines`: whether every answered line is told too."""

    lines: bool = False


def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
    """The standard output of this process."""
    return Stdout(name, lines=options.lines)


class Stdout:
    """Writes in a thread of its own: a full pipe that nobody reads blocks."""

    window = 64

    def __init__(self, name: str, *, lines: bool) -> None:
        self.lines = lines
        self._apart = Apart(f"receiver {name}")

    async def tell(self, events: Sequence[Event]) -> None:
        await self._write(b"".join(encode(event) + b"\n" for event in events))

    async def tell_lines(self, event: Event, records: Sequence[LineRecord]) -> None:
        await self._write(b"".join(b'{"type":"line",%b\n' % encode(record)[1:] for record in records))

    async def close(self) -> None:
        await self._apart.close()

    async def _write(self, data: bytes) -> None:
        async def write() -> None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

        try:
            await self._apart.run(write)
        except (OSError, ValueError) as error:
            raise ReceiverError(f"the standard output cannot be written: {type(error).__name__}") from None
