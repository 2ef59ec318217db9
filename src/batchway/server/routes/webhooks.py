"""Webhooks of a project, or of the gateway for admins, and their deliveries. A secret is shown once.

A change and its audit entry are one transaction. What an admin made, and what stands in batchway.yaml, is an admin's to
see and to change: it may be told of what is private, and may lead into a private network.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from msgspec import UNSET
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import Conflict, RequestError
from batchway.db import audit, deliveries, projects, webhooks
from batchway.integrations.webhook.endpoints import New, check_events, may_allow, shown
from batchway.server import once
from batchway.server.routing import Call, Operation
from batchway.wire.webhooks import (
    DeliveriesRetried,
    Delivery,
    DeliveryList,
    DeliveryQuery,
    Webhook,
    WebhookCreate,
    WebhookDeleted,
    WebhookList,
    WebhookQuery,
    WebhookRotate,
    WebhookTested,
    WebhookUpdate,
)

MOST = 100  # of a project, and of the gateway


async def create(call: Call) -> Webhook:
    """A new webhook; `secret` is in this answer and nowhere else."""
    new = await call.gateway.webhooks.new(call.principal, call.body)
    await call.gateway.db.write(_add, call, new)
    return new.shown()


def _add(tx: Connection, call: Call, new: New) -> None:
    if call.body.project is not None:
        projects.get(tx, call.body.project)
    if webhooks.count(tx, new.values["project"]) >= MOST:
        message = f"There are {MOST} webhooks already: delete some, or let one take the events of several."
        raise RequestError(message, code="too_many_webhooks")
    webhooks.add(tx, new.values)
    details = {**_discreet(new.values["url"]), "project": new.values["project"], "events": new.values["events"]}
    _note(tx, call, "webhook.created", new.values["id"], {**details, "allow_private": new.values["allow_private"]})
    once.keep(tx, call.principal, call.idempotency, shown(new.values), call.gateway.clock())


async def list_webhooks(call: Call) -> WebhookList:
    """Webhooks, newest first, without their secrets."""
    query: WebhookQuery = call.query
    sight = call.principal.sees
    rows, more = await call.gateway.db.read(webhooks.page, sight, query.limit, query.after, query.batch_id)
    data = [shown(row) for row in rows]
    return WebhookList(data=data, has_more=more, **_ends(data))


async def retrieve(call: Call) -> Webhook:
    """One webhook, without its secret."""
    return shown(await _row(call))


async def update(call: Call) -> Webhook:
    """Changes what is sent; what waits goes to the new URL."""
    body: WebhookUpdate = call.body
    row = await _row(call)
    allow_private = row["allow_private"] if body.allow_private is UNSET else body.allow_private
    may_allow(call.principal, allow_private=allow_private)
    columns: dict[str, Any] = {"allow_private": allow_private}
    if body.url is not UNSET or body.allow_private is not UNSET:
        url = row["url"] if body.url is UNSET else body.url
        columns["url"] = await call.gateway.webhooks.checked_url(url, allow_private=allow_private)
    if body.events is not UNSET:
        check_events(body.events)
        columns["events"] = body.events
    if body.disabled is not UNSET:
        columns["disabled_at"] = call.gateway.clock() if body.disabled else None
    return await call.gateway.db.write(_change, call, columns)


def _change(tx: Connection, call: Call, columns: dict[str, Any]) -> Webhook:
    webhook_id = _own(tx, call)["id"]
    webhooks.change(tx, webhook_id, columns)
    details = {name: columns[name] for name in ("allow_private", "events") if name in columns}
    details |= _discreet(columns["url"]) if "url" in columns else {}
    details |= {"disabled": columns["disabled_at"] is not None} if "disabled_at" in columns else {}
    _note(tx, call, "webhook.updated", webhook_id, details)
    answer = shown(webhooks.get(tx, webhook_id, call.principal.sees))
    once.keep(tx, call.principal, call.idempotency, answer, call.gateway.clock())
    return answer


async def rotate(call: Call) -> Webhook:
    """A new secret, in this answer and nowhere else; the old one signs along for `grace_seconds` more."""
    return await call.gateway.db.write(_rotate, call)


def _rotate(tx: Connection, call: Call) -> Webhook:
    body: WebhookRotate = call.body
    row = _own(tx, call)
    new = call.gateway.webhooks.rotated(row, body.secret, body.grace_seconds)
    webhooks.change(tx, row["id"], new.values)
    _note(tx, call, "webhook.rotated", row["id"], {"grace_seconds": body.grace_seconds})
    answer = shown(row)
    once.keep(tx, call.principal, call.idempotency, answer, call.gateway.clock())
    answer.secret = new.secret
    return answer


async def delete(call: Call) -> WebhookDeleted:
    """Ends a webhook: what waits for it is not sent any more."""
    await call.gateway.db.write(_end, call)
    return WebhookDeleted(id=call.params["webhook_id"])


def _end(tx: Connection, call: Call) -> None:
    webhook_id = _own(tx, call)["id"]
    webhooks.end(tx, webhook_id, call.gateway.clock())
    _note(tx, call, "webhook.deleted", webhook_id, {})


async def test(call: Call) -> WebhookTested:
    """Sends a message of type `webhook.test` now, once, and tells what became of it."""
    row = await _row(call)
    event_id, answer = await call.gateway.webhooks.test(row)
    delivered = answer.error is None
    return WebhookTested(
        id=event_id, webhook_id=row["id"], delivered=delivered, status=answer.status, error=answer.error
    )


async def list_deliveries(call: Call) -> DeliveryList:
    """What was sent or waits to be, those of the latest events first. Kept for 7 days, dead ones for 30."""
    query: DeliveryQuery = call.query
    row = await _row(call)
    rows, more = await call.gateway.db.read(deliveries.page, row["id"], query.limit, query.after, query.status)
    data = [_delivery(one) for one in rows]
    return DeliveryList(data=data, has_more=more, **_ends(data))


async def retry(call: Call) -> Delivery:
    """Sends a delivery now, also one that was delivered before; it may then take three days once more."""
    return await call.gateway.db.write(_retry, call)


def _retry(tx: Connection, call: Call) -> Delivery:
    webhook_id, delivery_id = _enabled(tx, call), call.params["delivery_id"]
    deliveries.retry(tx, webhook_id, delivery_id, call.gateway.clock())
    return _delivery(deliveries.get(tx, webhook_id, delivery_id))


async def retry_dead(call: Call) -> DeliveriesRetried:
    """Sends all dead deliveries again, in order for each batch, and now what waits for another try."""
    return await call.gateway.db.write(_retry_dead, call)


def _retry_dead(tx: Connection, call: Call) -> DeliveriesRetried:
    webhook_id = _enabled(tx, call)
    retried = deliveries.retry_dead(tx, webhook_id, call.gateway.clock())
    return DeliveriesRetried(webhook_id=webhook_id, retried=retried)


async def _row(call: Call) -> RowMapping:
    return await call.gateway.db.read(webhooks.get, call.params["webhook_id"], call.principal.sees)


def _own(tx: Connection, call: Call) -> RowMapping:
    """A webhook that is changed through the API; Conflict for one of batchway.yaml."""
    webhook_id = call.params["webhook_id"]
    webhooks.lock(tx, [webhook_id])
    row = webhooks.get(tx, webhook_id, call.principal.sees)
    if row["receiver"] is not None:
        message = f"This webhook stands in batchway.yaml as the receiver '{row['receiver']}': change it there."
        raise Conflict(message, code="configured_webhook")
    return row


def _enabled(tx: Connection, call: Call) -> str:
    row = webhooks.get(tx, call.params["webhook_id"], call.principal.sees)
    if row["disabled_at"] is not None:
        message = "This webhook is disabled: set 'disabled' to false first, if its receiver takes messages again."
        raise Conflict(message, code="webhook_disabled")
    return row["id"]


def _note(tx: Connection, call: Call, action: str, webhook_id: str, details: dict[str, Any]) -> None:
    audit.record(tx, call.actor, action, webhook_id, call.gateway.clock(), details)


def _discreet(url: str) -> dict[str, Any]:
    """What the audit log says of a URL, whose path may be a secret."""
    return {"host": urlsplit(url).netloc}


def _ends(data: list[Webhook] | list[Delivery]) -> dict[str, Any]:
    return {"first_id": data[0].id, "last_id": data[-1].id} if data else {}


def _delivery(row: RowMapping) -> Delivery:
    waits = row["status"] in deliveries.OPEN
    return Delivery(
        **{name: row[name] for name in ("id", "webhook_id", "event_id", "subject", "attempts", "answer", "error")},
        event_type=row["event"]["type"],
        status="waiting" if waits else row["status"],
        created_at=int(row["created_at"]),
        next_attempt_at=int(row["not_before"]) if row["status"] == "waiting" else None,
        ended_at=None if row["ended_at"] is None else int(row["ended_at"]),
    )


REPEATABLE = ("Idempotency-Key",)

OPERATIONS = (
    Operation(
        method="POST", path="/webhooks", name="createWebhook", handler=create, body=WebhookCreate, answer=Webhook,
        tag="Webhooks", errors=(403, 404, 422), headers=REPEATABLE,
        example={"url": "https://hooks.example.com/batches", "events": ["batch.*"]},
    ),
    Operation(
        method="GET", path="/webhooks", name="listWebhooks", handler=list_webhooks, query=WebhookQuery,
        answer=WebhookList, tag="Webhooks", errors=(404,),
    ),
    Operation(
        method="GET", path="/webhooks/{webhook_id}", name="retrieveWebhook", handler=retrieve, answer=Webhook,
        tag="Webhooks", errors=(404,),
    ),
    Operation(
        method="POST", path="/webhooks/{webhook_id}", name="updateWebhook", handler=update, body=WebhookUpdate,
        answer=Webhook, tag="Webhooks", errors=(403, 404, 409, 422), headers=REPEATABLE,
        example={"events": ["batch.completed", "job.*"], "disabled": False},
    ),
    Operation(
        method="POST", path="/webhooks/{webhook_id}/rotate", name="rotateWebhook", handler=rotate, body=WebhookRotate,
        answer=Webhook, tag="Webhooks", errors=(404, 409, 422), headers=REPEATABLE,
        example={"grace_seconds": 86400},
    ),
    Operation(
        method="POST", path="/webhooks/{webhook_id}/test", name="testWebhook", handler=test, answer=WebhookTested,
        tag="Webhooks", errors=(404, 429),
    ),
    Operation(
        method="DELETE", path="/webhooks/{webhook_id}", name="deleteWebhook", handler=delete, answer=WebhookDeleted,
        tag="Webhooks", errors=(404, 409),
    ),
    Operation(
        method="GET", path="/webhooks/{webhook_id}/deliveries", name="listDeliveries", handler=list_deliveries,
        query=DeliveryQuery, answer=DeliveryList, tag="Webhooks", errors=(404,),
    ),
    Operation(
        method="POST", path="/webhooks/{webhook_id}/retry", name="retryDeliveries", handler=retry_dead,
        answer=DeliveriesRetried, tag="Webhooks", errors=(404, 409),
    ),
    Operation(
        method="POST", path="/webhooks/{webhook_id}/deliveries/{delivery_id}/retry", name="retryDelivery",
        handler=retry, answer=Delivery, tag="Webhooks", errors=(404, 409),
    ),
)  # fmt: skip
