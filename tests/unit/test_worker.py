"""The loops, over the world of the stage tests; the engine here runs each body as a task, once at a time by key."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from types import SimpleNamespace

import pytest

from batchway import worker as module
from batchway.core.errors import Fault, ProviderError
from batchway.db import batches, jobs
from batchway.pipeline.notify import Teller
from batchway.worker import DUTIES, HANDED, LONGEST_WAIT, Worker
from tests.stages.world import PRICED, UNPRICED, chat, open_world

ROLES = ("api", "worker", "poller", "housekeeping")


class Engine:
    def __init__(self) -> None:
        self.bodies = {}
        self.tasks: dict[tuple[str, str], asyncio.Task] = {}
        self.started: list[tuple[str, str]] = []
        self.launched = self.closed = 0

    def register(self, name, body, *, concurrency, **_) -> None:
        assert concurrency > 0
        self.bodies[name] = body

    def launch(self) -> None:
        self.launched += 1

    async def ensure(self, name, key) -> bool:
        running = self.tasks.get((name, key))
        if running is not None and not running.done():
            return False
        self.started.append((name, key))
        self.tasks[name, key] = asyncio.create_task(self._run(name, key))
        return True

    async def _run(self, name, key) -> None:
        try:
            await self.bodies[name](key)
        except Exception:
            logging.getLogger("engine").exception("%s(%s)", name, key)

    async def close(self, timeout) -> None:
        self.closed += 1
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


class Executor:
    def __init__(self) -> None:
        self.left = self.registered = 0
        self.on_job_end = None

    def register(self) -> None:
        self.registered += 1

    def leave(self) -> None:
        self.left += 1

    async def run(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr(module, "TICK", 0.02)
    async with open_world() as opened:
        yield opened


def worker_of(world, roles=ROLES):
    parts = SimpleNamespace(
        trip=world.trip,
        engine=Engine(),
        executor=Executor(),
        settings=SimpleNamespace(roles=roles),
        teller=Teller(world.trip, [], None, Random(1)),
    )
    return Worker(parts), parts


async def until(world, batch_id, status, timeout=10):
    async with asyncio.timeout(timeout):
        while (await world.row(batch_id))["status"] != status:
            for provider in world.providers:
                provider.end()
            world.now += 2
            world.trip.bells.polls.set()
            await asyncio.sleep(0.01)


async def test_a_batch_walks_its_road_without_anybody_pushing(world):
    worker, parts = worker_of(world)
    await worker.start()
    try:
        batch_id = await world.batch(*chat(6, PRICED, UNPRICED))
        await until(world, batch_id, "completed")
    finally:
        await worker.stop(1)
    assert [len(lines) for lines in await world.files_of(batch_id)] == [6, 0]
    assert [name for name, key in parts.engine.started if key == batch_id][:1] == ["prepare"]
    assert (parts.engine.launched, parts.engine.closed, parts.executor.left) == (1, 1, 1)


async def test_what_a_killed_process_left_is_taken_up(world):
    batch_id = await world.ended(*chat(4))
    worker, _ = worker_of(world)
    await worker.start()
    try:
        await until(world, batch_id, "completed")
    finally:
        await worker.stop(1)


async def test_a_batch_past_its_window_is_ended(world):
    batch_id = await world.prepared(*chat(4))
    world.now += 86401
    worker, _ = worker_of(world)
    await worker.start()
    try:
        await until(world, batch_id, "expired")
    finally:
        await worker.stop(1)


async def test_a_duty_that_fails_notes_it_and_stops_no_other(world, caplog):
    first = await world.ended(*chat(2))
    second = await world.ended(*chat(2, UNPRICED))
    poisoned = await world.job(first)
    world.alpha.poisoned.add(poisoned["id"])
    worker, _ = worker_of(world)
    await worker.start()
    try:
        await until(world, second, "completed")
        row = await world.job(first)
        assert row["status"] == "ended"
        assert row["attempts"] >= 1
        assert "ZeroDivisionError" in caplog.text
        world.alpha.poisoned.clear()
        world.now += LONGEST_WAIT
        await until(world, first, "completed")
    finally:
        await worker.stop(1)


async def test_failures_wait_longer_each_time_and_never_for_ever(world):
    batch_id = await world.ended(*chat(2))
    job = await world.job(batch_id)
    waits = []
    for _ in range(12):
        await world.db.write(jobs.fail_attempt, job["id"], world.now, LONGEST_WAIT)
        await world.db.write(batches.fail_attempt, batch_id, world.now, LONGEST_WAIT)
        waits.append((await world.job(batch_id))["not_before"] - world.now)
        assert (await world.row(batch_id))["not_before"] - world.now == waits[-1]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1, LONGEST_WAIT)
    assert not await world.db.read(jobs.to_settle, world.now, 10)
    assert await world.db.read(jobs.to_settle, world.now + LONGEST_WAIT, 10) == [job["id"]]


async def test_a_row_is_handed_over_once_until_it_is_done_or_seems_forgotten(world):
    worker, parts = worker_of(world)
    batch_id = await world.batch(*chat(2))

    async def forgetful(name, key):
        parts.engine.started.append((name, key))
        return True

    parts.engine.ensure = forgetful
    for _ in range(3):
        await worker._start_due()
    assert parts.engine.started == [("prepare", batch_id)]
    world.now += HANDED + 1
    await worker._start_due()
    assert parts.engine.started == [("prepare", batch_id)] * 2


async def test_a_loop_that_fails_goes_on(world, caplog):
    worker, _ = worker_of(world)
    broken = asyncio.Event()
    read = world.db.read

    async def lost(statement, *args, **kwargs):
        if statement is batches.to_prepare and not broken.is_set():
            broken.set()
            raise ConnectionError("the database restarts")
        return await read(statement, *args, **kwargs)

    world.db.read = lost
    await worker.start()
    try:
        batch_id = await world.batch(*chat(2))
        await until(world, batch_id, "completed")
    finally:
        await worker.stop(1)
    assert broken.is_set()
    assert "the starter loop failed; it goes on" in caplog.text


async def test_an_outage_of_a_provider_is_a_pause(world):
    batch_id = await world.prepared(*chat(2))
    world.alpha.trouble["look"] = [ProviderError("down", fault=Fault.TRANSIENT) for _ in range(3)]
    worker, _ = worker_of(world)
    await worker.start()
    try:
        await until(world, batch_id, "completed")
    finally:
        await worker.stop(1)


async def test_an_executed_job_is_looked_at_as_soon_as_its_last_chunk_is_done(world):
    batch_id = await world.prepared(*chat(2))
    job = await world.job(batch_id)
    await world.db.write(jobs.note, job["id"], {"poll_at": world.now + 5000})
    worker, parts = worker_of(world)
    world.trip.bells.polls.clear()
    parts.executor.on_job_end = worker._job_ended
    world.alpha.end()
    parts.executor.on_job_end(job["id"])
    assert world.trip.bells.polls.is_set()
    await worker._poll()
    assert (await world.job(batch_id))["status"] == "ended"


@pytest.mark.parametrize(
    ("roles", "loops", "duties"),
    [
        (("api",), 0, 0),
        (("worker",), 2, len(DUTIES)),
        (("poller",), 1, 0),
        (("housekeeping",), 4, 0),
        (ROLES, 7, len(DUTIES)),
    ],
)
async def test_a_process_does_what_its_roles_say(world, roles, loops, duties):
    worker, parts = worker_of(world, roles)
    await worker.start()
    assert len(worker._loops) == loops
    assert len(parts.engine.bodies) == duties
    assert parts.engine.launched == (loops > 0)
    await worker.stop(1)
    assert parts.engine.closed == (loops > 0)
    assert all(task.done() for task in worker._loops)
