"""An executed batch that has spent what it holds sends nothing more."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from sqlalchemy import select

from batchway.core.states import Outcome
from batchway.db import budgets, chunks, holds, jobs
from batchway.db.schema import chunks as table
from batchway.executor.purse import Purse
from tests.stages.executor_world import QUICK, answer, refusal, world

PRICE = 10  # pico-dollars a good answer


def contents(count: int) -> list[str]:
    return [f"line {number}" for number in range(1, count + 1)]


async def capped(w, job, amount: int, *, limited: bool = True) -> None:
    """The job's batch holds so much; a budget applies to it unless it is not `limited`."""
    w.executor._tools = replace(w.executor._tools, meter_of=lambda *_: lambda _: PRICE)
    if limited:
        await w.db.write(budgets.set_budget, "key:k", amount, "total", time.time())
    batch = {"id": job.batch_id, "project": "p", "key_id": "k"}
    await w.db.write(holds.open_hold, batch, amount, time.time())


async def codes(w, job) -> list[str | None]:
    found = [json.loads(one.line) for one in await w.answers(job)]
    return sorted((line["error"] or {}).get("code", "ok") for line in found)


async def spent(w) -> int:
    return sum(await w.db.read(lambda tx: tx.execute(select(table.c.spent)).scalars().all()))


async def test_nothing_is_sent_once_the_hold_is_spent_and_the_job_ends_well(tmp_path):
    async with world(tmp_path, concurrency=4) as w:
        job = await w.job(contents(700))
        await capped(w, job, 20 * PRICE)
        await w.submit(job)
        await w.finished(job)
        assert 20 <= sum(w.server.seen.values()) < 20 + 4
        sent = len(w.server.seen)
        assert await codes(w, job) == ["budget_exceeded"] * (700 - sent) + ["ok"] * sent
        look = await w.provider.look(job)
        assert (look.outcome, look.counts.completed, look.counts.failed) == (Outcome.SUCCEEDED, sent, 700 - sent)
        assert await spent(w) == sent * PRICE


async def test_a_hold_that_suffices_stops_nothing(tmp_path):
    async with world(tmp_path) as w:
        job = await w.job(contents(300))
        await capped(w, job, 300 * PRICE)
        await w.submit(job)
        await w.finished(job)
        assert await codes(w, job) == ["ok"] * 300
        assert await spent(w) == 300 * PRICE


@pytest.mark.parametrize("why", ["no budget", "nothing costs"])
async def test_what_no_budget_limits_or_costs_nothing_goes_on(tmp_path, why):
    async with world(tmp_path) as w:
        job = await w.job(contents(100))
        await capped(w, job, 0, limited=why != "no budget")
        if why == "nothing costs":
            w.executor._tools = replace(w.executor._tools, meter_of=lambda *_: lambda _: 0)
        await w.submit(job)
        await w.finished(job)
        assert await codes(w, job) == ["ok"] * 100


async def test_lines_that_fail_cost_nothing(tmp_path):
    async def behave(content, _):
        return refusal(400) if int(content.split()[1]) <= 50 else answer()

    async with world(tmp_path, behave, concurrency=1) as w:
        job = await w.job(contents(60))
        await capped(w, job, 10 * PRICE)
        await w.submit(job)
        await w.finished(job)
        assert sum(w.server.seen.values()) == 60


async def test_a_line_that_waits_for_its_next_try_is_not_sent_again(tmp_path):
    async def behave(content, time_seen):
        return refusal(500) if content == "line 1" else answer()

    tuning = replace(QUICK, line=replace(QUICK.line, attempts=2, base=30.0, cap=30.0))
    async with world(tmp_path, behave, concurrency=1, tuning=tuning) as w:
        job = await w.job(contents(20))
        await capped(w, job, 5 * PRICE)
        await w.submit(job)
        await w.finished(job)
        assert w.server.seen["line 1"] == 1
        assert await codes(w, job) == ["budget_exceeded"] * 15 + ["ok"] * 5


async def test_a_budget_is_spent_by_all_jobs_of_a_batch_and_by_native_ones(tmp_path):
    async with world(tmp_path, concurrency=1) as w:
        job = await w.job(contents(50))
        await capped(w, job, 20 * PRICE)
        row = {key: value for key, value in dict(await w.db.read(jobs.get, job.id)).items() if value is not None}
        native = row | {"id": "native", "token": "t", "ordinal": 1, "lane": "native", "amount": 15 * PRICE}
        await w.db.write(lambda tx: tx.execute(jobs.jobs.insert().values(native)))
        await w.submit(job)
        await w.finished(job)
        assert sum(w.server.seen.values()) == 5


async def test_what_an_earlier_owner_stored_is_spent(tmp_path):
    async with world(tmp_path, concurrency=1) as w:
        job = await w.job(contents(30))
        await capped(w, job, 10 * PRICE)
        await w.submit(job)
        await w.finished(job)
        again = await w.job(contents(5))
        await w.db.write(jobs.note, again.id, {"batch_id": job.batch_id, "ordinal": 1})
        await w.submit(again)
        await w.finished(again)
        assert sum(w.server.seen.values()) == 10
        assert await w.db.read(chunks.spent, job.batch_id) == 10 * PRICE


async def test_other_batches_go_on(tmp_path):
    async with world(tmp_path, concurrency=2) as w:
        poor, rich = await w.job(contents(300)), await w.job(contents(300))
        await capped(w, poor, 10 * PRICE)
        await capped(w, rich, 10**9)
        await asyncio.gather(w.submit(poor), w.submit(rich))
        await w.finished(poor)
        await w.finished(rich)
        assert await codes(w, rich) == ["ok"] * 300
        assert (await codes(w, poor)).count("ok") < 15


def test_a_purse_without_a_limit_is_never_empty():
    purse = Purse(None, 0)
    purse.fresh = 10**12
    assert not purse.empty
    purse.renew(10, 4)
    purse.fresh = 6
    assert purse.empty
