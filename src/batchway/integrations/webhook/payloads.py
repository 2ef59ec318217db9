"""The body of a message: OpenAI's webhook event, which its clients unwrap into typed objects.

    {"id": "evt_...", "object": "event", "type": "batch.completed", "created_at": 1790000000,
     "data": {"id": "batch_...", "batchway": {...}}, "batchway": {"version": 1, "subject", "project", "key_id"}}

The four ends of a batch are events of OpenAI's too: their `data` is OpenAI's, and ours stands under `batchway` in it.
Of all other events `data` is ours. The same event makes the same bytes every time.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batchway.core.events import Event

ENDS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
TEST = "webhook.test"


def body_of(event: Event) -> bytes:
    """An event as it is sent."""
    data = {"id": event.subject, "batchway": event.data} if event.type in ENDS else event.data
    about = {"version": event.version, "subject": event.subject, "project": event.project, "key_id": event.key_id}
    return _envelope(event.id, event.type, event.created_at, data, about)


def body_of_test(event_id: str, webhook_id: str, now: float) -> bytes:
    """A message that tells nothing, to see whether it arrives."""
    return _envelope(event_id, TEST, now, {"id": webhook_id}, {})


def _envelope(event_id: str, kind: str, created_at: float, data: dict[str, Any], about: dict[str, Any]) -> bytes:
    event = {"id": event_id, "object": "event", "type": kind, "created_at": int(created_at), "data": data}
    return msgspec.json.encode({**event, "batchway": about} if about else event)
