"""What a receiver is: somebody who is told of stored events, at least once, in the order of their positions.

`pipeline/notify.py` reads the outbox and tells every receiver by itself: each has its own place in the order, its own
window of events and its own pauses after failures, so a slow or failing one holds up nobody else, and never a batch.
A receiver that must not act twice remembers `event.id`: a repeat carries the same one.

A receiver's module or folder holds

    KIND: str                                   the word for it in batchway.yaml
    class Options(msgspec.Struct, ...)          what an entry may say; unknown fields are refused with the nearest name
    def open_receiver(name, options, tools) -> Receiver

or, when several words mean it, `KINDS`: a mapping of each word to an object with the last two. `ALWAYS = True` opens it
without an entry too; `EVENTS` are the patterns of an entry that names none. Only the process that tells opens
receivers; options are checked by every process at its start, so what can be wrong with them is a ValueError of
`Options.__post_init__`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from batchway.core.events import Event
from batchway.core.usage import Usage
from batchway.db.engine import Database
from batchway.http import Http
from batchway.storage import Storage


class ReceiverError(Exception):
    """The receiver could not take what it was told. The message holds statuses and sizes, never a body or a secret.

    `permanent`: telling it again cannot help, so the event becomes a dead letter at once. `retry_after` in seconds.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent
        self.retry_after = retry_after


class LineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One answered line. `request` and `response` are JSON bodies, or as the project's redaction left them.

    Redaction `hash` puts `{"sha256": "..."}` there, `drop` nothing. `amount` is in pico-dollars, None when unknown.
    """

    batch_id: str
    job_id: str
    number: int  # of the line in the input file, from 1
    custom_id: str
    project: str
    key_id: str
    provider: str
    model: str
    ok: bool
    status: int | None
    usage: Usage
    amount: int | None
    request: msgspec.Raw | None
    response: msgspec.Raw | None
    ended_at: float


class Receiver(Protocol):
    """Told of windows of events."""

    @property
    def window(self) -> int:
        """How many events it takes at a time; 1 for those who can refuse a single one."""
        ...

    async def tell(self, events: Sequence[Event]) -> None:
        """Takes all of them, or raises ReceiverError having perhaps taken some: then they are told again."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class TakesLines(Receiver, Protocol):
    """A receiver that also wants a record of every answered line (when its entry says `lines: true`)."""

    @property
    def lines(self) -> bool: ...

    async def tell_lines(self, event: Event, records: Sequence[LineRecord]) -> None:
        """A bounded part of the lines of the job whose `job.accounted` event this is; repeats repeat whole parts."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What receivers share. `seal` and `unseal` are the vault's; `clock` answers unix seconds."""

    http: Http
    db: Database
    storage: Storage
    clock: Callable[[], float]
    new_id: Callable[[str], str]
    seal: Callable[[str], str]
    unseal: Callable[[str], str]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A configured receiver: `events` are patterns of event types; `name` is where its place is remembered.

    A name that is new begins with what happens from now on, with `start` at "start" with all that is still stored.
    """

    name: str
    kind: str
    events: tuple[str, ...] = ("*",)
    projects: tuple[str, ...] | None = None
    start: Literal["now", "start"] = "now"
    options: dict[str, Any] = {}

    def concerns(self, event: Event) -> bool:
        """Whether the event is of a project that it is for."""
        return self.projects is None or event.project in self.projects

    def wants(self, event: Event) -> bool:
        """Whether it is to be told of this event."""
        return self.concerns(event) and any(fnmatchcase(event.type, pattern) for pattern in self.events)
