"""Webhooks as receivers: being told means that a delivery is stored for every endpoint that wants the event.

So `tell` waits for nobody outside, fails only with the database, and a repeat changes nothing; the sender does the
rest. `Stored` is for the webhooks that the API made, `Configured` for one entry of batchway.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import RequestError
from batchway.core.events import Event
from batchway.db import deliveries, webhooks
from batchway.integrations.protocol import Tools
from batchway.integrations.webhook.guard import place_of
from batchway.integrations.webhook.send import Messenger
from batchway.integrations.webhook.sender import Pace, Sender
from batchway.integrations.webhook.sign import Secret, checked_secret, packed

WINDOW = 100  # events that are stored in one transaction
SKEW = 2.0  # seconds by which the clocks of two machines may differ
FOR_ADMINS = ("key.", "project.")  # events that no project's own webhook is told of
CONFIGURED = "batchway.yaml"  # who made a webhook that stands there


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of kind `webhook`. `secret` is `whsec_` and base64; `allow_private` also allows http."""

    url: str
    secret: str
    allow_private: bool = False

    def __post_init__(self) -> None:
        try:
            place_of(self.url, allow_private=self.allow_private)
            checked_secret(self.secret)
        except RequestError as error:
            raise ValueError(error.message) from None


class NoOptions(msgspec.Struct, frozen=True):
    """The receiver of the API's webhooks is always there and takes no settings."""


class Stored:
    """Told for the webhooks of the gateway, of projects and of batches that were made through the API."""

    def __init__(self, tools: Tools, messenger: Messenger, pace: Pace | None = None) -> None:
        self._tools = tools
        self._messenger = messenger
        self._sender = Sender(tools, messenger, pace=pace)
        self._sender.start()

    @property
    def window(self) -> int:
        return WINDOW

    async def tell(self, events: Sequence[Event]) -> None:
        """Stores the deliveries."""
        await self._tools.db.write(_expand, events, self._tools)
        self._sender.ring()

    async def close(self) -> None:
        await self._sender.close()
        await self._messenger.close()


class Configured:
    """Told for one webhook of batchway.yaml. Which events it wants, its entry says, and the teller goes by that."""

    def __init__(
        self, name: str, options: Options, tools: Tools, messenger: Messenger, pace: Pace | None = None
    ) -> None:
        self._name = name
        self._options = options
        self._tools = tools
        self._messenger = messenger
        self._webhook_id: str | None = None
        self._sender = Sender(tools, messenger, name, pace=pace)
        self._sender.start(self._known)

    @property
    def window(self) -> int:
        return WINDOW

    async def tell(self, events: Sequence[Event]) -> None:
        """Stores the deliveries."""
        webhook_id = await self._known()
        wanted = [(webhook_id, event) for event in events]
        await self._tools.db.write(deliveries.expand, wanted, self._tools.clock(), self._tools.new_id)
        self._sender.ring()

    async def close(self) -> None:
        await self._sender.close()
        await self._messenger.close()

    async def _known(self) -> str:
        """The id of its row, which says what the settings say."""
        if self._webhook_id is None:
            values = {
                "url": self._options.url,
                "secret": self._tools.seal(packed([Secret(self._options.secret)])),
                "allow_private": self._options.allow_private,
            }
            fresh: dict[str, Any] = {
                "id": self._tools.new_id("webhook_"),
                "key_id": CONFIGURED,
                "events": [],
                "admin": True,
                "private": True,
                "created_at": self._tools.clock(),
            }
            self._webhook_id = await self._tools.db.write(webhooks.configure, self._name, values, fresh)
        return self._webhook_id


def _expand(tx: Connection, events: Sequence[Event], tools: Tools) -> None:
    subjects = {event.subject for event in events}
    found = webhooks.told_of(tx, {event.project for event in events}, subjects)
    if not found:
        return
    private = deliveries.private_subjects(tx, subjects) if any(not row["admin"] for row in found) else set[str]()
    wanted = [(row["id"], event) for event in events for row in found if _wants(row, event, private)]
    deliveries.expand(tx, wanted, tools.clock(), tools.new_id)


def _wants(webhook: RowMapping, event: Event, private: set[str]) -> bool:
    """Whether it asks for such events, this one concerns it, and whoever made it may know of it."""
    if not any(fnmatchcase(event.type, pattern) for pattern in webhook["events"]):
        return False
    if webhook["batch_id"] is not None:
        return webhook["batch_id"] == event.subject
    if event.created_at < webhook["created_at"] - SKEW:
        return False
    if webhook["project"] not in (None, event.project):
        return False
    return webhook["admin"] or _may_know(webhook, event, private)


def _may_know(webhook: RowMapping, event: Event, private: set[str]) -> bool:
    if event.type.startswith(FOR_ADMINS):
        return False
    if event.type.startswith("budget."):
        return event.subject in (f"project:{webhook['project']}", f"key:{webhook['key_id']}")
    return event.subject not in private or (webhook["private"] and webhook["key_id"] == event.key_id)
