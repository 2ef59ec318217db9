"""What the API and the creation of a batch ask of webhooks: a checked row to store, a new secret, a test message.

Nothing is stored here: the caller does that in the transaction of its own change. A secret leaves this module in the
clear only as `New.secret`, to be shown once.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from batchway.core.errors import Forbidden, RequestError, TooMany
from batchway.core.events import EventType
from batchway.core.ids import IdMaker
from batchway.core.principal import Principal
from batchway.integrations.webhook.guard import Refused, place_of
from batchway.integrations.webhook.payloads import body_of_test
from batchway.integrations.webhook.send import Answer, Message, Messenger
from batchway.integrations.webhook.sign import Secret, checked_secret, new_secret, packed, rotated, unpacked
from batchway.wire.webhooks import BatchWebhook, Webhook, WebhookCreate

TESTS = 16  # test messages under way at once


class New(msgspec.Struct, frozen=True):
    """The columns of a webhook to be stored, and its secret."""

    values: dict[str, Any]
    secret: str

    def shown(self) -> Webhook:
        """The answer to whoever made it."""
        return msgspec.structs.replace(shown(self.values), secret=self.secret)


class Endpoints:
    """Checks and makes webhooks. `seal` and `unseal` are the vault's; `clock` answers unix seconds."""

    def __init__(
        self,
        messenger: Messenger,
        *,
        clock: Callable[[], float],
        new_id: IdMaker,
        seal: Callable[[str], str],
        unseal: Callable[[str], str],
    ) -> None:
        self._messenger = messenger
        self._clock = clock
        self._new_id = new_id
        self._seal = seal
        self._unseal = unseal
        self._tests = asyncio.Semaphore(TESTS)

    async def close(self) -> None:
        """Test messages under way fail."""
        await self._messenger.close()

    async def new(self, principal: Principal, wanted: WebhookCreate) -> New:
        """A standing webhook; RequestError names the field at fault."""
        may_allow(principal, allow_private=wanted.allow_private)
        project = wanted.project if principal.admin else principal.project
        if wanted.project not in (None, project):
            raise Forbidden("This key makes webhooks of its own project only.", code="insufficient_permissions")
        values = {
            "project": project,
            "batch_id": None,
            "url": await self.checked_url(wanted.url, allow_private=wanted.allow_private),
            "allow_private": wanted.allow_private,
            "admin": principal.admin,
            "private": principal.private or principal.admin,
        }
        return self._made(principal, wanted, values)

    async def of_batch(self, principal: Principal, wanted: BatchWebhook | None, batch_id: str) -> New | None:
        """The webhook that comes with a new batch, if one does; RequestError names the field at fault."""
        if wanted is None:
            return None
        may_allow(principal, allow_private=wanted.allow_private)
        values = {
            "project": principal.project,
            "batch_id": batch_id,
            "url": await self.checked_url(wanted.url, allow_private=wanted.allow_private, param="webhook.url"),
            "allow_private": wanted.allow_private,
            "admin": False,
            "private": principal.private,
        }
        return self._made(principal, wanted, values, "webhook.")

    async def checked_url(self, url: str, *, allow_private: bool, param: str = "url") -> str:
        """The URL as it is stored; RequestError when no message may go there."""
        place = place_of(url, allow_private=allow_private, param=param)
        try:
            await self._messenger.guard.address(place, allow_private=allow_private)
        except Refused as error:
            message = f"Invalid '{param}': {error}. Webhooks go to public hosts; an admin may allow private ones."
            raise RequestError(message, code="url_not_allowed", param=param) from None
        return place.url

    def rotated(self, row: Mapping[Any, Any], fresh: str | None, grace: float) -> New:
        """The `secret` column with a new secret, beside which the old ones sign for `grace` seconds more."""
        secret = new_secret() if fresh is None else checked_secret(fresh)
        secrets = rotated(unpacked(self._unseal(row["secret"])), secret, self._clock(), grace)
        return New({"secret": self._seal(packed(secrets))}, secret)

    async def test(self, row: Mapping[Any, Any]) -> tuple[str, Answer]:
        """The id of a test message that was sent once, and what became of it; TooMany."""
        if self._tests.locked():
            raise TooMany("Too many webhooks are being tested right now.")
        async with self._tests:
            event_id = self._new_id("evt_")
            message = Message(
                url=row["url"],
                allow_private=row["allow_private"],
                secrets=unpacked(self._unseal(row["secret"])),
                event_id=event_id,
                body=body_of_test(event_id, row["id"], self._clock()),
            )
            return event_id, await self._messenger.send(message)

    def _made(
        self, principal: Principal, wanted: WebhookCreate | BatchWebhook, values: dict[str, Any], place: str = ""
    ) -> New:
        check_events(wanted.events, f"{place}events")
        secret = new_secret() if wanted.secret is None else checked_secret(wanted.secret, f"{place}secret")
        more = {
            "id": self._new_id("webhook_"),
            "key_id": principal.key_id,
            "secret": self._seal(packed([Secret(secret)])),
            "events": wanted.events,
            "created_at": self._clock(),
        }
        return New({**values, **more}, secret)


def may_allow(principal: Principal, *, allow_private: bool) -> None:
    """Forbidden unless it is an admin who allows private hosts."""
    if allow_private and not principal.admin:
        raise Forbidden("Only an admin key may allow private hosts.", code="insufficient_permissions")


def check_events(patterns: Sequence[str], param: str = "events") -> None:
    """RequestError for a pattern that no event matches."""
    for pattern in patterns:
        if not any(fnmatchcase(kind, pattern) for kind in EventType):
            near = difflib.get_close_matches(pattern, [kind.value for kind in EventType], n=1)
            hint = f"did you mean '{near[0]}'?" if near else "patterns are such as 'batch.*' or 'batch.completed'."
            message = f"Invalid '{param}': no event is called '{pattern}'; {hint}"
            raise RequestError(message, code="invalid_value", param=param)


def shown(row: Mapping[Any, Any]) -> Webhook:
    """A webhook without its secret."""
    return Webhook(
        **{name: row[name] for name in ("id", "url", "events", "project", "batch_id", "allow_private")},
        disabled=row.get("disabled_at") is not None,
        failures=row.get("failures", 0),
        receiver=row.get("receiver"),
        created_at=int(row["created_at"]),
    )
