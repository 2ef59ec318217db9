"""Whether the process lives, and whether it can do its work. No key is needed, nothing secret is told."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Literal

import msgspec
from sqlalchemy import Connection, select
from starlette.responses import Response

from batchway.db.schema import meta
from batchway.server.routing import Call, Operation, encode

Word = Literal["ok", "failing"]

log = logging.getLogger("batchway.server")


class Alive(msgspec.Struct, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(msgspec.Struct, kw_only=True):
    """Whether the database and the storage answer; the log says why one does not."""

    status: Word
    database: Word
    storage: Word


async def live(call: Call) -> Alive:
    """The process answers."""
    return Alive()


async def ready(call: Call) -> Response:
    """Database and storage answer; 503 with the same body when one does not."""
    database = await _probe("database", call.gateway.db.read(_select_one))
    storage = await _probe("storage", call.gateway.storage.exists("health"))
    fine: Word = "ok" if database == storage == "ok" else "failing"
    body = encode(Ready(status=fine, database=database, storage=storage))
    return Response(body, 200 if fine == "ok" else 503, media_type="application/json")


async def _probe(name: str, question: Awaitable[object]) -> Word:
    try:
        await question
    except Exception:
        log.exception("the %s does not answer", name)
        return "failing"
    return "ok"


def _select_one(tx: Connection) -> None:
    tx.execute(select(meta.c.key).limit(1))


OPERATIONS = (
    Operation(
        method="GET", path="/health/live", name="live", handler=live, answer=Alive, tag="Health", open=True,
        versioned=False,
    ),
    Operation(
        method="GET", path="/health/ready", name="ready", handler=ready, answer=Ready, tag="Health", open=True,
        versioned=False,
    ),
)  # fmt: skip
