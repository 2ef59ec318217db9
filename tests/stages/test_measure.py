"""What /metrics reads: the same as a recount, on both databases, without a look at what has ended."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert, select, update

from batchway import metrics, pipeline
from batchway.core.money import PICO
from batchway.db import census
from batchway.db.budgets import set_budget
from batchway.db.schema import USAGE_COLUMNS, batches, costs, holds, jobs, ledger
from batchway.pipeline.measure import KEPT, Gauges, Vitals
from tests.stages.world import NOW, PRICED, UNPRICED, chat, either, world

__all__ = ["either", "world"]

DAY = 86400
VITALS = Vitals(works=True, alive=True, beat_age=1.5, executor={"gamma": (3, 16)})


class Told:
    """The samples of one look, by name and labels."""

    def __init__(self, body: bytes) -> None:
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.samples.get((f"batchway_{name}", frozenset(labels.items())))

    def all(self, name: str) -> list[float]:
        return [value for (found, _), value in self.samples.items() if found == f"batchway_{name}"]


@pytest.fixture
def look(either):
    gauges = Gauges(either.trip, lambda: VITALS)

    async def looked() -> Told:
        either.now += KEPT
        return Told((await gauges.tell(""))[0])

    return looked


async def test_live_batches_jobs_holds_and_ages_are_told_and_ended_ones_are_not(either, look):
    batch_id = await either.prepared(*chat(4))
    waiting = await either.batch(*chat(2))
    held = await either.db.read(lambda tx: tx.execute(select(func.sum(holds.c.amount))).scalar())
    either.now += 100
    told = await look()
    assert (told("batches", state="in_progress"), told("batches", state="validating")) == (1, 1)
    assert told("jobs", state="running") == 1
    assert told("holds_open") == 2
    assert told("held_dollars") == float(held) / PICO
    assert told("oldest_seconds", state="validating") == 100 + KEPT
    assert told("oldest_seconds", state="finalizing") == 0
    assert told("poll_delay_seconds") > 90
    await either.drive(batch_id)
    await either.drive(waiting)
    told = await look()
    assert sum(told.all("batches")) == sum(told.all("jobs")) == 0
    assert told("batches", state="completed") is None
    assert (told("holds_open"), told("holds_stuck")) == (0, 0)
    assert (told("engine_alive"), told("engine_beat_age_seconds")) == (1, 1.5)
    assert (told("executor_in_flight", account="gamma"), told("executor_limit", account="gamma")) == (3, 16)


async def test_a_process_without_an_engine_tells_of_none(either):
    idle = Vitals(works=False, alive=False, beat_age=float("inf"), executor={})
    told = Told((await Gauges(either.trip, lambda: idle).tell(""))[0])
    assert told("engine_alive") is None


async def test_the_sums_are_those_of_the_ledger_and_only_grow(either, look):
    before = (await look()).all("lines_total")
    assert before == []
    for models in ((PRICED,), (UNPRICED, PRICED)):
        await either.drive(await either.batch(*chat(6, *models)))
        told = await look()
        totals = await either.db.read(recount)
        assert sum(told.all("lines_total")) == totals["lines"]
        assert sum(told.all("tokens_total")) == sum(totals[name] for name in USAGE_COLUMNS if name.endswith("_tokens"))
        assert sum(told.all("amount_dollars")) == pytest.approx(int(totals["amount"]) / PICO, rel=1e-12)
        assert told("project_amount_dollars", project="p") == sum(told.all("amount_dollars"))
        either.now += DAY
    assert told("unpriced_entries_total", account="beta", model=UNPRICED, lane="native") == 1
    assert told("lines_total", account="alpha", model=PRICED, lane="native") == 9
    again = Told((await Gauges(either.trip, lambda: VITALS).tell(""))[0])  # another process
    for name in ("lines_total", "tokens_total", "amount_dollars"):
        assert sorted(again.all(name)) == sorted(told.all(name))


def recount(tx):
    sums = [func.coalesce(func.sum(ledger.c[name]), 0).label(name) for name in ("lines", *USAGE_COLUMNS, "amount")]
    return dict(tx.execute(select(*sums)).mappings().one())


def entry(day: int, **values):
    return {
        "day": day, "tag": "", "project": "p", "key_id": "k", "account": "a", "model": "m", "lane": "native",
        "private": False, "entries": 1, "unknown": 0, "lines": 1, "amount": 0, **dict.fromkeys(USAGE_COLUMNS, 0),
    } | values  # fmt: skip


async def test_days_that_are_over_are_read_once(either, monkeypatch):
    today = int(NOW // DAY)
    rows = [entry(day, input_tokens=day) for day in range(today - 400, today + 1, 7)]
    rows += [row | {"tag": "team=x"} for row in rows]
    await either.db.write(lambda tx: tx.execute(insert(costs), rows) and None)
    read: list[int] = []
    sums_of_days = census.sums_of_days

    def noted(tx, days):
        read.extend(days)
        return sums_of_days(tx, days)

    monkeypatch.setattr(census, "sums_of_days", noted)
    gauges = Gauges(either.trip, lambda: VITALS)
    whole = sum(row["input_tokens"] for row in rows if not row["tag"])
    for days, wanted in ((0, 401), (1, 3), (3, 4)):  # two days stay open
        either.now = NOW + days * DAY
        read.clear()
        told = Told((await gauges.tell(""))[0])
        assert told("tokens_total", account="a", model="m", lane="native", type="input") == whole
        assert len(read) == len(set(read)) == wanted


async def test_models_without_end_are_counted_together(either, look):
    today = int(NOW // DAY)
    some = metrics.MOST + 50
    first = [entry(today - 30, model=f"m{number:04}") for number in range(some)]
    later = [entry(today, model=f"n{number:04}", project=f"p{number}") for number in range(some)]
    await either.db.write(lambda tx: tx.execute(insert(costs), first + later) and None)
    told = await look()
    assert len(told.all("lines_total")) == metrics.MOST + 1
    assert len(told.all("project_amount_dollars")) == metrics.MOST + 1
    assert told("lines_total", account="a", model="m0001", lane="native") == 1
    assert told("lines_total", account="other", model="other", lane="other") == 50 + some
    assert sum(told.all("lines_total")) == 2 * some


async def test_budgets_are_those_of_the_present_period(either, look):
    for owner, amount, period in (("gateway", 40, "month"), ("project:p", 10, "day"), ("key:key_1", 2, "day")):
        await either.db.write(set_budget, owner, amount * PICO, period, either.now)
    await either.drive(await either.batch(*chat(6)))
    told = await look()
    amount = told("project_amount_dollars", project="p")
    assert amount
    assert told("budget_dollars", scope="project", project="p", part="settled") == amount
    assert told("budget_dollars", scope="gateway", project="", part="remaining") == pytest.approx(40 - amount)
    assert told("budget_used_ratio", scope="key", project="") == pytest.approx(amount / 2)
    either.now += DAY
    told = await look()
    assert told("budget_dollars", scope="project", project="p", part="settled") == 0
    assert told("budget_used_ratio", scope="key", project="") == 0
    assert told("budget_dollars", scope="gateway", project="", part="settled") == amount


async def test_what_is_stuck_or_late_is_told(either, look):
    batch_id = await either.prepared(*chat(2))
    ended = {"status": "completed", "completed_at": either.now, "finalizing_at": either.now}
    later = await either.prepared(*chat(2))
    await either.db.write(lambda tx: tx.execute(update(batches).where(batches.c.id == batch_id).values(ended)) and None)
    assert (await look())("holds_stuck") == 0
    either.now += census.STUCK_SECONDS
    told = await look()
    assert (told("holds_stuck"), told("batches_near_deadline")) == (1, 0)
    either.now = (await either.row(later))["expires_at"] - 1800
    assert (await look())("batches_near_deadline") == 1


async def test_the_database_is_asked_once_in_a_while_however_many_ask(either, monkeypatch):
    asked = []
    counted = census.census
    monkeypatch.setattr(census, "census", lambda *args: asked.append(1) or counted(*args))
    gauges = Gauges(either.trip, lambda: VITALS)
    for _ in range(5):
        await gauges.tell("")
    assert len(asked) == 1
    either.now += KEPT
    await gauges.tell("")
    assert len(asked) == 2


async def test_a_batch_that_ended_is_counted_with_its_times(either):
    def value(name, **labels):
        return metrics._registry.get_sample_value(f"batchway_{name}", labels) or 0

    seen = value("batches_ended_total", state="completed")
    first = value("batch_first_result_seconds_count")
    spent = value("batch_seconds_sum", state="completed")
    batch_id = await either.ended(*chat(3))
    await either.settle(batch_id)
    await pipeline.finish(either.trip, batch_id)
    row = await either.row(batch_id)
    assert value("batches_ended_total", state="completed") == seen + 1
    assert value("batch_seconds_sum", state="completed") - spent == pytest.approx(
        row["completed_at"] - row["created_at"]
    )
    assert value("batch_first_result_seconds_count") == first + 1


async def test_a_look_goes_by_indexes(world):
    """No time is asserted, the plans are; PostgreSQL rightly scans tables as small as a test's."""
    plans: list[str] = []

    def explained(tx):
        run = tx.connection.driver_connection
        statements: list[str] = []
        run.set_trace_callback(statements.append)
        census.census(tx, ["alpha"], NOW)
        census.present_budgets(tx, NOW)
        census.sums_of_days(tx, [1, 2])
        census.first_day(tx)
        run.set_trace_callback(None)
        for statement in statements:
            if statement.lstrip().upper().startswith("SELECT"):
                plans.extend(row[3] for row in run.execute(f"EXPLAIN QUERY PLAN {statement}"))

    await world.db.read(explained)
    scans = [line for line in plans if line.startswith("SCAN") and not any(
        harmless in line for harmless in ("CONSTANT ROW", "SUBQUERY", "anon_", "USING INDEX holds_open")
    )]  # fmt: skip
    assert plans
    assert scans == [], plans


async def test_thousands_of_live_batches_are_counted_at_once(either):
    batch_id = await either.prepared(*chat(1))
    row = dict(await either.row(batch_id))
    job = dict(await either.job(batch_id))
    hold = {"project": "p", "key_id": "k", "amount": 1, "opened_at": NOW}
    number = 3000

    def fill(tx):
        tx.execute(insert(batches), [row | {"id": f"batch_x{n}"} for n in range(number)])
        tx.execute(
            insert(jobs),
            [job | {"id": f"job_x{n}", "batch_id": f"batch_x{n}", "token": f"x{n}"} for n in range(number)],
        )
        tx.execute(insert(holds), [hold | {"batch_id": f"batch_x{n}"} for n in range(number)])

    await either.db.write(fill)
    gauges = Gauges(either.trip, lambda: VITALS)
    told = Told((await gauges.tell(""))[0])
    assert told("batches", state="in_progress") == number + 1
    assert told("holds_open") == number + 1
