from __future__ import annotations

import asyncio
from random import Random

import pytest

from batchway.core.errors import NotFound
from batchway.core.events import EventType
from batchway.db import leases, outbox, receivers
from batchway.db.outbox import About, tell
from batchway.integrations.protocol import Entry, ReceiverError, Tools
from batchway.integrations.registry import Listed
from batchway.pipeline.notify import Teller
from batchway.pipeline.telling import IDLE
from batchway.testing.receiver_ground import CANARY
from tests.stages.ear import DAY, Ear, dead, forever, happen, happen_unplaced, known, rounds, row_of, telling
from tests.stages.world import NOW, either, world

__all__ = ["either", "world"]


async def test_every_event_is_told_once_in_order_and_in_windows(either) -> None:
    ids = await happen(either, 37)
    await known(either)
    ear = Ear(window=5)
    await rounds(either, telling(either, ear))
    assert ear.ids == ids
    assert (await row_of(either))["position"] == 37


async def test_a_new_name_begins_now_unless_it_says_from_the_start(world) -> None:
    old = await happen(world, 3)
    await known(world, from_start=False)
    new = await happen(world, 2)
    ear = Ear()
    await rounds(world, telling(world, ear))
    assert ear.ids == new
    await known(world, "other", from_start=True)
    everything = Ear()
    await telling(world, everything, name="other").round()
    assert everything.ids == old + new


async def test_events_that_do_not_match_only_move_the_place(world) -> None:
    await happen(world, 3, project="other")
    mine = await happen(world, 2, project="p", subject="batch_2")
    await known(world)
    ear = Ear()
    await rounds(world, telling(world, ear, projects=("p",)))
    assert ear.ids == mine
    ear = Ear()
    await known(world, "patterns")
    await telling(world, ear, name="patterns", events=("batch.*", "file.created")).round()
    assert not ear.heard
    assert (await world.db.read(receivers.get, "patterns"))["position"] == 5


async def test_a_failure_keeps_the_place_and_waits_longer_each_time(either) -> None:
    ids = await happen(either, 4)
    await known(either)
    ear, pauses = Ear(), []
    it = telling(either, ear)
    ear.deaf = ReceiverError("away: status 503")
    for failures in range(1, 13):
        await it.round()
        row = await row_of(either)
        assert (row["failures"], row["position"], row["last_error"]) == (failures, 0, "away: status 503")
        assert await it.round() > 0  # too early: nothing is told
        assert (await row_of(either))["failures"] == failures
        pauses.append(row["not_before"] - either.now)
        either.now = row["not_before"]
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses[:8]))
    assert all(150 <= pause <= 300 for pause in pauses[9:])
    ear.deaf = None
    await rounds(either, it)
    assert ear.ids == ids
    row = await row_of(either)
    assert (row["failures"], row["failing_since"], row["last_error"]) == (0, None, None)


async def test_the_time_that_it_asks_for_is_obeyed(world) -> None:
    await happen(world, 1)
    await known(world)
    ear = Ear()
    ear.deaf = ReceiverError("busy", retry_after=1234.0)
    await telling(world, ear).round()
    assert (await row_of(world))["not_before"] == pytest.approx(world.now + 1234)


async def test_a_hanging_receiver_is_given_up_and_told_again(world, monkeypatch) -> None:
    monkeypatch.setattr("batchway.pipeline.telling.TELL_SECONDS", 0.02)
    ids = await happen(world, 2)
    await known(world)
    ear = Ear()
    hear = ear.tell
    ear.tell = forever
    it = telling(world, ear)
    await it.round()
    assert "no answer" in (await row_of(world))["last_error"]
    ear.tell = hear
    await rounds(world, it)
    assert ear.ids == ids


async def test_what_a_receivers_bug_says_is_not_kept(world) -> None:
    await happen(world, 1)
    await known(world)
    ear = Ear()
    ear.deaf = RuntimeError(f"the password is {CANARY}")
    await telling(world, ear).round()
    assert (await row_of(world))["last_error"] == "it failed with RuntimeError"


@pytest.mark.parametrize("bad", [0, 4, 9])
async def test_an_event_that_is_refused_for_good_becomes_a_dead_letter_and_the_rest_go_on(either, bad) -> None:
    ids = await happen(either, 10)
    await known(either)
    ear = Ear(window=10)
    ear.fails[ids[bad]] = ReceiverError("will not take it", permanent=True)
    await rounds(either, telling(either, ear))
    assert list(dict.fromkeys(ear.ids)) == [one for one in ids if one != ids[bad]]
    assert await dead(either) == [ids[bad]]


async def test_what_cannot_be_told_for_three_days_is_a_dead_letter_and_what_is_younger_is_not(world) -> None:
    ids = await happen(world, 4)
    await known(world)
    ear = Ear(window=10)
    ear.fails[ids[1]] = ReceiverError("it makes no sense to me: status 500")
    it = telling(world, ear)
    while not await dead(world):
        await it.round()
        world.now = max((await row_of(world))["not_before"], world.now)
        assert world.now < NOW + 4 * DAY
    assert await dead(world) == [ids[1]]
    await rounds(world, it)
    assert list(dict.fromkeys(ear.ids)) == [ids[0], ids[2], ids[3]]
    young = await happen(world, 1, start=9)
    ear.fails[young[0]] = ReceiverError("status 500")
    await it.round()
    assert await dead(world) == [ids[1]]


async def test_dead_letters_are_told_again_when_somebody_asks(either) -> None:
    ids = await happen(either, 3)
    await known(either)
    ear = Ear()
    ear.fails = {ids[0]: ReceiverError("no", permanent=True), ids[2]: ReceiverError("no", permanent=True)}
    it = telling(either, ear)
    await rounds(either, it)
    ear.heard.clear()
    assert await either.db.write(receivers.redeliver, "ear", either.now) == 2
    del ear.fails[ids[2]]
    either.now += IDLE
    await rounds(either, it)
    assert ear.ids == [ids[2]]
    assert await dead(either) == [ids[0]]
    heard = len(ear.heard)
    await rounds(either, it)
    assert len(ear.heard) == heard, "a letter that died again waits to be asked for again"
    with pytest.raises(NotFound, match="receivers list"):
        await either.db.write(receivers.redeliver, "nobody", either.now)


async def test_a_process_that_no_longer_leads_tells_nothing(world) -> None:
    await happen(world, 3)
    await known(world)
    ear = Ear()
    it = telling(world, ear, leads=False)
    await it.round()
    assert not ear.heard
    assert (await row_of(world))["failures"] == 0


async def test_a_frozen_process_cannot_set_a_place_back(either) -> None:
    await happen(either, 5)
    await known(either)
    await either.db.write(receivers.move, "ear", 4, either.now)
    await either.db.write(receivers.move, "ear", 2, either.now)
    await either.db.write(receivers.told_lines, "ear", 2, 99, either.now)
    row = await row_of(either)
    assert (row["position"], row["lines_told"]) == (4, 0)


def teller(world, listed: list[Listed]) -> Teller:
    tools = Tools(
        http=None, db=world.db, storage=world.storage, clock=lambda: world.now, new_id=world.trip.new_id,
        seal=str, unseal=str,
    )  # fmt: skip
    return Teller(world.trip, listed, tools, Random(1))


def listed(ear: Ear, name: str = "ear", **entry) -> Listed:
    return Listed(Entry(**{"name": name, "kind": "ear", **entry}), lambda _tools: ear)


async def test_the_teller_places_tells_and_closes(either) -> None:
    ear, other = Ear(), Ear()
    it = teller(either, [listed(ear), listed(other, "other")])
    await it.once()
    await happen_unplaced(either, 4)
    await it.once()
    await ear.has_heard(4)
    await other.has_heard(4)
    assert ear.ids == other.ids
    await it.close()
    assert (ear.closed, other.closed) == (1, 1)


async def test_a_commit_with_an_event_rings_and_one_without_does_not(either) -> None:
    rung = []
    either.db.on_told = lambda: rung.append(1)
    await happen_unplaced(either, 3)
    assert rung == [1]
    await either.db.write(leases.take, "x", "me", either.now, 5.0)
    assert rung == [1]

    def fail(tx) -> None:
        tell(tx, EventType.JOB_ENDED, About("batch_1", "p", "k"), either.now, {})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await either.db.write(fail)
    assert rung == [1]


async def test_a_receiver_that_hangs_or_cannot_be_opened_holds_up_no_other(world) -> None:
    ear, hanging = Ear(), Ear()
    hanging.tell = forever

    def broken(tools):
        raise RuntimeError("no such module")

    it = teller(world, [listed(hanging, "hanging"), Listed(Entry(name="broken", kind="x"), broken), listed(ear)])
    await it.once()
    await happen_unplaced(world, 2)
    await it.once()
    await ear.has_heard(2)
    async with asyncio.timeout(10):
        await it.close()


async def test_of_two_processes_one_places(either) -> None:
    either.db.is_sqlite = False  # both as on PostgreSQL: by the lease
    one, other = (teller(either, []) for _ in range(2))
    await one.once()
    await happen_unplaced(either, 3)
    await other.once()
    assert await either.db.read(outbox.end) == 0
    await one.once()
    assert await either.db.read(outbox.end) == 3
    await one.close()
    await happen_unplaced(either, 1)
    await other.once()
    assert await either.db.read(outbox.end) == 4
