"""Webhooks: endpoints that are sent events by signed POST requests, and what became of each message.

Times are unix seconds. `events` are patterns of event types such as `batch.*`. A secret is shown once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

ENDS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")

Url = Annotated[str, msgspec.Meta(max_length=2048, description="https; its host must have public addresses alone.")]
Secret = Annotated[
    str, msgspec.Meta(max_length=128, description="`whsec_` and the base64 of 24 to 64 bytes; left out, one is made.")
]
Events = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=64)]], msgspec.Meta(min_length=1, max_length=32)
]
Limit = Annotated[int, msgspec.Meta(ge=1, le=100)]
Text = Annotated[str, msgspec.Meta(max_length=512)]


def _ends() -> list[str]:
    return list(ENDS)


class BatchWebhook(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the events of one batch are sent. Without a secret one is made, and shown in the answer to the create.

    `allow_private` is as in `WebhookCreate`.
    """

    url: Url
    secret: Secret | None = None
    events: Events = msgspec.field(default_factory=_ends)
    allow_private: bool = False


class WebhookCreate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new webhook: of the key's project; an admin's is of the `project` it names, or without one of the gateway.

    `allow_private` (admin) allows hosts inside a private network, and http.
    """

    url: Url
    secret: Secret | None = None
    events: Events = msgspec.field(default_factory=_ends)
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    allow_private: bool = False


class WebhookUpdate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to change; all else stays. `disabled: false` also takes up again what a receiver's 410 ended."""

    url: Url | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    allow_private: bool | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET


class WebhookRotate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """For how many seconds messages also carry the signature of the old secret."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=30 * 86400)] = 86400
    secret: Secret | None = None


class Webhook(msgspec.Struct, kw_only=True):
    """A webhook. `secret` is there once, in the answer that made it.

    `project` is null for the whole gateway's. One that stands in batchway.yaml has `receiver`, its name there, and is
    changed there; its `events` are left out here.
    """

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    events: list[str]
    project: str | None
    batch_id: str | None
    allow_private: bool
    disabled: bool
    failures: Annotated[int, msgspec.Meta(description="Tries in a row that failed.")]
    receiver: str | None
    created_at: int
    secret: str | None = None


class WebhookList(msgspec.Struct, kw_only=True):
    """A page of webhooks, newest first."""

    object: Literal["list"] = "list"
    data: list[Webhook]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class WebhookDeleted(msgspec.Struct, kw_only=True):
    """The answer of a deletion: nothing is sent there any more."""

    id: str
    object: Literal["webhook"] = "webhook"
    deleted: bool = True


class WebhookTested(msgspec.Struct, kw_only=True):
    """What became of a test message, which is tried once. `status` is the HTTP status, null without an answer."""

    id: str
    object: Literal["webhook.test"] = "webhook.test"
    webhook_id: str
    delivered: bool
    status: int | None
    error: str | None


class Delivery(msgspec.Struct, kw_only=True):
    """A message about one event. `answer` is the last HTTP status; `created_at` is when it was (last) queued."""

    id: str
    object: Literal["webhook.delivery"] = "webhook.delivery"
    webhook_id: str
    event_id: str
    event_type: str
    subject: str
    status: Literal["waiting", "delivered", "dead"]
    attempts: int
    answer: int | None
    error: str | None
    created_at: int
    next_attempt_at: int | None
    ended_at: int | None


class DeliveryList(msgspec.Struct, kw_only=True):
    """A page of deliveries, those of the latest events first."""

    object: Literal["list"] = "list"
    data: list[Delivery]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class DeliveriesRetried(msgspec.Struct, kw_only=True):
    """How many dead deliveries are sent again."""

    object: Literal["webhook.retry"] = "webhook.retry"
    webhook_id: str
    retried: int


class WebhookQuery(msgspec.Struct, kw_only=True):
    """A page of webhooks; `batch_id` asks for those of one batch, which are not listed otherwise."""

    limit: Limit = 20
    after: Text | None = None
    batch_id: Text | None = None


class DeliveryQuery(msgspec.Struct, kw_only=True):
    """A page of deliveries."""

    limit: Limit = 20
    after: Text | None = None
    status: Literal["waiting", "delivered", "dead"] | None = None
