from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import func, select

from batchway.core.money import PICO
from batchway.core.usage import Usage
from batchway.db import batches, holds, ledger
from batchway.db.engine import Database
from batchway.db.schema import ledger as entries
from batchway.db.transitions import create_batch
from tests.postgres import postgres

__all__ = ["postgres"]

NOW = 1_790_000_000.0
USAGE = Usage(input_tokens=100, cached_tokens=40, cache_write_tokens=10, output_tokens=20, reasoning_tokens=5)
BATCH = {
    "id": "batch_1",
    "project": "p",
    "key_id": "key_1",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-1",
    "completion_window": "24h",
    "window_seconds": 86400,
    "expires_at": NOW + 86400,
}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request, tmp_path):
    on_postgres = request.param == "postgresql"
    database = Database(request.getfixturevalue("postgres").fresh() if on_postgres else f"sqlite:///{tmp_path}/db")
    for batch_id in ("batch_1", "batch_2"):
        database.write_now(create_batch, NOW, BATCH | {"id": batch_id})
    yield database
    database.close()


def entry(job_id: str = "job_1", **changes) -> ledger.Entry:
    fields = {"batch_id": "batch_1", "project": "p", "key_id": "key_1", "account": "acc", "model": "m"}
    return ledger.Entry(
        **{**fields, "job_id": job_id, "lane": "native", "first_line": 1, "lines": 3, "usage": USAGE, **changes}
    )


# The ledger -----------------------------------------------------------------------------------------------------------


async def test_an_entry_holds_what_was_posted(db) -> None:
    assert await db.write(ledger.post, entry(), 12_345, "a table (2026-11-22)", NOW)
    (row,) = await db.read(ledger.of_batch, "batch_1")
    expected = msgspec.structs.asdict(entry()) | msgspec.structs.asdict(USAGE)
    del expected["usage"]
    expected |= {"kind": "usage", "amount": 12_345, "price_source": "a table (2026-11-22)", "created_at": NOW}
    assert {name: row[name] for name in expected} == expected


async def test_a_jobs_usage_is_billed_once_whoever_posts_it_and_however_often(db) -> None:
    assert await db.write(ledger.post, entry(), 5, "first", NOW)
    assert not await db.write(ledger.post, entry(), 5, "first", NOW)
    assert not await db.write(ledger.post, entry(lines=99), 7, "second", NOW + 1)
    (row,) = await db.read(ledger.of_batch, "batch_1")
    assert (row["amount"], row["lines"], row["price_source"], row["created_at"]) == (5, 3, "first", NOW)


async def test_of_many_who_post_at_once_one_succeeds(db) -> None:
    posted = await asyncio.gather(*(db.write(ledger.post, entry(), 5, "s", NOW) for _ in range(20)))
    assert sorted(posted) == [False] * 19 + [True]


async def test_other_jobs_and_other_models_are_other_entries_in_the_order_posted(db) -> None:
    for posted in (entry("job_2"), entry("job_1"), entry("job_1", model="n"), entry("job_9", batch_id="batch_2")):
        assert await db.write(ledger.post, posted, 1, "s", NOW)
    rows = await db.read(ledger.of_batch, "batch_1")
    assert [(row["job_id"], row["model"]) for row in rows] == [("job_2", "m"), ("job_1", "m"), ("job_1", "n")]
    assert not await db.read(ledger.of_batch, "batch_3")


async def test_a_post_that_is_rolled_back_leaves_nothing_and_can_be_repeated(db) -> None:
    def post_and_fail(tx) -> None:
        assert ledger.post(tx, entry(), 5, "s", NOW)
        holds.open_hold(tx, BATCH, 5, NOW)
        raise RuntimeError("the process died here")

    with pytest.raises(RuntimeError):
        await db.write(post_and_fail)
    assert not await db.read(ledger.of_batch, "batch_1")
    assert not await db.read(holds.open_holds)
    assert await db.write(ledger.post, entry(), 5, "s", NOW)


async def test_an_unknown_amount_stays_unknown_and_is_no_zero(db) -> None:
    assert await db.write(ledger.post, entry(), None, None, NOW)
    assert not await db.write(ledger.post, entry(), 5, "later", NOW)
    (row,) = await db.read(ledger.of_batch, "batch_1")
    assert row["amount"] is None
    assert await db.read(batches.amounts, "batch_1") == (None, False)
    assert await db.write(ledger.post, entry("job_2"), 7, "s", NOW)
    assert await db.read(batches.amounts, "batch_1") == (7, False)


async def test_a_million_dollars_is_exact_to_the_pico_dollar(db) -> None:
    amount = 1_000_000 * PICO + 1
    assert await db.write(ledger.post, entry(), amount, "s", NOW)
    (row,) = await db.read(ledger.of_batch, "batch_1")
    assert row["amount"] == amount
    assert await db.read(batches.amounts, "batch_1") == (amount, True)


# Holds ----------------------------------------------------------------------------------------------------------------


async def test_a_hold_is_open_until_it_is_settled(db) -> None:
    await db.write(holds.open_hold, BATCH, 100, NOW)
    (row,) = await db.read(holds.open_holds)
    assert (row["batch_id"], row["project"], row["amount"], row["opened_at"]) == ("batch_1", "p", 100, NOW)
    await db.write(holds.settle_hold, "batch_1", NOW + 5)
    assert not await db.read(holds.open_holds)


async def test_opening_again_changes_nothing(db) -> None:
    await db.write(holds.open_hold, BATCH, 100, NOW)
    await db.write(holds.open_hold, BATCH, 200, NOW + 1)
    (row,) = await db.read(holds.open_holds)
    assert (row["amount"], row["opened_at"]) == (100, NOW)


async def test_a_settled_hold_is_neither_settled_nor_opened_again(db) -> None:
    await db.write(holds.open_hold, BATCH, 100, NOW)
    await db.write(ledger.post, entry(), 60, "s", NOW)
    await db.write(holds.settle_hold, "batch_1", NOW + 5)
    await db.write(ledger.post, entry("job_2"), 39, "s", NOW)
    await db.write(holds.settle_hold, "batch_1", NOW + 9)
    await db.write(holds.open_hold, BATCH, 100, NOW + 10)
    assert not await db.read(holds.open_holds)
    row = await db.read(lambda tx: tx.execute(select(holds.holds)).mappings().one())
    assert (row["amount"], row["settled_at"], row["settled_amount"]) == (100, NOW + 5, 60)


async def test_settling_without_a_hold_does_nothing(db) -> None:
    await db.write(holds.settle_hold, "batch_1", NOW)
    assert await db.read(lambda tx: tx.execute(select(func.count()).select_from(holds.holds)).scalar_one()) == 0
    assert await db.read(lambda tx: tx.execute(select(func.count()).select_from(entries)).scalar_one()) == 0


async def test_a_hold_of_an_unknown_amount_is_a_hold(db) -> None:
    await db.write(holds.open_hold, BATCH, None, NOW)
    (row,) = await db.read(holds.open_holds)
    assert row["amount"] is None
    await db.write(holds.settle_hold, "batch_1", NOW + 1)
    assert not await db.read(holds.open_holds)


async def test_open_holds_come_oldest_first(db) -> None:
    await db.write(holds.open_hold, BATCH | {"id": "batch_2"}, 1, NOW)
    await db.write(holds.open_hold, BATCH, 1, NOW + 1)
    assert [row["batch_id"] for row in await db.read(holds.open_holds)] == ["batch_2", "batch_1"]
