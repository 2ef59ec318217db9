"""What `Engine` promises to a process that uses it, on SQLite and on PostgreSQL; so must an upgrade of DBOS."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from batchway.core.errors import BatchwayError, ConfigError
from batchway.engine import Engine
from batchway.engine.connections import is_sqlite, open_database
from tests.postgres import Postgres

Build = Callable[..., Engine]
WAIT = 20.0


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'engine.db'}"
    return request.getfixturevalue("postgres").fresh()


@pytest.fixture
async def build(url: str, tmp_path: Path) -> AsyncIterator[Build]:
    """Makes engines over one database; all are closed in the end."""
    made: list[Engine] = []

    def build(**options: object) -> Engine:
        lock = tmp_path / "lock" if is_sqlite(url) else None
        engine = Engine(database_url=url, loop=None, exclusive_lock=lock, **options)  # pyright: ignore[reportArgumentType]
        made.append(engine)
        return engine

    yield build
    for engine in made:
        await engine.close(timeout=1)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT):
        while not await holds():  # noqa: ASYNC110 - a row in a database is no event of this process
            await asyncio.sleep(0.01)


async def idle(engine: Engine, name: str) -> None:
    """Wait until no work of this name waits or runs."""

    async def nothing() -> bool:
        return not await engine.active(name)

    await eventually(nothing)


def rows(url: str) -> list[tuple[str, str | None, str | None]]:
    """(status, key, application version) of all work that DBOS knows."""
    database = open_database(url, connections=1, lease_seconds=5)
    schema = "" if is_sqlite(url) else "batchway_engine."
    with database.connect() as connection:
        found = connection.execute(
            sa.text(f"SELECT status, deduplication_id, application_version FROM {schema}workflow_status")
        ).all()
    database.dispose()
    return [tuple(row) for row in found]


async def test_a_hundred_calls_with_one_key_start_one_run(build: Build) -> None:
    engine = build()
    begun: list[str] = []
    release = asyncio.Event()

    async def body(key: str) -> None:
        begun.append(key)
        await release.wait()

    engine.register("work", body, concurrency=8)
    engine.launch()

    started = await asyncio.gather(*(engine.ensure("work", "one") for _ in range(100)))
    assert started.count(True) == 1
    assert await engine.active("work") == {"one"}
    assert not await engine.ensure("work", "one"), "it runs"
    assert await engine.ensure("work", "other")
    release.set()
    await idle(engine, "work")

    assert Counter(begun) == {"one": 1, "other": 1}
    assert await engine.ensure("work", "one"), "it has ended, so it may be started again"
    await idle(engine, "work")
    assert begun.count("one") == 2


async def test_a_body_that_raised_is_logged_without_its_words_and_may_be_started_again(
    build: Build, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = build()
    attempts: list[str] = []

    async def body(key: str) -> None:
        attempts.append(key)
        if len(attempts) == 1:
            raise ValueError("the prompt was: tell me a secret")
        if len(attempts) == 2:
            raise ExceptionGroup("several", [BatchwayError("no such batch"), KeyError("secret")])

    engine.register("work", body, concurrency=1)
    engine.launch()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await engine.ensure("work", "batch_7")
            await idle(engine, "work")

    assert attempts == ["batch_7"] * 3
    assert sorted(status for status, _, _ in rows(url)) == ["ERROR", "ERROR", "SUCCESS"]
    failures = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 2
    assert "work(batch_7) failed: ValueError at test_engine_work.py" in failures[0]
    assert "BatchwayError: no such batch" in failures[1]
    assert "secret" not in caplog.text
    assert "secret" not in str(rows(url))


async def test_cancelled_is_not_failed(build: Build, url: str) -> None:
    engine = build()
    tasks: list[asyncio.Task[None] | None] = []
    begun = asyncio.Event()
    again = asyncio.Event()

    async def body(key: str) -> None:
        tasks.append(asyncio.current_task())
        begun.set()
        if len(tasks) > 1:
            again.set()
            return
        await asyncio.Event().wait()

    engine.register("work", body, concurrency=1)
    engine.launch()
    await engine.ensure("work", "one")
    async with asyncio.timeout(WAIT):
        await begun.wait()
        assert tasks[0] is not None
        tasks[0].cancel()  # as a host does that ends its loop
        await again.wait()
    await idle(engine, "work")
    assert [status for status, _, _ in rows(url)] == ["SUCCESS"]


async def test_what_close_interrupts_the_next_engine_runs(build: Build) -> None:
    ended: list[str] = []
    begun = asyncio.Semaphore(0)

    async def endless(key: str) -> None:
        begun.release()
        await asyncio.Event().wait()

    async def quick(key: str) -> None:
        ended.append(key)

    first = build()
    first.register("work", endless, concurrency=2)
    first.launch()
    for key in ("a", "b", "c"):
        await first.ensure("work", key)
    for _ in range(2):
        await asyncio.wait_for(begun.acquire(), WAIT)
    await first.close(timeout=0.05)
    assert not first.alive()
    with pytest.raises(BatchwayError):
        await first.ensure("work", "d")

    second = build()
    second.register("work", quick, concurrency=2)
    second.launch()
    assert second.executor_id != first.executor_id
    await idle(second, "work")
    assert sorted(ended) == ["a", "b", "c"]


async def test_no_more_than_the_asked_for_run_at_once_and_a_free_slot_is_taken_at_once(build: Build) -> None:
    engine = build(poll_seconds=WAIT)
    running = peak = 0
    full = asyncio.Event()  # the first three wait for one another: only a full house lets them end

    async def body(key: str) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        if running == 3:
            full.set()
        await full.wait()
        running -= 1

    engine.register("work", body, concurrency=3)
    engine.launch()
    await asyncio.gather(*(engine.ensure("work", f"k{n}") for n in range(30)))
    async with asyncio.timeout(WAIT / 2):  # the poll alone would take far longer
        await idle(engine, "work")
    assert peak == 3


async def test_lower_priorities_run_first(build: Build) -> None:
    engine = build()
    order: list[str] = []
    begun = asyncio.Event()
    gate = asyncio.Event()

    async def body(key: str) -> None:
        begun.set()
        await gate.wait()
        order.append(key)

    engine.register("work", body, concurrency=1)
    engine.launch()
    await engine.ensure("work", "first")
    await asyncio.wait_for(begun.wait(), WAIT)
    for key, priority in (("late", 9), ("soon", 2), ("now", 0)):
        await engine.ensure("work", key, priority=priority)
    gate.set()
    await idle(engine, "work")
    assert order == ["first", "now", "soon", "late"]


async def test_finished_rows_are_deleted_and_others_are_not(build: Build, url: str) -> None:
    engine = build(beat_seconds=0.1, keep_seconds=0.3)
    gate = asyncio.Event()

    async def body(key: str) -> None:
        if key == "stays":
            await gate.wait()
        if key == "fails":
            raise ValueError

    engine.register("work", body, concurrency=4)
    engine.launch()
    for key in ("stays", "fails", "ends"):
        await engine.ensure("work", key)

    async def swept() -> bool:
        return len(rows(url)) == 1

    await eventually(swept)
    assert [key for _, key, _ in rows(url)] == ["stays"]
    gate.set()


async def test_the_application_version_is_constant(build: Build, url: str) -> None:
    async def body(key: str) -> None: ...

    async def edited(key: str) -> None:
        """Another text: DBOS's own version is a hash of it."""

    for each in (body, edited):
        engine = build()
        engine.register("work", each, concurrency=1)
        engine.launch()
        await engine.ensure("work", "one")
        await idle(engine, "work")
        await engine.close(timeout=1)
    assert {version for _, _, version in rows(url)} == {"batchway-1"}, "work that waits is stuck under any other"


async def test_a_claim_whose_answer_was_lost_is_run(build: Build) -> None:
    engine = build(beat_seconds=0.1, lease_seconds=1, poll_seconds=WAIT)
    ended = asyncio.Event()

    async def body(key: str) -> None:
        ended.set()

    engine.register("work", body, concurrency=1)
    engine.launch()
    durable = engine._durable
    assert durable is not None
    await asyncio.sleep(0.2)  # the first look at the queue, which finds nothing; the next one is far off
    queue, _ = durable._queues["work"]

    def claim() -> list[str]:
        assert durable.start("work", "one", 0)
        return durable._db.start_queued_workflows(queue, durable.executor_id, "batchway-1", None, owner_xid="lost")[0]

    assert len(await asyncio.to_thread(claim)) == 1
    await asyncio.wait_for(ended.wait(), WAIT)
    await idle(engine, "work")


async def test_a_process_without_bodies_can_start_work_for_others(build: Build) -> None:
    ended: list[str] = []

    async def body(key: str) -> None:
        ended.append(key)

    asker = build()
    asker.launch()
    assert await asker.ensure("work", "one")
    assert not await asker.ensure("work", "one")
    await asker.close(timeout=1)
    worker = build()
    worker.register("work", body, concurrency=1)
    worker.launch()
    await idle(worker, "work")
    assert ended == ["one"]


async def test_nothing_listens_and_nothing_is_printed(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    process = psutil.Process(os.getpid())
    before = {c.laddr for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN}
    engine = build()

    async def body(key: str) -> None: ...

    engine.register("work", body, concurrency=1)
    engine.launch()
    await engine.ensure("work", "one")
    await idle(engine, "work")
    after = {c.laddr for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN}
    await engine.close(timeout=1)
    assert after <= before
    assert capfd.readouterr() == ("", "")


async def test_a_second_engine_on_one_folder_is_refused(build: Build, url: str) -> None:
    first = build()
    first.launch()
    second = build()
    with pytest.raises(ConfigError, match=r"in use by another|runs an engine already"):
        second.launch()
    assert first.alive()
    assert await first.ensure("work", "one"), "the first is unharmed"


async def test_sqlite_needs_a_lock() -> None:
    with pytest.raises(ConfigError, match="lock"):
        Engine(database_url="sqlite:///x.db", loop=None, exclusive_lock=None)


@pytest.mark.postgres
async def test_asking_waits_for_a_database_that_is_away(postgres: Postgres) -> None:
    engine = Engine(database_url=postgres.fresh(), loop=None, exclusive_lock=None)
    ended: list[str] = []

    async def body(key: str) -> None:
        ended.append(key)

    engine.register("work", body, concurrency=1)
    engine.launch()
    try:
        await asyncio.to_thread(postgres.stop)
        asked = asyncio.create_task(engine.ensure("work", "one"))
        await asyncio.sleep(0.3)
        assert not asked.done()
        await asyncio.to_thread(postgres.start)
        assert await asyncio.wait_for(asked, WAIT)
        await idle(engine, "work")
    finally:
        await engine.close(timeout=1)
    assert ended == ["one"]
