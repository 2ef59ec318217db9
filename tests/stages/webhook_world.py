"""Webhooks on a test's database: tools for their receivers, rows of endpoints, and events with positions."""

from __future__ import annotations

import itertools
from typing import Any

from batchway.core.events import Event, EventType
from batchway.db import deliveries, webhooks
from batchway.db.deliveries import Room
from batchway.integrations.protocol import Tools
from batchway.integrations.webhook.sign import Secret, packed
from tests.stages.world import World

SECRET = "whsec_" + "QUFB" * 11
_positions = itertools.count(1)


def tools_of(world: World) -> Tools:
    return Tools(
        http=None,  # a webhook's messages go over connections of their own
        db=world.db,
        storage=world.storage,
        clock=lambda: world.now,
        new_id=world.trip.new_id,
        seal=lambda text: f"sealed:{text}",
        unseal=lambda text: text.removeprefix("sealed:"),
    )


async def endpoint(world: World, name: str, **changes: Any) -> str:
    values = {
        "id": name,
        "project": None,
        "batch_id": None,
        "key_id": "key_1",
        "url": f"http://{name}.example.com/",
        "secret": "sealed:" + packed([Secret(SECRET)]),
        "events": ["*"],
        "allow_private": True,
        "admin": True,
        "created_at": world.now,
    }
    await world.db.write(webhooks.add, values | changes)
    return name


def told(world: World, subject: str, kind: EventType = EventType.BATCH_COMPLETED, **changes: Any) -> Event:
    position = next(_positions)
    fields = {
        "id": f"evt_{position}",
        "type": kind,
        "subject": subject,
        "project": "p",
        "key_id": "key_1",
        "created_at": world.now,
        "position": position,
        "data": {"id": subject},
    }
    return Event(**fields | changes)


async def expand(world: World, *pairs: tuple[str, Event]) -> None:
    await world.db.write(deliveries.expand, pairs, world.now, world.trip.new_id)


def room(**changes: Any) -> Room:
    return Room(**{"slots": 100, "each": 4, "busy": {}, "full": (), "receiver": None} | changes)


async def claim(world: World, *ended: deliveries.Sent, **changes: Any) -> list[Any]:
    return await world.db.write(deliveries.settle_and_claim, ended, room(**changes), world.now)


def sent(row: Any, status: str = "delivered", **changes: Any) -> deliveries.Sent:
    fields = {"delivery_id": row["id"], "webhook_id": row["webhook_id"], "subject": row["subject"]}
    error = None if status == "delivered" else "status 500"
    fields |= {"attempt": row["attempts"], "status": status, "answer": 200 if error is None else 500, "error": error}
    return deliveries.Sent(**fields | changes)


async def rows_of(world: World, webhook_id: str) -> dict[str, Any]:
    """Its deliveries by event."""
    rows, _ = await world.db.read(deliveries.page, webhook_id, 1000, None, None)
    return {row["event_id"]: row for row in rows}
