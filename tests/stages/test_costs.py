from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select, text

from batchway.core.errors import Conflict, NotFound, RequestError
from batchway.core.principal import Sight
from batchway.core.states import BatchState
from batchway.core.usage import Usage
from batchway.db import budgets, costs, holds, ledger
from batchway.db.costs import DAY, Asked
from batchway.db.engine import Database
from batchway.db.outbox import of_subject
from batchway.db.schema import costs as table
from batchway.db.schema import ledger as entries
from batchway.db.transitions import create_batch, move_batch
from batchway.pipeline import costs as reading
from batchway.pipeline.corrections import correct
from batchway.wire.costs import CorrectionCreate, CostQuery
from tests.postgres import postgres
from tests.stages.world import blank, chat, either, emptied

__all__ = ["either", "postgres"]

NOW = 1_790_000_000.0
TODAY = int(NOW // DAY)
ROOT = Path(__file__).resolve().parents[2]
BATCH = {
    "project": "p",
    "key_id": "key_1",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-1",
    "completion_window": "24h",
    "window_seconds": 86400,
    "expires_at": NOW + 86400,
}
PAIRS = {f"name-{number}": "v" for number in range(16)}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request, tmp_path):
    (tmp_path / "db").write_bytes(blank())
    on_postgres = request.param == "postgresql"
    opened = Database(emptied(request.getfixturevalue("postgres")) if on_postgres else f"sqlite:///{tmp_path}/db")
    for number, names in enumerate((PAIRS, dict(reversed(PAIRS.items())), None)):
        opened.write_now(create_batch, NOW, BATCH | {"id": f"batch_{number}", "metadata": names})
    yield opened
    opened.close()


def entry(job_id: str = "job_1", batch_id: str = "batch_0", **changes) -> ledger.Entry:
    fields = {"project": "p", "key_id": "key_1", "account": "acc", "model": "m", "lane": "native", "lines": 3}
    usage = Usage(input_tokens=100, output_tokens=20)
    return ledger.Entry(
        **{"job_id": job_id, "batch_id": batch_id, "first_line": 1, "usage": usage, **fields, **changes}
    )


def sums(tx, tag: str = "") -> list[tuple[int, int, int]]:
    """(entries, unknown, amount) of each row of a tag."""
    query = select(table.c.entries, table.c.unknown, table.c.amount).where(table.c.tag == tag)
    return [tuple(row) for row in tx.execute(query.order_by(table.c.day))]


def asked(**changes) -> Asked:
    return Asked(**{"days": range(TODAY, TODAY + 1), "sight": None, **changes})


# Posting --------------------------------------------------------------------------------------------------------------


async def test_an_entry_is_in_the_total_and_in_one_sum_for_each_pair_of_metadata(db) -> None:
    await db.write(ledger.post, entry(), 5, "s", NOW)
    await db.write(ledger.post, entry("job_2"), 7, "s", NOW)
    await db.write(ledger.post, entry("job_3", "batch_2"), 9, "s", NOW)
    assert await db.read(sums) == [(3, 0, 21)]
    for name in PAIRS:
        assert await db.read(sums, f"{name}=v") == [(2, 0, 12)]


async def test_a_day_is_a_day_of_utc(db) -> None:
    for number, at in enumerate((TODAY * DAY, TODAY * DAY + DAY - 1e-6, TODAY * DAY + DAY)):
        await db.write(ledger.post, entry(f"job_{number}"), 1, "s", at)
    assert await db.read(sums) == [(2, 0, 2), (1, 0, 1)]


async def test_an_unknown_price_is_counted_and_is_no_zero(db) -> None:
    await db.write(ledger.post, entry(), None, None, NOW)
    await db.write(ledger.post, entry("job_2"), 7, "s", NOW)
    assert await db.read(sums) == [(2, 1, 7)]


async def test_a_post_that_is_rolled_back_is_in_no_sum(db) -> None:
    def post_and_fail(tx) -> None:
        assert ledger.post(tx, entry(), 5, "s", NOW)
        raise RuntimeError("the process died here")

    with pytest.raises(RuntimeError):
        await db.write(post_and_fail)
    assert await db.read(sums) == []


async def test_a_name_with_an_equals_sign_is_not_mixed_up_with_another(db) -> None:
    for batch_id, pair in (("batch_a", {"a": "b=c"}), ("batch_b", {"a=b": "c"}), ("batch_c", {"a%3Db": "c"})):
        await db.write(create_batch, NOW, BATCH | {"id": batch_id, "metadata": pair})
        await db.write(ledger.post, entry(batch_id, batch_id), 1, "s", NOW)
    found = await db.read(reading.results, asked(by_tags=("a",)))
    assert {one.tags["a"]: one.figures["entries"] for one in found[TODAY]} == {"b=c": 1, None: 2}


async def test_values_too_long_for_an_index_are_summed_up_by_their_hash(db) -> None:
    long = "漢" * 512
    for number, value in enumerate((long, long, long[:-1] + "x")):
        await db.write(create_batch, NOW, BATCH | {"id": f"batch_{number}x", "metadata": {"n" * 64: value}})
        await db.write(ledger.post, entry(f"job_{number}", f"batch_{number}x", project="p" * 256), 1, "s", NOW)
    found = await db.read(reading.results, asked(by_tags=("n" * 64,)))
    assert sorted(one.figures["entries"] for one in found[TODAY]) == [1, 2]
    found = await db.read(reading.results, asked(pairs={"n" * 64: long}))
    assert [one.figures["entries"] for one in found[TODAY]] == [2]


@pytest.mark.postgres
def test_four_processes_that_post_at_once_lose_nothing_and_never_wait_in_a_circle(postgres) -> None:
    url = postgres.fresh()
    db = Database(url)
    for number, names in enumerate((PAIRS, dict(reversed(PAIRS.items())), None)):
        db.write_now(create_batch, NOW, BATCH | {"id": f"batch_{number}", "metadata": names})
    command = [sys.executable, "-m", "tests.stages.cost_poster", url]
    processes = [subprocess.Popen([*command, name, "60"], cwd=ROOT) for name in "abcd"]
    assert [process.wait(100) for process in processes] == [0] * 4
    for tag in ("", "name-3=v"):
        posted = "select count(*) from ledger" + (" where batch_id <> 'batch_2'" if tag else "")
        count = db.write_now(lambda tx, query=posted: tx.execute(text(query)).scalar_one())
        found = db.write_now(sums, tag)
        assert sum(row[0] for row in found) == count
        assert sum(row[2] for row in found) == 3 * count
    db.close()


# Reading --------------------------------------------------------------------------------------------------------------


async def test_too_many_entries_are_refused_with_what_to_do(db, monkeypatch) -> None:
    monkeypatch.setattr(reading, "MOST", 2)
    for number in range(3):
        await db.write(ledger.post, entry(f"job_{number}", model=f"m{number}"), 1, "s", NOW)
    for columns in (("batch_id",), ("model",)):
        with pytest.raises(RequestError, match=r"More than 2 .* Ask for fewer days") as refused:
            await db.read(reading.results, asked(columns=columns))
        assert refused.value.code == "too_many_results"
    found = await db.read(reading.results, asked(columns=("model",), equal={"model": ["m1", "m2"]}))
    assert len(found[TODAY]) == 2


async def test_single_batches_are_read_by_an_index_and_never_by_a_scan(db) -> None:
    if not db.is_sqlite:
        pytest.skip("an empty PostgreSQL always scans")
    plans: list[str] = []

    def explain(tx) -> None:
        real, tx.execute = tx.execute, None

        def planned(query, *_args):
            compiled = query.compile(tx.engine, compile_kwargs={"literal_binds": True})
            plans.extend(row[3] for row in real(text(f"explain query plan {compiled}")))
            return ()

        tx.execute = planned
        days = range(TODAY, TODAY + 7)
        for question in (
            asked(days=days, columns=("batch_id",)),
            asked(days=days, columns=("batch_id",), sight=Sight("p", "key_1")),
            asked(days=days, equal={"batch_id": ["batch_1"]}),
            asked(days=days, columns=("model",)),
            asked(days=days, columns=("model",), by_tags=("team",)),
            asked(days=days, sight=Sight("p", "key_1")),
        ):
            reading.results(tx, question)

    await db.read(explain)
    assert plans
    assert not [plan for plan in plans if plan.startswith("SCAN")]
    assert any("ledger_of_project" in plan for plan in plans)
    assert any("ix_ledger_batch_id" in plan for plan in plans)


@pytest.mark.parametrize(
    ("query", "days", "following"),
    [
        ({}, range(TODAY - 6, TODAY + 1), None),
        ({"start_time": int(NOW) - 2 * DAY}, range(TODAY - 2, TODAY + 1), None),
        ({"start_time": 100 * DAY + 5, "end_time": 109 * DAY}, range(100, 107), 107),
        ({"start_time": 100 * DAY, "end_time": 109 * DAY, "page": "page_107"}, range(107, 109), None),
        ({"start_time": 100 * DAY, "end_time": 100 * DAY + 1}, range(100, 101), None),
    ],
)
def test_a_page_is_of_whole_days(query, days, following) -> None:
    found = reading.span(CostQuery(**query), NOW, 7)
    assert (found.days, found.following) == (days, following)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start_time": 5 * DAY, "end_time": 5 * DAY}, "end_time"),
        ({"start_time": int(NOW) + 3 * DAY}, "end_time"),
        ({"page": "7"}, "page"),
        ({"page": "page_1"}, "page"),
    ],
)
def test_a_span_without_days_is_refused(query, param) -> None:
    with pytest.raises(RequestError) as refused:
        reading.span(CostQuery(**query), NOW, 7)
    assert refused.value.param == param


# Corrections ----------------------------------------------------------------------------------------------------------


def ended(tx, batch_id: str = "batch_0") -> None:
    holds.open_hold(tx, BATCH | {"id": batch_id}, 100, NOW)
    ledger.post(tx, entry("job_1", batch_id), 60, "s", NOW)
    holds.settle_hold(tx, batch_id, NOW)
    move_batch(tx, batch_id, BatchState.VALIDATING, BatchState.FAILED, NOW)


def wish(**changes) -> CorrectionCreate:
    return CorrectionCreate(**{"batch_id": "batch_0", "amount_usd": "-0.00000000002", "note": "invoice 7", **changes})


def ids(prefix: str) -> str:
    return f"{prefix}1"


async def test_a_correction_is_an_entry_that_sums_budget_hold_and_event_agree_with(db) -> None:
    await db.write(budgets.set_budget, "project:p", 10**6, "total", NOW)
    await db.write(ended)
    made, new = await db.write(correct, wish(kind="refund"), NOW + DAY, ids)
    assert (made.amount_usd, made.corrections_usd, made.reference, new) == (
        "-0.00000000002",
        "-0.00000000002",
        "correction_1",
        True,
    )
    _, row = await db.read(ledger.of_batch, "batch_0")
    assert (row["kind"], row["amount"], row["note"], row["project"], row["key_id"]) == (
        "refund",
        -20,
        "invoice 7",
        "p",
        "key_1",
    )
    assert await db.read(sums) == [(1, 0, 60), (1, 0, -20)]
    assert (await db.read(budgets.budget_of, "project:p", NOW)).settled == 40
    assert await db.read(budgets.check) == []
    told = (await db.read(of_subject, "batch_0"))[-1]
    assert (told.type, told.data["amount"], told.data["amount_usd"]) == ("cost.corrected", -20, "-0.00000000002")
    assert await db.read(costs.corrections, ["batch_0", "batch_1"]) == {"batch_0": -20}


async def test_a_reference_is_posted_once_whoever_repeats_it(db) -> None:
    await db.write(ended)
    done = await asyncio.gather(*(db.write(correct, wish(reference="r"), NOW, ids) for _ in range(8)))
    assert sorted(new for _, new in done) == [False] * 7 + [True]
    assert len({msgspec.json.encode(made) for made, _ in done}) == 1
    assert sum(row[2] for row in await db.read(sums)) == 40
    for changed in ({"amount_usd": "-1"}, {"kind": "refund"}):
        with pytest.raises(Conflict, match="reference"):
            await db.write(correct, wish(reference="r", **changed), NOW, ids)
    await db.write(ended, "batch_1")
    assert (await db.write(correct, wish(reference="r", batch_id="batch_1"), NOW, ids))[1]


async def test_a_batch_that_has_not_ended_is_not_corrected(db) -> None:
    with pytest.raises(Conflict, match="after its end"):
        await db.write(correct, wish(), NOW, ids)
    with pytest.raises(NotFound):
        await db.write(correct, wish(batch_id="batch_x"), NOW, ids)
    assert await db.read(lambda tx: tx.execute(select(entries)).all()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"amount_usd": text_}
        for text_ in ("0", "-0.0", "1e3", "NaN", "", "1.0000000000001", "٣", "1000000.01", "-9999999", " 1", "1\n")
    ]
    + [{"amount_usd": "1", "kind": "refund"}],
)
async def test_an_amount_that_is_none_is_refused(db, fields) -> None:
    await db.write(ended)
    with pytest.raises(RequestError) as refused:
        await db.write(correct, wish(**fields), NOW, ids)
    assert refused.value.param == "amount_usd"


async def test_a_correction_takes_the_route_that_it_can_only_be_about(either) -> None:
    batch_id = await either.ended(*chat(6, "gpt-4o-mini", "odd-model"))
    assert await either.drive(batch_id) == "completed"
    before = await either.row(batch_id)
    for number, (said, account, model, lane) in enumerate(
        [
            ({}, None, None, "native"),
            ({"provider": "alpha"}, "alpha", "gpt-4o-mini", "native"),
            ({"model": "odd-model"}, "beta", "odd-model", "native"),
        ]
    ):
        wanted = wish(batch_id=batch_id, reference=str(number), amount_usd="1", **said)
        made, _ = await either.db.write(correct, wanted, NOW, ids)
        assert (made.provider, made.model) == (account, model)
        assert (await either.entries(batch_id))[-1]["lane"] == lane
    with pytest.raises(RequestError, match="its jobs are of: alpha/gpt-4o-mini, beta/odd-model"):
        await either.db.write(correct, wish(batch_id=batch_id, provider="gamma"), NOW, ids)
    assert made.corrections_usd == "3"
    after = await either.row(batch_id)
    assert (before["amount"], before["usage"]) == (after["amount"], after["usage"])
