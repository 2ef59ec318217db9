"""The sender against real endpoints: tries, order, and who is held up by whom."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from random import Random

import pytest
from standardwebhooks import Webhook

from batchway.db import deliveries, webhooks
from batchway.integrations.webhook.guard import Guard
from batchway.integrations.webhook.send import Messenger
from batchway.integrations.webhook.sender import GIVE_UP, Pace, Sender
from tests.postgres import postgres
from tests.stages.webhook_peer import Asked, here, open_peer
from tests.stages.webhook_world import SECRET, endpoint, expand, rows_of, told, tools_of
from tests.stages.world import either, world

__all__ = ["either", "postgres", "world"]


@pytest.fixture
async def peer():
    async with open_peer() as made:
        yield made


@asynccontextmanager
async def sending(world, *, timeout: float = 20.0, receiver: str | None = None, **pace):
    messenger = Messenger(lambda: world.now, Guard(here), timeout=timeout)
    sender = Sender(tools_of(world), messenger, receiver, pace=Pace(**{"tick": 0.02} | pace), random=Random(1))
    sender.start()
    try:
        yield sender
    finally:
        await sender.close()
        await messenger.close()


async def status(world, hook: str, event) -> str:
    return (await rows_of(world, hook))[event.id]["status"]


async def until(true, seconds: float = 30.0) -> None:
    """Waits for what only a row tells."""
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.01)


async def test_what_waits_is_sent_signed_and_noted(either, peer) -> None:
    hook, event = await endpoint(either, "a", url=peer.url("a", "/in")), told(either, "batch_1")
    async with sending(either) as sender:
        await expand(either, (hook, event))
        sender.ring()
        await peer.until(lambda: len(peer.taken) == 1)

        async def noted() -> bool:
            return await status(either, hook, event) == "delivered"

        await until(noted)
    (asked,) = peer.taken
    assert (asked.path, asked.headers["webhook-id"], asked.event["id"]) == ("/in", event.id, event.id)
    assert asked.headers["webhook-timestamp"] == str(int(either.now))
    signature = Webhook(SECRET).sign(event.id, _time(either.now), asked.body.decode())
    assert asked.headers["webhook-signature"] == signature
    row = (await rows_of(either, hook))[event.id]
    assert (row["answer"], row["error"], row["attempts"], row["ended_at"]) == (204, None, 1, either.now)


def _time(seconds: float):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(seconds), UTC)


async def test_a_batch_whose_messages_fail_holds_up_nobody_else_and_keeps_its_order(either, peer) -> None:
    hook = await endpoint(either, "a", url=peer.url("a"))
    events = [told(either, f"batch_{number % 3}") for number in range(15)]
    fails = True
    peer.behave = lambda asked: 500 if fails and asked.event["batchway"]["subject"] == "batch_1" else 204
    async with sending(either) as sender:
        await expand(either, *((hook, event) for event in events))
        sender.ring()
        await peer.until(lambda: len(peer.taken) == 10)
        of_bad = [one for one in peer.asked if one.event["batchway"]["subject"] == "batch_1"]
        assert {one.event["id"] for one in of_bad} == {events[1].id}
        fails = False

        async def noted() -> bool:
            row = (await rows_of(either, hook))[events[1].id]
            return row["answer"] == 500

        await until(noted)
        either.now += 7
        sender.ring()
        await peer.until(lambda: len(peer.taken) == 15)
    for number in range(3):
        subject = f"batch_{number}"
        taken = [one.event["id"] for one in peer.taken if one.event["batchway"]["subject"] == subject]
        assert taken == [event.id for event in events if event.subject == subject]


async def test_endpoints_that_hang_hold_up_no_other(world, peer) -> None:
    """Ten that take a connection and say nothing, and one that works."""
    hanging = [await endpoint(world, f"h{number}", url=peer.url(f"h{number}")) for number in range(10)]
    good = await endpoint(world, "good", url=peer.url("good"))

    async def behave(asked: Asked) -> int:
        if asked.host != "good":
            await asyncio.Event().wait()
        return 204

    peer.behave = behave
    events = [told(world, f"batch_{number}") for number in range(40)]
    async with sending(world) as sender:
        await expand(world, *((hook, event) for hook in [*hanging, good] for event in events))
        sender.ring()
        await peer.until(lambda: len(peer.taken) == 40)
    assert sorted(peer.ids()) == sorted(event.id for event in events)
    hosts = [one.host for one in peer.asked]
    assert max(hosts.count(f"h{number}") for number in range(10)) <= 4


async def test_a_try_that_fails_is_made_again_later_and_later_with_the_same_id_and_body(world, peer) -> None:
    hook, event = await endpoint(world, "a", url=peer.url("a")), told(world, "batch_1")
    peer.behave = lambda _: 503
    waits = []
    async with sending(world) as sender:
        await expand(world, (hook, event))
        for tries in range(1, 9):
            sender.ring()
            await peer.until(lambda tries=tries: len(peer.asked) == tries)

            async def noted(tries: int = tries) -> bool:
                row = (await rows_of(world, hook))[event.id]
                return (
                    row["answer"] == 503
                    and row["not_before"] != world.now + deliveries.CLAIMED
                    and (row["attempts"] == tries and row["not_before"] > world.now)
                )

            await until(noted)
            row = (await rows_of(world, hook))[event.id]
            waits.append(row["not_before"] - world.now)
            world.now = row["not_before"]
    wanted = [5, 30, 120, 600, 3600, 10800, 10800, 10800]
    assert all(0.8 * base <= wait <= 1.2 * base for base, wait in zip(wanted, waits, strict=True)), waits
    assert len({round(wait / base, 6) for base, wait in zip(wanted, waits, strict=True)}) > 1
    assert {(one.headers["webhook-id"], one.body) for one in peer.asked} == {(event.id, peer.asked[0].body)}
    assert len({one.headers["webhook-signature"] for one in peer.asked}) == 8


async def test_after_three_days_a_message_is_dead_and_the_next_has_its_turn(world, peer) -> None:
    hook = await endpoint(world, "a", url=peer.url("a"))
    first, second = told(world, "batch_1"), told(world, "batch_1")
    peer.behave = lambda asked: 500 if asked.event["id"] == first.id else 204
    async with sending(world) as sender:
        await expand(world, (hook, first), (hook, second))
        sender.ring()
        await peer.until(lambda: len(peer.asked) == 1)

        async def dead() -> bool:
            world.now += 1800
            return await status(world, hook, first) == "dead"

        before = world.now
        await until(dead)
        assert GIVE_UP - 3 * 3600 * 1.2 <= world.now - before <= GIVE_UP + 7200
        await peer.until(lambda: peer.ids() == [second.id])
    row = (await rows_of(world, hook))[first.id]
    assert (row["answer"], row["error"]) == (500, "status 500")
    assert row["attempts"] > 20


async def test_the_time_that_a_receiver_asks_for_is_given_to_all_of_its_messages(world, peer) -> None:
    hook = await endpoint(world, "a", url=peer.url("a"))
    events = [told(world, f"batch_{number}") for number in range(9)]
    busy = True
    peer.behave = lambda _: "HTTP/1.1 429 X\r\nretry-after: 100\r\ncontent-length: 0\r\n\r\n" if busy else 204
    async with sending(world, each=1) as sender:
        await expand(world, *((hook, event) for event in events))
        sender.ring()
        await peer.until(lambda: len(peer.asked) == 1)

        async def paused() -> bool:
            return (await world.db.read(webhooks.get, hook, None))["paused_until"] == world.now + 100

        await until(paused)
        world.now += 99
        sender.ring()
        await asyncio.sleep(0.1)
        assert len(peer.asked) == 1
        busy = False
        world.now += 1
        sender.ring()
        await peer.until(lambda: len(peer.taken) == 9)


async def test_a_receiver_that_is_gone_is_told_no_more(world, peer) -> None:
    hook = await endpoint(world, "a", url=peer.url("a"))
    events = [told(world, f"batch_{number}") for number in range(3)]
    peer.behave = lambda _: 410
    async with sending(world, each=1) as sender:
        await expand(world, *((hook, event) for event in events))
        sender.ring()

        async def disabled() -> bool:
            return (await world.db.read(webhooks.get, hook, None))["disabled_at"] is not None

        await until(disabled)
    assert len(peer.asked) == 1
    assert {row["status"] for row in (await rows_of(world, hook)).values()} == {"dead"}


@pytest.mark.parametrize("wrong", ["url", "secret"])
async def test_a_message_that_cannot_be_made_or_sent_keeps_no_other_from_going(world, peer, wrong, caplog) -> None:
    changes = {"url": "not a url"} if wrong == "url" else {"secret": "sealed:broken"}
    bad = await endpoint(world, "bad", **{"url": peer.url("bad")} | changes)
    good = await endpoint(world, "good", url=peer.url("good"))
    event = told(world, "batch_1")
    async with sending(world) as sender:
        await expand(world, (bad, event), (good, event))
        sender.ring()
        await peer.until(lambda: peer.ids() == [event.id])

        async def noted() -> bool:
            return (await rows_of(world, bad))[event.id]["error"] is not None

        await until(noted)
    assert SECRET not in caplog.text


async def test_what_was_under_way_when_a_sender_ended_is_sent_by_the_next_one_at_once(either, peer) -> None:
    hook, event = await endpoint(either, "a", url=peer.url("a")), told(either, "batch_1")

    async def hang(asked: Asked) -> int:
        await asyncio.Event().wait()
        return 204

    peer.behave = hang
    async with sending(either) as sender:
        await expand(either, (hook, event))
        sender.ring()
        await peer.until(lambda: len(peer.asked) == 1)
    peer.behave = lambda _: 204
    async with sending(either):
        await peer.until(lambda: peer.ids() == [event.id])


async def test_answers_that_came_before_the_end_are_noted_at_the_end(world, peer) -> None:
    hook, event = await endpoint(world, "a", url=peer.url("a")), told(world, "batch_1")
    async with sending(world, tick=60) as sender:
        await expand(world, (hook, event))
        sender.ring()
        await peer.until(lambda: peer.ids() == [event.id])
        tasks = list(sender._under_way)
        if tasks:
            await asyncio.wait(tasks)
    assert await status(world, hook, event) == "delivered"


async def test_a_database_that_is_away_costs_a_pause_and_no_message(world, peer, caplog) -> None:
    hook, event = await endpoint(world, "a", url=peer.url("a")), told(world, "batch_1")
    await expand(world, (hook, event))
    away, write = 3, world.db.write

    async def failing(statement, *args, **kwargs):
        nonlocal away
        if away:
            away -= 1
            raise OSError("the database is away")
        return await write(statement, *args, **kwargs)

    world.db.write = failing
    with caplog.at_level(logging.CRITICAL, "batchway.integrations.webhook.sender"):
        async with sending(world):
            await peer.until(lambda: peer.ids() == [event.id])
    assert away == 0


async def test_a_configured_webhook_is_sent_for_by_its_own_receiver_only(world, peer) -> None:
    mine = await endpoint(world, "mine", url=peer.url("mine"), receiver="mine")
    others = await endpoint(world, "others", url=peer.url("others"))
    event = told(world, "batch_1")
    async with sending(world, receiver="mine") as sender:
        await expand(world, (mine, event), (others, event))
        sender.ring()
        await peer.until(lambda: peer.ids("mine") == [event.id])
    assert peer.ids("others") == []


async def test_old_rows_are_pruned_as_time_goes_by(world, peer) -> None:
    hook, event = await endpoint(world, "a", url=peer.url("a")), told(world, "batch_1")
    async with sending(world) as sender:
        await expand(world, (hook, event))
        sender.ring()

        async def noted() -> bool:
            return await status(world, hook, event) == "delivered"

        async def gone() -> bool:
            return not await rows_of(world, hook)

        await until(noted)
        world.now += 6 * 86400
        await asyncio.sleep(0.1)
        assert not await gone()
        world.now += 2 * 86400
        await until(gone)
