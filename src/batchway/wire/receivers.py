"""Receivers: how far each has been told of events; and what a stream of a batch's events holds.

Times are unix seconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchway.wire.batches import RequestCounts, Status


class Receiver(msgspec.Struct, kw_only=True):
    """One receiver. `behind` counts the events that it has not been told of, `behind_seconds` is the oldest one's age.

    `failures` are those in a row; it is told again at `next_try_at`. `dead_letters` are events that it refused, or
    could not take for three days.
    """

    name: str
    object: Literal["receiver"] = "receiver"
    behind: int
    behind_seconds: float
    failures: int
    dead_letters: int
    failing_since: int | None = None
    next_try_at: int | None = None
    last_error: str | None = None
    told_at: int | None = None


class ReceiverList(msgspec.Struct, kw_only=True):
    """All receivers that have been told of events, by name."""

    object: Literal["list"] = "list"
    data: list[Receiver]


class ReceiverRetry(msgspec.Struct, kw_only=True):
    """The receiver is tried at once, and told again of its dead letters: so many."""

    name: str
    object: Literal["receiver.retry"] = "receiver.retry"
    dead_letters: int


class StreamEvent(msgspec.Struct, kw_only=True):
    """One event of a stream. Of type `batch` it holds `status` and `request_counts`, else an event and its `data`."""

    type: str
    id: str
    status: Status | None = None
    request_counts: RequestCounts | None = None
    subject: str | None = None
    position: int | None = None
    created_at: float | None = None
    data: dict[str, Any] | None = None
