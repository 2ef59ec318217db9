"""The rows of deliveries: once for each event, in order for each subject, nobody held up by somebody else."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from batchway.core.errors import Conflict, NotFound
from batchway.core.events import EventType
from batchway.core.principal import Sight
from batchway.db import deliveries, webhooks
from batchway.db.schema import webhooks as table
from tests.postgres import postgres
from tests.stages.webhook_world import claim, endpoint, expand, rows_of, sent, told
from tests.stages.world import either

__all__ = ["either", "postgres"]


async def test_an_event_told_again_is_delivered_once(either) -> None:
    hook, event = await endpoint(either, "a"), told(either, "batch_1")
    await expand(either, (hook, event))
    await expand(either, (hook, event))
    (row,) = await claim(either)
    assert (row["event_id"], row["url"], row["attempts"]) == (event.id, "http://a.example.com/", 1)
    await claim(either, sent(row))
    await expand(either, (hook, event))
    assert await claim(either) == []
    assert [row["status"] for row in (await rows_of(either, hook)).values()] == ["delivered"]


async def test_a_later_event_of_a_subject_waits_and_other_subjects_and_webhooks_do_not(either) -> None:
    a, b = await endpoint(either, "a"), await endpoint(either, "b")
    first, second, other = told(either, "batch_1"), told(either, "batch_1"), told(either, "batch_2")
    await expand(either, *((hook, event) for hook in (a, b) for event in (first, second, other)))
    rows = await claim(either)
    assert sorted((row["webhook_id"], row["event_id"]) for row in rows) == [
        (hook, event.id) for hook in (a, b) for event in (first, other)
    ]
    done = next(row for row in rows if (row["webhook_id"], row["event_id"]) == (b, first.id))
    (following,) = await claim(either, sent(done))
    assert (following["webhook_id"], following["event_id"]) == (b, second.id)


async def test_a_failed_one_keeps_its_subject_back_until_it_is_delivered_or_dead(either) -> None:
    hook = await endpoint(either, "a")
    events = [told(either, "batch_1") for _ in range(3)]
    await expand(either, *((hook, event) for event in events))
    (row,) = await claim(either)
    assert await claim(either, sent(row, "waiting", not_before=either.now + 5)) == []
    either.now += 6
    (row,) = await claim(either)
    assert (row["event_id"], row["attempts"]) == (events[0].id, 2)
    (row,) = await claim(either, sent(row, "dead"))
    assert row["event_id"] == events[1].id
    (row,) = await claim(either, sent(row))
    assert row["event_id"] == events[2].id


async def test_an_earlier_event_that_comes_late_goes_before_those_that_wait(either) -> None:
    hook = await endpoint(either, "a")
    first, second, third = (told(either, "batch_1") for _ in range(3))
    await expand(either, (hook, second))
    await expand(either, (hook, third), (hook, first))
    seen = []
    rows = await claim(either)
    while rows:
        seen += [row["event_id"] for row in rows]
        rows = await claim(either, *(sent(row) for row in rows))
    assert seen == [second.id, first.id, third.id]


async def test_a_claimed_one_is_left_alone_until_the_claim_runs_out(either) -> None:
    hook, event = await endpoint(either, "a"), told(either, "batch_1")
    await expand(either, (hook, event))
    (first,) = await claim(either)
    assert await claim(either) == []
    either.now += deliveries.CLAIMED + 1
    (second,) = await claim(either)
    assert second["attempts"] == 2
    await claim(either, sent(first, "dead"))  # of the sender that was thought dead: too late
    assert (await rows_of(either, hook))[event.id]["status"] == "waiting"
    await claim(either, sent(second))
    assert (await rows_of(either, hook))[event.id]["status"] == "delivered"


async def test_a_sender_that_begins_takes_over_what_the_one_before_left(either) -> None:
    hook, event = await endpoint(either, "a"), told(either, "batch_1")
    await expand(either, (hook, event))
    await claim(either)
    await either.db.write(deliveries.release, None, either.now)
    (row,) = await claim(either)
    assert row["attempts"] == 2


async def test_one_webhook_takes_a_few_at_a_time_and_one_after_a_failure(either) -> None:
    hook = await endpoint(either, "a")
    await expand(either, *((hook, told(either, f"batch_{number}")) for number in range(20)))
    rows = await claim(either)
    assert len(rows) == 4
    assert await claim(either, busy={hook: 4}) == []
    failed = sent(rows[0], "waiting", not_before=either.now + 5)
    assert await claim(either, failed, busy={hook: 3}) == []
    assert len(await claim(either, busy={})) == 1
    assert await claim(either, busy={hook: 1}) == []
    assert len(await claim(either, sent(rows[1]), busy={})) == 4


async def test_webhooks_that_hang_do_not_keep_others_from_being_found(either) -> None:
    """A hundred of them with much to do stand before the one that works."""
    hanging = [await endpoint(either, f"h{number:03}") for number in range(100)]
    await expand(either, *((hook, told(either, f"batch_{number}")) for number in range(6) for hook in hanging))
    first = {row["webhook_id"]: row for row in await claim(either, slots=400)}
    assert len(first) == 100
    either.now += 1
    good = await endpoint(either, "good")
    await expand(either, (good, told(either, "batch_x")))
    failed = [sent(row, "waiting", not_before=either.now) for row in first.values()]
    rows = await claim(either, *failed, slots=5, busy=dict.fromkeys(hanging, 3))
    assert [row["webhook_id"] for row in rows] == ["good"]


async def test_a_project_that_has_its_share_waits_and_others_do_not(either) -> None:
    mine = await endpoint(either, "a", project="p", admin=False)
    theirs = await endpoint(either, "b", project="q", admin=False)
    await expand(either, (mine, told(either, "batch_1")), (theirs, told(either, "batch_2")))
    (row,) = await claim(either, full=["p"])
    assert row["webhook_id"] == theirs


async def test_a_webhook_that_asks_for_time_gets_it_for_all_its_subjects(either) -> None:
    hook = await endpoint(either, "a")
    await expand(either, *((hook, told(either, f"batch_{number}")) for number in range(9)))
    rows = await claim(either)
    pause = {"not_before": either.now + 60, "pause": either.now + 60}
    assert await claim(either, sent(rows[0], "waiting", **pause), *map(sent, rows[1:])) == []
    await expand(either, (hook, told(either, "batch_new")))
    either.now += 59
    assert await claim(either) == []
    either.now += 2
    assert len(await claim(either)) > 0


async def test_one_that_is_gone_is_disabled_and_everything_for_it_is_dead(either) -> None:
    hook, other = await endpoint(either, "a"), await endpoint(either, "b")
    events = [told(either, "batch_1"), told(either, "batch_1"), told(either, "batch_2")]
    await expand(either, *((one, event) for one in (hook, other) for event in events))
    rows = [row for row in await claim(either) if row["webhook_id"] == hook]
    gone = sent(rows[0], "dead", answer=410, error="status 410", gone=True)
    await claim(either, gone, sent(rows[1], "waiting", not_before=0))
    assert {row["status"] for row in (await rows_of(either, hook)).values()} == {"dead"}
    assert (await either.db.read(webhooks.get, hook, None))["disabled_at"] == either.now
    await expand(either, (hook, told(either, "batch_3")))
    assert len(await rows_of(either, hook)) == 3
    assert {row["status"] for row in (await rows_of(either, other)).values()} == {"waiting", "held"}


async def test_a_dead_one_is_sent_again_when_somebody_asks(either) -> None:
    hook = await endpoint(either, "a")
    events = [told(either, "batch_1") for _ in range(3)]
    await expand(either, *((hook, event) for event in events))
    rows = await claim(either)
    for _ in events:
        rows = await claim(either, *(sent(row, "dead") for row in rows))
    assert rows == []
    assert await either.db.write(deliveries.retry_dead, hook, either.now) == 3
    seen = []
    rows = await claim(either)
    while rows:
        seen += [row["event_id"] for row in rows]
        assert [row["attempts"] for row in rows] == [1]
        rows = await claim(either, *(sent(row) for row in rows))
    assert seen == [event.id for event in events]
    assert await either.db.write(deliveries.retry_dead, hook, either.now) == 0


async def test_what_waits_long_is_sent_when_somebody_asks_and_what_may_be_under_way_is_not(either) -> None:
    hook = await endpoint(either, "a")
    await expand(either, *((hook, told(either, f"batch_{number}")) for number in range(2)))
    late, _under_way = await claim(either)
    await claim(either, sent(late, "waiting", not_before=either.now + 10_800, pause=either.now + 10_800))
    assert await either.db.write(deliveries.retry_dead, hook, either.now) == 0
    (row,) = await claim(either)
    assert row["id"] == late["id"]


async def test_one_delivery_is_sent_again_whatever_became_of_it(either) -> None:
    hook = await endpoint(either, "a")
    first, second = told(either, "batch_1"), told(either, "batch_1")
    await expand(either, (hook, first), (hook, second))
    (row,) = await claim(either)
    await claim(either, sent(row, "waiting", not_before=either.now + 3600))
    found = await rows_of(either, hook)
    with pytest.raises(Conflict, match="earlier event"):
        await either.db.write(deliveries.retry, hook, found[second.id]["id"], either.now)
    await either.db.write(deliveries.retry, hook, found[first.id]["id"], either.now)
    (row,) = await claim(either)
    assert (row["event_id"], row["attempts"]) == (first.id, 2)
    (row,) = await claim(either, sent(row))
    await claim(either, sent(row))
    await either.db.write(deliveries.retry, hook, found[first.id]["id"], either.now)
    (row,) = await claim(either)
    assert (row["event_id"], row["attempts"]) == (first.id, 1)
    with pytest.raises(NotFound):
        await either.db.write(deliveries.retry, "b", found[first.id]["id"], either.now)


async def test_a_deleted_webhook_takes_its_deliveries_and_its_secret_along(either) -> None:
    hook = await endpoint(either, "a")
    await expand(either, (hook, told(either, "batch_1")))
    (row,) = await claim(either)
    await either.db.write(webhooks.end, hook, either.now)
    assert await claim(either, sent(row, "waiting", not_before=0)) == []
    assert await rows_of(either, hook) == {}
    assert (await either.db.read(lambda tx: tx.execute(select(table.c.secret)).scalar_one())) == ""
    with pytest.raises(NotFound):
        await either.db.read(webhooks.get, hook, None)
    await expand(either, (hook, told(either, "batch_1")))
    assert await rows_of(either, hook) == {}


async def test_old_ones_are_pruned_the_delivered_before_the_dead(either) -> None:
    hook = await endpoint(either, "a")
    events = [told(either, f"batch_{number}") for number in range(3)]
    await expand(either, *((hook, event) for event in events))
    good, bad, _ = await claim(either)
    await claim(either, sent(good), sent(bad, "dead"))
    before = either.now
    assert await either.db.write(deliveries.prune, before, before) == 0
    assert await either.db.write(deliveries.prune, before + 1, before) == 1
    assert await either.db.write(deliveries.prune, before + 1, before + 1) == 1
    assert list(await rows_of(either, hook)) == [events[2].id]


async def test_rows_of_webhooks_go_when_nobody_can_want_them_any_more(either) -> None:
    await endpoint(either, "standing")
    await endpoint(either, "of_batch", batch_id="batch_1")
    await endpoint(either, "with_work", batch_id="batch_2")
    await endpoint(either, "left_the_settings", receiver="old")
    await expand(either, ("with_work", told(either, "batch_2")))
    await either.db.write(webhooks.end, await endpoint(either, "deleted"), either.now)
    await either.db.write(webhooks.tidy, either.now)

    async def left() -> set[str]:
        return set(await either.db.read(lambda tx: tx.execute(select(table.c.id)).scalars().all()))

    assert len(await left()) == 5
    await either.db.write(webhooks.tidy, either.now + 1)
    assert await left() == {"standing", "with_work", "left_the_settings"}
    with pytest.raises(NotFound):
        await either.db.read(webhooks.get, "left_the_settings", None)


async def test_pages_follow_one_another_without_gap_or_repeat(either) -> None:
    hook = await endpoint(either, "a")
    events = [told(either, f"batch_{number}") for number in range(7)]
    await expand(either, *((hook, event) for event in events))
    seen, after, more = [], None, True
    while more:
        rows, more = await either.db.read(deliveries.page, hook, 3, after, None)
        seen += [row["event_id"] for row in rows]
        after = rows[-1]["id"]
    assert seen == [event.id for event in reversed(events)]
    rows, more = await either.db.read(deliveries.page, hook, 10, None, "dead")
    assert (rows, more) == ([], False)
    assert len((await either.db.read(deliveries.page, hook, 10, None, "waiting"))[0]) == 7


async def test_a_key_knows_its_projects_webhooks_and_no_admins(either) -> None:
    await endpoint(either, "gateway", private=True)
    await endpoint(either, "by_admin", project="p", private=True, key_id="master")
    await endpoint(either, "shared", project="p", admin=False)
    await endpoint(either, "own", project="p", admin=False, private=True, key_id="key_2")
    await endpoint(either, "other", project="q", admin=False)
    await endpoint(either, "of_batch", project="p", admin=False, batch_id="batch_1")

    async def known(sight: Sight | None, batch_id: str | None = None) -> set[str]:
        rows, _ = await either.db.read(webhooks.page, sight, 100, None, batch_id)
        return {row["id"] for row in rows}

    assert await known(Sight("p", "key_1")) == {"shared"}
    assert await known(Sight("p", "key_2")) == {"shared", "own"}
    assert await known(Sight("p", "key_1"), "batch_1") == {"of_batch"}
    assert await known(None) == {"gateway", "by_admin", "shared", "own", "other"}
    assert await either.db.read(webhooks.count, "p") == 3
    assert await either.db.read(webhooks.count, None) == 1


@pytest.mark.postgres
async def test_many_processes_claim_and_tell_at_once_without_losing_or_reordering(either) -> None:
    """Tellers and senders meet on the same webhooks; every delivery is claimed once, in order for each subject."""
    hooks = [await endpoint(either, f"w{number}") for number in range(4)]
    events = [told(either, f"batch_{number % 5}", EventType.JOB_ENDED) for number in range(60)]
    seen: list[tuple[str, str, int]] = []

    async def tell(part: int) -> None:
        for event in events[part::3]:
            await expand(either, *((hook, event) for hook in hooks))

    async def send() -> None:
        ended, idle = [], 0
        while idle < 20:
            rows = await claim(either, *ended)
            seen.extend((row["webhook_id"], row["subject"], row["position"]) for row in rows)
            ended = [sent(row) for row in rows]
            idle = 0 if rows else idle + 1
            await asyncio.sleep(0.005)

    await asyncio.gather(*(tell(part) for part in range(3)), *(send() for _ in range(3)))
    assert sorted(seen) == sorted((hook, event.subject, event.position) for hook in hooks for event in events)
