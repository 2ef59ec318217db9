from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace

from batchway.core.states import Outcome
from batchway.db import chunks, segments
from batchway.executor.chunks import plan
from tests.stages.executor_world import QUICK, ModelServer, World, answer, until, world


def contents(count):
    return [f"line {number}" for number in range(1, count + 1)]


async def child(folder, server):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.stages.executor_world",
        str(folder),
        server.base_url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_after_kill_9_only_what_was_in_flight_or_unstored_is_sent_again(tmp_path):
    server = ModelServer()

    async def behave(content, _):
        await asyncio.sleep(0.01)
        return answer()

    server.behave = behave
    async with server.serving():
        planner = World(tmp_path, server.base_url)
        job = await planner.job(contents(600))
        await planner.submit(job)
        for kill_at in (100, 350):
            process = await child(tmp_path, server)
            await until(lambda kill_at=kill_at: len(server.seen) >= kill_at)
            process.kill()
            await process.wait()
        process = await child(tmp_path, server)
        open_chunks = lambda: planner.db.write_now(chunks.progress, job.id).open  # noqa: E731
        await until(lambda: open_chunks() == 0, timeout=20)
        look = await planner.provider.look(job)
        process.kill()
        await process.wait()
        answers = await planner.answers(job)
        await planner.stop()
    assert (look.outcome, look.counts.completed, look.counts.failed) == (Outcome.SUCCEEDED, 600, 0)
    assert sorted(a.custom_id for a in answers) == sorted(f"c{n}" for n in range(1, 601))
    in_flight, unstored = 8, QUICK.segment_lines + 8  # of two chunks at most: one ends while the next begins
    assert sum(server.seen.values()) - 600 <= 2 * (in_flight + 2 * unstored)


async def test_a_polite_restart_stores_what_was_in_flight_and_repeats_nothing(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(0.2)
        return answer()

    async with world(tmp_path, behave) as first:
        job = await first.job(contents(30))
        await first.submit(job)
        await until(lambda: len(first.server.seen) >= 12)
        first.patience = 5.0
        first.executor.leave()
    seen = first.server.seen
    async with world(tmp_path, behave) as second:
        await second.finished(job)
        look = await second.provider.look(job)
        seen.update(second.server.seen)
        assert (look.outcome, look.counts.completed) == (Outcome.SUCCEEDED, 30)
        assert set(seen.values()) == {1}


async def test_a_zombie_with_an_old_token_cannot_store_a_segment(tmp_path):
    release = asyncio.Event()

    async def behave(content, _):
        await release.wait()
        return answer()

    async with world(tmp_path, behave, tuning=replace(QUICK, tick=60.0, segment_lines=2)) as w:
        job = await w.job(contents(4))
        await w.submit(job)
        await until(lambda: w.server.open == 4)
        successor = await w.db.write(chunks.begin, f"{job.id}.0")
        assert successor is not None
        assert successor.token == 2
        release.set()
        await until(lambda: not w.executor._runs)
        assert await w.db.read(segments.of_job, job.id) == []
        assert [key async for key in w.storage.list("segments")] == []
        assert (await w.provider.look(job)).counts.completed == 0
        assert w.ended == []
        # The successor's own run finds nothing stored, and does it all.
        await w.executor.run_chunk(successor.id)
        assert (await w.provider.look(job)).counts.completed == 4


async def test_a_process_that_lost_its_chunk_hears_of_it_and_sends_nothing_more(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(20)
        return answer()

    async with world(tmp_path, behave, concurrency=2) as w:
        job = await w.job(contents(10))
        await w.submit(job)
        await until(lambda: w.server.open == 2)
        await w.db.write(chunks.begin, f"{job.id}.0")
        await until(lambda: not w.executor._runs, timeout=2)
        assert sum(w.server.seen.values()) == 2


async def test_a_process_without_its_lease_sends_nothing_and_goes_on_when_it_is_back(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(0.05)
        return answer()

    async with world(tmp_path, behave, concurrency=4) as w:
        job = await w.job(contents(60))
        await w.submit(job)
        await until(lambda: len(w.server.seen) >= 8)
        lease, alive = w.engine._lease, w.engine._lease.alive
        lease.alive = lambda: False
        sent = sum(w.server.seen.values())
        await until(lambda: not w.executor._runs)
        await asyncio.sleep(0.3)
        assert sum(w.server.seen.values()) == sent
        assert (await w.provider.look(job)).outcome is None
        lease.alive = alive
        await w.finished(job)
        assert set(w.server.seen.values()) == {1}
        assert (await w.provider.look(job)).counts.completed == 60


async def test_a_chunk_that_the_engine_lost_is_ensured_again(tmp_path):
    async with world(tmp_path, tuning=replace(QUICK, overdue=0.3)) as w:
        job = await w.job(contents(3))
        await plan(w.db, w.storage, QUICK, job)
        await w.db.write(chunks.queued, [f"{job.id}.0"], time.time())  # noted as queued, and never ensured
        await w.finished(job)
        assert (await w.provider.look(job)).outcome is Outcome.SUCCEEDED
