"""The operations over webhooks and their deliveries; as in `calls.py`, data and no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Unpack

from batchway.sdk.call import Call, Options, call, segment
from batchway.sdk.calls import page
from batchway.sdk.objects import (
    DeliveriesRetried,
    Delivery,
    DeliveryPage,
    Webhook,
    WebhookDeleted,
    WebhookPage,
    WebhookTested,
    made,
)

Events = Sequence[str]


def create_webhook(
    url: str,
    *,
    secret: str | None = None,
    events: Events | None = None,
    project: str | None = None,
    allow_private: bool | None = None,
    **options: Unpack[Options],
) -> Call[Webhook]:
    """Makes a webhook of the key's project. Its `secret` is in this answer and nowhere else.

    Args:
        url: Where messages are posted: https, on a host with public addresses.
        secret: `whsec_` and the base64 of 24 to 64 bytes; without it one is made.
        events: Patterns of event types such as `batch.*`; without it the four ends of a batch.
        project: (admin) Whose events; without it those of the whole gateway.
        allow_private: (admin) The host may be inside a private network, and the URL http.
        options: See `Options`.
    """
    fields = {"url": url, "secret": secret, "events": events, "project": project, "allow_private": allow_private}
    # Without an Idempotency-Key: a repeated create would be answered without the secret, so it is not repeated.
    return call("create_webhook", "POST /webhooks", partial(made, Webhook), options, json=fields)


def list_webhooks(
    *, limit: int | None = None, after: str | None = None, batch_id: str | None = None, **options: Unpack[Options]
) -> Call[WebhookPage]:
    """Returns a page of webhooks, newest first; those of a single batch are listed by its `batch_id` only."""
    query = {**page(limit, after, None), "batch_id": batch_id}
    return call("list_webhooks", "GET /webhooks", partial(made, WebhookPage), options, query=query)


def retrieve_webhook(webhook_id: str, **options: Unpack[Options]) -> Call[Webhook]:
    """Returns a webhook without its secret."""
    return call("retrieve_webhook", f"GET {_at(webhook_id)}", partial(made, Webhook), options)


def update_webhook(
    webhook_id: str,
    *,
    url: str | None = None,
    events: Events | None = None,
    allow_private: bool | None = None,
    disabled: bool | None = None,
    **options: Unpack[Options],
) -> Call[Webhook]:
    """Changes what is given. `disabled=False` also takes up again what a receiver's 410 ended."""
    fields: dict[str, Any] = {"url": url, "events": events, "allow_private": allow_private, "disabled": disabled}
    route = f"POST {_at(webhook_id)}"
    return call("update_webhook", route, partial(made, Webhook), options, json=fields, repeatable=True)


def rotate_webhook(
    webhook_id: str, grace_seconds: int | None = None, *, secret: str | None = None, **options: Unpack[Options]
) -> Call[Webhook]:
    """Gives a webhook a new `secret`, in this answer and nowhere else.

    The old one signs along for `grace_seconds` more, a day without it.
    """
    fields = {"grace_seconds": grace_seconds, "secret": secret}
    return call("rotate_webhook", f"POST {_at(webhook_id)}/rotate", partial(made, Webhook), options, json=fields)


def test_webhook(webhook_id: str, **options: Unpack[Options]) -> Call[WebhookTested]:
    """Sends a message of type `webhook.test` now, once, and returns what became of it."""
    route = f"POST {_at(webhook_id)}/test"
    return call("test_webhook", route, partial(made, WebhookTested), options, repeatable=True)


def delete_webhook(webhook_id: str, **options: Unpack[Options]) -> Call[WebhookDeleted]:
    """Ends a webhook: what waits for it is not sent any more."""
    return call("delete_webhook", f"DELETE {_at(webhook_id)}", partial(made, WebhookDeleted), options)


def list_deliveries(
    webhook_id: str,
    *,
    limit: int | None = None,
    after: str | None = None,
    status: Literal["waiting", "delivered", "dead"] | None = None,
    **options: Unpack[Options],
) -> Call[DeliveryPage]:
    """Returns a page of a webhook's deliveries, those of the latest events first; `limit` is 1 to 100."""
    query = {**page(limit, after, None), "status": status}
    route = f"GET {_at(webhook_id)}/deliveries"
    return call("list_deliveries", route, partial(made, DeliveryPage), options, query=query)


def retry_delivery(webhook_id: str, delivery_id: str, **options: Unpack[Options]) -> Call[Delivery]:
    """Sends a delivery now, whatever became of it before."""
    route = f"POST {_at(webhook_id)}/deliveries/{segment(delivery_id, 'delivery_id')}/retry"
    return call("retry_delivery", route, partial(made, Delivery), options, repeatable=True)


def retry_deliveries(webhook_id: str, **options: Unpack[Options]) -> Call[DeliveriesRetried]:
    """Sends all dead deliveries of a webhook again, in order for each batch, and now what waits for another try."""
    route = f"POST {_at(webhook_id)}/retry"
    return call("retry_deliveries", route, partial(made, DeliveriesRetried), options, repeatable=True)


def _at(webhook_id: str) -> str:
    return f"/webhooks/{segment(webhook_id, 'webhook_id')}"
