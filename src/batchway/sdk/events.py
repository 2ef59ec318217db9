"""The operations over events and their receivers; as in `calls.py`, data and no I/O."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Unpack

from batchway.sdk.call import Call, Options, call, segment
from batchway.sdk.objects import ReceiverPage, ReceiverRetry, StreamEvent, made


def batch_events(batch_id: str, after: str | None = None, **options: Unpack[Options]) -> Call[StreamEvent]:
    """Streams what happens to a batch until its end.

    An event of type `batch` tells its `status` and `request_counts`; all others are those of the outbox, with an `id`
    from which a stream that broke off goes on: `after`.
    """
    asked = call(
        "batch_events",
        f"GET /batches/{segment(batch_id, 'batch_id')}/events",
        partial(made, StreamEvent),
        options,
    )
    headers = asked.headers if after is None else {**asked.headers, "last-event-id": after}
    return replace(asked, streamed=True, headers=headers)


def list_receivers(**options: Unpack[Options]) -> Call[ReceiverPage]:
    """Returns who is told of events, how far each is behind, and why (admin)."""
    return call("list_receivers", "GET /receivers", partial(made, ReceiverPage), options)


def retry_receiver(name: str, **options: Unpack[Options]) -> Call[ReceiverRetry]:
    """Tries a failing receiver now, and tells it again of its dead letters (admin)."""
    route = f"POST /receivers/{segment(name, 'name')}/retry"
    return call("retry_receiver", route, partial(made, ReceiverRetry), options, repeatable=True)
