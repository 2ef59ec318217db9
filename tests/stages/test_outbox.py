from __future__ import annotations

import asyncio
from random import Random

import pytest
from sqlalchemy import func, select

from batchway.core.events import EventType
from batchway.db import outbox, receivers
from batchway.db.outbox import About, tell
from batchway.db.schema import outbox as table
from batchway.pipeline import notify
from tests.stages.ear import DAY, Ear, dead, happen, happen_unplaced, known, telling
from tests.stages.world import either, world

__all__ = ["either", "world"]


async def test_positions_have_no_gap_and_follow_the_order_of_commits(either) -> None:
    for number in range(5):
        await happen(either, 2, start=2 * number)
    events = await either.db.read(outbox.after, 0, 100)
    assert [event.position for event in events] == list(range(1, 11))
    assert [event.data["n"] for event in events] == list(range(10))
    assert await either.db.write(outbox.place, 100) == 0
    assert await either.db.read(outbox.end) == 10


async def test_events_are_placed_oldest_first_when_there_are_more_than_a_transaction_takes(either) -> None:
    def store(tx) -> None:
        for number in range(7):
            tell(tx, EventType.JOB_ENDED, About("batch_1", "p", "k"), either.now, {"n": number})

    await either.db.write(store)
    assert [await either.db.write(outbox.place, 3) for _ in range(3)] == [3, 3, 1]
    assert [event.data["n"] for event in await either.db.read(outbox.after, 0, 9)] == list(range(7))


async def test_told_events_are_pruned_after_a_week_and_untold_ones_are_not(either) -> None:
    await happen(either, 5)
    await known(either, "ear")
    await known(either, "slow")
    await either.db.write(receivers.move, "ear", 5, either.now)
    await either.db.write(receivers.move, "slow", 2, either.now)
    for later, left in ((6 * DAY, 5), (8 * DAY, 3)):
        await either.db.write(notify._prune, ["ear", "slow"], either.now + later)
        assert len(await either.db.read(outbox.after, 0, 99)) == left


async def test_positions_go_on_when_everything_is_pruned(either) -> None:
    await happen(either, 3)
    await either.db.write(notify._prune, [], either.now + 8 * DAY)
    assert [event.position for event in await either.db.read(outbox.after, 0, 99)] == [3]
    await happen(either, 1)
    assert await either.db.read(outbox.end) == 4


async def test_a_receiver_that_is_gone_from_the_settings_is_forgotten_after_a_week(either) -> None:
    await known(either, "ear")
    await known(either, "gone")
    for later, left in ((6 * DAY, ["ear", "gone"]), (8 * DAY, ["ear"])):
        await either.db.write(notify._prune, ["ear"], either.now + later)
        assert [row["name"] for row in await either.db.read(receivers.every)] == left


async def test_dead_letters_are_kept_for_a_month(either) -> None:
    (event_id,) = await happen(either, 1)
    await known(either)
    (event,) = await either.db.read(outbox.after, 0, 1)
    await either.db.write(receivers.bury, "ear", event, "no", either.now)
    for later, left in ((29 * DAY, [event_id]), (31 * DAY, [])):
        await either.db.write(notify._prune, ["ear"], either.now + later)
        assert await dead(either) == left


async def test_lag_counts_events_and_the_age_of_the_oldest(either) -> None:
    await happen(either, 5)
    await known(either, "ear")
    await known(either, "well", from_start=False)
    await either.db.write(receivers.move, "ear", 2, either.now)
    either.now += 40
    await happen_unplaced(either, 1)
    (ear, well) = await either.db.read(receivers.lag, either.now + 2)
    assert (ear.name, ear.events, ear.seconds) == ("ear", 4, 42)
    assert (well.name, well.events, well.seconds) == ("well", 1, 2)


WRITERS, EACH = 8, 25


@pytest.mark.postgres
async def test_no_event_of_slow_and_concurrent_transactions_is_skipped(either) -> None:
    """Sequences are drawn before commits: a reader by `seq` would skip what commits late."""
    if either.db.is_sqlite:
        pytest.skip("SQLite has one writer")
    random = Random(7)
    done = asyncio.Event()

    async def write(writer: int) -> None:
        for number in range(EACH):
            pause = random.random() * 0.02

            def store(tx, number: int = number, pause: float = pause) -> None:
                tell(tx, EventType.JOB_ENDED, About(f"batch_{writer}", "p", "k"), either.now, {"n": 2 * number})
                tx.execute(select(func.pg_sleep(pause)))
                tell(tx, EventType.JOB_ENDED, About(f"batch_{writer}", "p", "k"), either.now, {"n": 2 * number + 1})

            await either.db.write(store)

    async def place() -> None:
        while not done.is_set():
            await either.db.write(notify._place, "me", either.now, alone=False)
            await asyncio.sleep(0)

    ear = Ear(window=7)
    it = telling(either, ear)
    await known(either)
    placing = asyncio.create_task(place())

    async def listen() -> None:
        while len(ear.heard) < 2 * WRITERS * EACH:
            await it.round()

    async with asyncio.timeout(60):
        await asyncio.gather(listen(), *(write(writer) for writer in range(WRITERS)))
    done.set()
    await placing
    assert [event.position for event in ear.heard] == list(range(1, 2 * WRITERS * EACH + 1))
    for writer in range(WRITERS):
        of_one = [event.data["n"] for event in ear.heard if event.subject == f"batch_{writer}"]
        assert of_one == list(range(2 * EACH))
    seqs = await either.db.read(lambda tx: list(tx.execute(select(table.c.seq).order_by(table.c.position)).scalars()))
    assert seqs != sorted(seqs), "no transaction was committed late: nothing was proved"
