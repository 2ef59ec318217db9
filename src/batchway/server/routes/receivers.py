"""Receivers of events, for admins: how far each is, and telling it again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from batchway.db import audit, receivers
from batchway.server.routing import Call, Operation
from batchway.wire.receivers import Receiver, ReceiverList, ReceiverRetry


async def list_receivers(call: Call) -> ReceiverList:
    """Who is told of events, how far each is behind, and why."""
    return await call.gateway.db.read(_listed, call.gateway.clock())


async def retry(call: Call) -> ReceiverRetry:
    """Tries a failing receiver now, and tells it again of each dead letter, once."""
    return await call.gateway.db.write(_retry, call, call.params["receiver"])


def _listed(tx: Connection, now: float) -> ReceiverList:
    lags = {lag.name: lag for lag in receivers.lag(tx, now)}
    return ReceiverList(data=[_to_wire(row, lags[row["name"]]) for row in receivers.every(tx)])


def _to_wire(row: Any, lag: receivers.Lag) -> Receiver:
    return Receiver(
        name=row["name"],
        behind=lag.events,
        behind_seconds=round(lag.seconds, 3),
        failures=row["failures"],
        dead_letters=lag.dead,
        failing_since=_seconds(row["failing_since"]),
        next_try_at=_seconds(row["not_before"] or None),
        last_error=row["last_error"],
        told_at=_seconds(row["told_at"]),
    )


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)


def _retry(tx: Connection, call: Call, name: str) -> ReceiverRetry:
    now = call.gateway.clock()
    again = receivers.redeliver(tx, name, now)
    audit.record(tx, call.actor, "receiver.retried", name, now, {"dead_letters": again})
    return ReceiverRetry(name=name, dead_letters=again)


OPERATIONS = (
    Operation(
        method="GET", path="/receivers", name="listReceivers", handler=list_receivers, answer=ReceiverList,
        tag="Receivers", admin=True, errors=(403,),
    ),
    Operation(
        method="POST", path="/receivers/{receiver}/retry", name="retryReceiver", handler=retry, answer=ReceiverRetry,
        tag="Receivers", admin=True, errors=(403, 404),
    ),
)  # fmt: skip
