"""Webhooks as receivers, told against a real HTTP server: those of batchway.yaml, and those that the API made.

Being told, they store deliveries and wait for nobody, so what the suite asks of a `tell` that fails is a gap here; that
the deliveries survive every trouble of the peer is shown below, and in tests/stages/test_webhook_sender.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from pathlib import Path

import msgspec
import pytest

from batchway.core.errors import ConfigError
from batchway.core.events import Event, EventType
from batchway.db import webhooks
from batchway.integrations import registry
from batchway.integrations.webhook import KINDS
from batchway.integrations.webhook.guard import Guard
from batchway.integrations.webhook.receiver import Configured, NoOptions, Options, Stored
from batchway.integrations.webhook.send import Messenger
from batchway.integrations.webhook.sender import Pace
from batchway.integrations.webhook.sign import Secret, packed
from batchway.testing.receiver_ground import ReceiverGround, Trouble, ends, event
from batchway.testing.receiver_suite import ReceiverSuite, told
from tests.conformance.receiving import HttpPeer, opened_tools
from tests.stages.webhook_peer import here

SECRET = "whsec_" + "QUFB" * 11
ONE_BY_ONE = Pace(each=1, tick=0.02)  # so that events of different batches keep their order, too
TELLS_NOBODY = "telling stores the deliveries and does not wait for the peer"
GAPS = dict.fromkeys(
    (
        "test_a_peer_that_is_away_is_told_later",
        "test_a_busy_peer_is_told_later",
        "test_a_busy_peer_is_given_the_time_it_asks_for",
        "test_what_the_peer_will_never_take_is_permanent",
        "test_errors_show_no_secret_and_no_data",
        "test_a_hanging_peer_is_given_up",
    ),
    TELLS_NOBODY,
)


@pytest.fixture
async def tools(tmp_path: Path):
    async with opened_tools(tmp_path) as made:
        yield dataclasses.replace(made, clock=Clock())


class Clock:
    """Time that runs a hundred times faster: a retry is not waited for."""

    def __call__(self) -> float:
        return 1_790_000_000.0 + time.monotonic() * 100


@pytest.fixture
async def peer():
    made = HttpPeer()
    await made.start()
    yield made
    await made.stop()


class WebhookGround(ReceiverGround):
    secrets = (SECRET, "path-key", "query-key")

    def __init__(self, peer: HttpPeer, tools) -> None:
        self.peer, self.tools = peer, tools
        self.url = f"{peer.url}/path-key/in?key=query-key"
        self.receiver = self.open()

    def messenger(self) -> Messenger:
        return Messenger(self.tools.clock, Guard(here), timeout=2.0)

    def open(self):
        options = Options(url=self.url, secret=SECRET, allow_private=True)
        return Configured("mine", options, self.tools, self.messenger(), ONE_BY_ONE)

    async def taken(self, wanted: int) -> list[str]:
        async with asyncio.timeout(30):
            while len(self.peer.asked) < wanted:  # noqa: ASYNC110 - it is the peer's list
                await asyncio.sleep(0.01)
        return [json.loads(asked.body)["id"] for asked in self.peer.asked]

    async def disturb(self, how: Trouble) -> None:
        await self.peer.disturb(how)

    async def reopened(self):
        return self.open()


class StoredGround(WebhookGround):
    def open(self):
        return Stored(self.tools, self.messenger(), ONE_BY_ONE)


class TestConfigured(ReceiverSuite):
    gaps = GAPS

    @pytest.fixture
    async def ground(self, tools, peer: HttpPeer):
        made = WebhookGround(peer, tools)
        yield made
        await made.receiver.close()


async def stored_webhook(ground: WebhookGround, **changes) -> None:
    values = {"id": "webhook_1", "key_id": "key_1", "url": ground.url, "events": ["*"], "allow_private": True}
    values |= {"secret": packed([Secret(SECRET)]), "admin": True, "created_at": 0.0}
    await ground.tools.db.write(webhooks.add, values | changes)


class TestStored(ReceiverSuite):
    gaps = GAPS

    @pytest.fixture
    async def ground(self, tools, peer: HttpPeer):
        made = StoredGround(peer, tools)
        await stored_webhook(made)
        yield made
        await made.receiver.close()


@pytest.mark.parametrize("how", ["away", "busy", "refuses", "hangs"])
async def test_no_trouble_of_the_peer_loses_or_reorders_an_event(tools, peer: HttpPeer, how: Trouble) -> None:
    ground = WebhookGround(peer, tools)
    events = ends(5, "batch_one")
    await ground.disturb(how)
    await told(ground.receiver, events)
    await asyncio.sleep(0.3)  # some tries are made, and fail
    await ground.disturb("")
    assert list(dict.fromkeys(await ground.taken(5))) == [one.id for one in events]
    await ground.receiver.close()


@pytest.fixture
async def stored(tools, peer: HttpPeer):
    made = StoredGround(peer, tools)
    yield made
    await made.receiver.close()


async def heard(ground: WebhookGround, *events: Event) -> list[str]:
    """What reaches the peer of these, told as one window before an event that everybody is told of."""
    last = msgspec.structs.replace(event(EventType.BATCH_COMPLETED), project="p", key_id="key_1")
    await ground.tools.db.write(_shared, "batches", last.subject)
    await told(ground.receiver, [*events, last])
    async with asyncio.timeout(30):
        while last.id not in (found := await ground.taken(0)):  # noqa: ASYNC110 - it is the peer's list
            await asyncio.sleep(0.01)
    return [one for one in found if one != last.id]


def _shared(tx, table: str, subject: str, *, private: bool = False) -> None:
    from batchway.db.transitions import create_batch

    assert table == "batches"
    batch = {"id": subject, "project": "p", "key_id": "key_1", "endpoint": "/v1/chat/completions", "private": private}
    batch |= {"input_file_id": "file-1", "completion_window": "24h", "window_seconds": 86400}
    create_batch(tx, 0.0, {**batch, "expires_at": 1.0})


def of(kind: EventType, subject: str, **changes) -> Event:
    return msgspec.structs.replace(event(kind, subject), **{"project": "p", "key_id": "key_1", **changes})


async def test_a_webhook_of_a_project_is_told_of_that_project_alone(stored) -> None:
    await stored_webhook(stored, project="p", admin=False)
    await stored.tools.db.write(_shared, "batches", "batch_mine")
    await stored.tools.db.write(_shared, "batches", "batch_private", private=True)
    mine = of(EventType.BATCH_FAILED, "batch_mine")
    others = [
        of(EventType.BATCH_FAILED, "batch_mine", project="q"),
        of(EventType.BATCH_FAILED, "batch_private"),
        of(EventType.BATCH_FAILED, "batch_unknown"),  # nobody can say whether it was private
        of(EventType.KEY_CREATED, "key_2"),
        of(EventType.PROJECT_UPDATED, "p"),
        of(EventType.BUDGET_THRESHOLD, "key:key_2"),
        of(EventType.BUDGET_THRESHOLD, "gateway"),
    ]
    budgets = [of(EventType.BUDGET_THRESHOLD, "project:p"), of(EventType.BUDGET_THRESHOLD, "key:key_1")]
    assert sorted(await heard(stored, *others, mine, *budgets)) == sorted(one.id for one in (mine, *budgets))


async def test_a_private_keys_webhook_is_told_of_what_only_it_may_know(stored) -> None:
    await stored_webhook(stored, project="p", admin=False, private=True)
    await stored.tools.db.write(_shared, "batches", "batch_private", private=True)
    own, other = (of(EventType.BATCH_FAILED, "batch_private", key_id=key) for key in ("key_1", "key_2"))
    assert await heard(stored, other, own) == [own.id]


async def test_a_webhook_of_the_gateway_is_told_of_everything(stored) -> None:
    await stored_webhook(stored)
    events = [of(kind, f"subject_{number}", project="q") for number, kind in enumerate(EventType)]
    assert sorted(await heard(stored, *events)) == sorted(one.id for one in events)


async def test_a_webhook_is_told_of_the_types_it_asked_for(stored) -> None:
    await stored_webhook(stored, events=["batch.completed", "job.*"])
    events = [of(kind, f"batch_{number}") for number, kind in enumerate(EventType)]
    wanted = [one.id for one in events if one.type.startswith("job.") or one.type == "batch.completed"]
    assert sorted(await heard(stored, *events)) == sorted(wanted)


async def test_a_webhook_of_a_batch_is_told_of_that_batch_alone_private_or_not(stored) -> None:
    await stored_webhook(stored, id="everything")
    url = stored.url.replace("path-key", "of-batch")
    of_batch = {"batch_id": "batch_private", "url": url, "created_at": stored.tools.clock()}
    await stored_webhook(stored, project="p", admin=False, **of_batch)
    await stored.tools.db.write(_shared, "batches", "batch_private", private=True)
    own, job = of(EventType.BATCH_FAILED, "batch_private"), of(EventType.JOB_ENDED, "batch_private")
    other = of(EventType.BATCH_FAILED, "batch_other")
    await heard(stored, own, other, job)
    await stored.taken(6)
    assert [json.loads(one.body)["id"] for one in stored.peer.asked if "of-batch" in one.path] == [own.id, job.id]


async def test_a_webhook_is_not_told_of_what_was_before_it(stored) -> None:
    now = stored.tools.clock()
    await stored_webhook(stored, created_at=now)
    before = of(EventType.BATCH_FAILED, "batch_1", created_at=now - 10)
    skewed = of(EventType.BATCH_FAILED, "batch_2", created_at=now - 0.5)
    assert await heard(stored, before, skewed) == [skewed.id]


async def test_the_settings_change_the_row_of_a_configured_webhook(tools, peer: HttpPeer) -> None:
    ground = WebhookGround(peer, tools)
    await told(ground.receiver, ends(1))
    await ground.taken(1)
    await ground.receiver.close()
    ground.url = f"{peer.url}/elsewhere"
    again = ground.open()
    await told(again, ends(1))
    await ground.taken(2)
    await again.close()
    assert [one.path.partition("?")[0] for one in peer.asked] == ["/path-key/in", "/elsewhere"]
    (row,), _ = await tools.db.read(webhooks.page, None, 10, None, None)
    assert (row["receiver"], row["url"]) == ("mine", ground.url)


def test_entries_that_cannot_work_are_refused_with_the_mend() -> None:
    good = {"kind": "webhook", "url": "https://hooks.example.com/x", "secret": SECRET}
    assert [one.entry.kind for one in registry.listed([good])] == ["webhook", "webhooks"]
    for changes, words in (
        ({"url": "http://hooks.example.com/"}, "https"),
        ({"url": "https://u:p@hooks.example.com/"}, "Invalid 'url'"),
        ({"secret": "hunter2"}, "whsec_"),
        ({"secrets": "x"}, "did you mean 'secret'"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            registry.listed([good | changes])
        assert "receivers[0]" in str(caught.value)
        assert "hunter2" not in str(caught.value)
    assert KINDS["webhooks"].Options is NoOptions
