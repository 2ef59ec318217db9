"""A database of version 1 with work of every kind in it becomes one of version 2, and its work goes on.

`v1_sqlite.sql` and `v1_postgresql.sql` are the tables of version 1; `v1.json` holds their rows, the stored objects and
what the providers had, made by version 1's own code: batches that ended well, in part without a price and with faults;
one running, one ended, one collected, one to be cancelled, one to be validated.
"""

from __future__ import annotations

import base64
import copy
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchway.core.answers import Stored, unpack
from batchway.core.states import FINAL_BATCH_STATES, Outcome
from batchway.db import budgets, census, costs, holds, keys, outbox
from batchway.db.engine import Database, driver_url
from batchway.db.migrations import VERSION
from batchway.db.schema import ledger, metadata
from batchway.providers.protocol import Answer
from tests.stages.memory_provider import Remote
from tests.stages.world import World

HERE = Path(__file__).parent
OLD: dict[str, Any] = json.loads((HERE / "v1.json").read_text())
BATCHES: dict[str, str] = OLD["batches"]
PARENTS = "meta keys files file_faults uploads upload_parts batches jobs chunks".split()


def old_rows(table: str) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        return base64.b64decode(value["base64"]) if isinstance(value, dict) and set(value) == {"base64"} else value

    return [{name: plain(value) for name, value in row.items()} for row in OLD["tables"][table]]


def make_old(url: str) -> None:
    """The tables and rows of version 1."""
    engine = sa.create_engine(driver_url(url))
    made = (HERE / f"v1_{engine.dialect.name}.sql").read_text()
    with engine.begin() as tx:
        for statement in filter(str.strip, made.split(";\n")):
            tx.exec_driver_sql(statement)
    seen = sa.MetaData()
    seen.reflect(engine)
    with engine.begin() as tx:
        for table in sorted(seen.tables, key=lambda name: PARENTS.index(name) if name in PARENTS else 99):
            for row in old_rows(table):
                tx.execute(sa.insert(seen.tables[table]).values(row))
        if engine.dialect.name == "postgresql":
            for table, column in (("segments", "id"), ("ledger", "id"), ("outbox", "seq")):
                tx.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), (SELECT max({column}) FROM {table}))"
                )
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").fresh()
    return f"sqlite:///{tmp_path / 'db'}"


@asynccontextmanager
async def migrated(url: str, root: Path):
    """The world that version 1 left, opened by version 2."""
    make_old(url)
    for name, data in OLD["objects"].items():
        path = root / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
    world = World(url, root)
    world.now = OLD["now"] + 60
    for name, jobs in copy.deepcopy(OLD["remotes"]).items():
        for job in jobs:
            remote = Remote(job["id"], job["token"], [(custom_id, raw.encode()) for custom_id, raw in job["lines"]])
            remote.outcome, remote.status = job["outcome"] and Outcome(job["outcome"]), job["status"]
            remote.answers = [Answer(custom_id, ok, text.encode()) for custom_id, ok, text in job["answers"]]
            getattr(world, name).jobs[remote.id] = remote
    try:
        yield world
    finally:
        await world.close()


def shape(url: str) -> dict[str, Any]:
    """All that inspection tells of the tables."""
    engine = sa.create_engine(driver_url(url))
    known = sa.inspect(engine)
    found: dict[str, Any] = {}
    for table in sorted(known.get_table_names()):
        found[table] = {
            "columns": [
                {name: str(value) for name, value in column.items() if name != "comment"}
                for column in known.get_columns(table)
            ],
            "primary key": known.get_pk_constraint(table),
            "unique": sorted(map(str, known.get_unique_constraints(table))),
            "foreign keys": sorted(map(str, known.get_foreign_keys(table))),
            "checks": sorted(map(str, known.get_check_constraints(table))),
            "indexes": sorted(json.dumps(index, sort_keys=True, default=str) for index in known.get_indexes(table)),
        }
        if engine.dialect.name == "sqlite":  # also what inspection does not tell, such as WITHOUT ROWID
            with engine.connect() as tx:
                listed = sa.text("SELECT name, sql FROM sqlite_master WHERE tbl_name = :table AND sql IS NOT NULL")
                texts = [(name, " ".join(text.split())) for name, text in tx.execute(listed, {"table": table})]
                found[table]["sql"] = sorted(texts)
    found["schemas"] = [name for name in known.get_schema_names() if name.startswith("batchway")]
    engine.dispose()
    return found


def test_a_migrated_database_has_the_shape_of_a_new_one(url: str, tmp_path: Path, request: pytest.FixtureRequest):
    make_old(url)
    Database(url).close()
    new = f"sqlite:///{tmp_path / 'new'}" if "sqlite" in url else request.getfixturevalue("postgres").fresh()
    Database(new).close()
    ours, fresh = shape(url), shape(new)
    assert set(ours) == set(fresh)
    for table in fresh:
        assert ours[table] == fresh[table], table


async def test_nothing_is_lost_and_the_new_columns_are_filled(url: str, tmp_path: Path):
    async with migrated(url, tmp_path) as world:
        for table in metadata.sorted_tables:
            if table.name not in OLD["tables"] or table.name == "meta":
                continue
            now = [
                dict(row) for row in await world.db.read(lambda tx, t=table: tx.execute(sa.select(t)).mappings().all())
            ]
            before = old_rows(table.name)
            assert len(now) == len(before), table.name
            kept = [name for name in before[0] if name in table.c]
            assert sorted(str([row[name] for name in kept]) for row in now) == sorted(
                str([row[name] for name in kept]) for row in before
            ), table.name
        version = await world.db.read(
            lambda tx: tx.execute(sa.text("SELECT value FROM meta WHERE key = 'schema_version'")).scalar()
        )
        assert version == str(VERSION)
        user, admin, gone = [await world.db.read(keys.by_hash, str(number) * 64) for number in range(3)]
        assert (user["id"], user["scopes"], user["on_budget"]) == ("key_1", ["read", "write"], "reject")
        assert admin["scopes"] == ["admin"]
        assert gone["deleted_at"] is not None
        assert await world.db.read(keys.master_hash) == "f" * 64
        rows = {row["id"]: row for row in [await world.row(of) for of in BATCHES.values()]}
        assert rows[BATCHES["running"]]["input_tokens"] > 0
        assert rows[BATCHES["completed"]]["input_tokens"] == 0
        for hold in await world.db.read(holds.open_holds):
            assert hold["key_id"] == rows[hold["batch_id"]]["key_id"]
        assert await world.db.read(budgets.check) == []
        events = await world.db.read(outbox.of_subject, BATCHES["completed"])
        assert {event.key_id for event in events} == {"key_1"}
        assert [event.position for event in events] == sorted(event.position for event in events)
        assert await world.db.read(outbox.end) == 0
        names = await world.db.read(lambda tx: tx.execute(sa.text("SELECT name FROM projects")).scalars().all())
        assert names == ["p"]


async def test_the_sums_by_day_are_those_that_posting_again_would_make(url: str, tmp_path: Path):
    async with migrated(url, tmp_path) as world:

        def posted_again(tx: sa.Connection) -> tuple[list[Any], list[Any]]:
            table = metadata.tables["costs"]
            listed = sa.select(table).order_by(*table.primary_key)
            ours = [dict(row) for row in tx.execute(listed).mappings()]
            tx.execute(sa.delete(table))
            for entry in tx.execute(sa.select(ledger)).mappings().all():
                costs.add(tx, entry)
            return ours, [dict(row) for row in tx.execute(listed).mappings()]

        ours, again = await world.db.write(posted_again)
        assert len({row["day"] for row in ours}) >= 1
        assert {row["tag"] for row in ours} > {"", "team=a=b"}
        assert ours == again
        firsts = await world.db.read(lambda tx: tx.execute(sa.select(ledger.c.first_line)).scalars().all())
        assert min(firsts) >= 1


async def test_what_was_on_its_way_goes_on(url: str, tmp_path: Path):
    async with migrated(url, tmp_path) as world:
        for name in ("running", "ended", "collected", "validating"):
            batch_id = BATCHES[name]
            assert await world.drive(batch_id) == "completed", name
            row = await world.row(batch_id)
            output, errors = await world.files_of(batch_id)
            assert (len(output), len(errors)) == (row["completed"], row["failed"])
            assert len(output) + len(errors) == row["total"]
        assert await world.drive(BATCHES["cancelling"]) == "cancelled"
        found = {name: await world.row(of) for name, of in BATCHES.items()}
        assert {row["status"] for row in found.values()} <= FINAL_BATCH_STATES
        assert (found["running"]["total"], found["ended"]["failed"]) == (6, 1)
        assert await world.db.read(budgets.check) == []
        assert await world.db.read(holds.open_holds) == []
        told = await world.db.read(census.sums_of_days, range(20_000, 22_000))
        lines = sum(row["lines"] for row in told if "project" in row)
        total = await world.db.read(lambda tx: tx.execute(sa.select(sa.func.sum(ledger.c.lines))).scalar())
        assert lines == total
        await world.db.write(outbox.place, 1000)
        positions = [event.position for event in await world.db.read(outbox.of_subject, BATCHES["validating"])]
        assert positions == sorted(positions)
        assert positions[0] <= 0 < positions[-1]


def test_answers_stored_by_version_1_can_be_read():
    line = b'{"id": "x", "custom_id": "12 1 3", "response": {}}'
    assert unpack(b"12 1 " + line) == Stored(12, True, line)
    assert unpack(b'7 0 {"id":"x"}') == Stored(7, False, b'{"id":"x"}')
    assert unpack(b"12 1 345 " + line) == Stored(12, True, line, 345)


def test_a_step_that_breaks_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch):
    make_old(url)
    before = shape(url)
    step = "batchway.db.migrations.m0002_money_and_telling._add_costs"
    with monkeypatch.context() as patched:

        def broken(_tx: object) -> None:
            raise OSError("no room")

        patched.setattr(step, broken)
        with pytest.raises(OSError, match="no room"):
            Database(url)
    assert shape(url) == before
    Database(url).close()
    assert "key_secrets" in shape(url)
