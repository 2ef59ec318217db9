"""The SQL table, told on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from batchway.core.events import EventType
from batchway.db.engine import driver_url
from batchway.integrations import sql
from batchway.testing.receiver_ground import ReceiverGround, Trouble, ends, event, records
from batchway.testing.receiver_suite import ReceiverSuite
from tests.conformance.receiving import Proxy

GAPS = {"test_a_busy_peer_is_given_the_time_it_asks_for": "no database says when it will have time"}


class SqlGround(ReceiverGround):
    patience = 15.0

    def __init__(self, url: str, direct: str) -> None:
        self.engine: Engine = create_engine(driver_url(direct))
        self.options = sql.Options(url=url, lines=True)
        self.receiver = self.open()
        with self.engine.begin() as tx:
            self.receiver._events.metadata.create_all(tx)

    def open(self) -> sql.SqlSink:
        return sql.SqlSink("table", self.options)

    async def reopened(self):
        return self.open()

    async def rows(self, query: str) -> list[Any]:
        def read() -> list[Any]:
            with self.engine.begin() as tx:
                return list(tx.execute(text(query)))

        return await asyncio.to_thread(read)

    async def taken(self, wanted: int) -> list[str]:
        return [row[0] for row in await self.rows("select id from batchway_events order by position")]

    async def lines_taken(self, wanted: int) -> list[tuple[str, int]]:
        return [
            tuple(row) for row in await self.rows("select job_id, number from batchway_events_lines order by number")
        ]

    def run(self, *statements: str) -> None:
        with self.engine.begin() as tx:
            for statement in statements:
                tx.execute(text(statement))


class SqliteGround(SqlGround):
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.folder.mkdir()
        self.file = self.folder / "events.db"
        super().__init__(f"sqlite:///{self.file}?timeout=0.3", f"sqlite:///{self.file}")
        self._undo: Callable[[], Any] = lambda: None

    async def disturb(self, how: Trouble) -> None:
        self._undo()
        self._undo = lambda: None
        if how == "away":
            self.engine.dispose()
            moved = self.folder.rename(self.folder.with_name("elsewhere"))
            self._undo = lambda: moved.rename(self.folder)
        elif how in ("busy", "hangs"):
            other = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False)
            other.execute("BEGIN EXCLUSIVE")
            self._undo = other.close
        elif how == "refuses":
            self.run("create trigger no before insert on batchway_events begin select raise(abort, 'no'); end")
            self._undo = lambda: self.run("drop trigger no")


class PostgresGround(SqlGround):
    def __init__(self, url: str, proxy: Proxy) -> None:
        self.proxy = proxy
        through = make_url(url).set(host="127.0.0.1", port=proxy.port, query={})
        super().__init__(through.render_as_string(hide_password=False), url)
        self._refusing = False

    async def disturb(self, how: Trouble) -> None:
        await self.proxy.disturb(how if how in ("away", "hangs", "busy") else "")
        if self._refusing:
            self.run("alter table batchway_events drop constraint no")
        self._refusing = how == "refuses"
        if self._refusing:
            self.run("alter table batchway_events add constraint no check (false) not valid")


def socket_of(url: str) -> str:
    """The path of the unix socket of a PostgreSQL server."""
    folder = Path(str(make_url(url).query["host"]))
    return str(next(folder.glob(".s.PGSQL.*[0-9]")))


class TestSqlite(ReceiverSuite):
    gaps = GAPS

    @pytest.fixture
    async def ground(self, tmp_path: Path):
        made = SqliteGround(tmp_path)
        yield made
        await made.disturb("")
        made.engine.dispose()


@pytest.mark.postgres
class TestPostgres(ReceiverSuite):
    gaps = GAPS

    @pytest.fixture
    async def ground(self, postgres):
        url = postgres.fresh()
        proxy = Proxy(socket_of(url))
        await proxy.start()
        made = PostgresGround(url, proxy)
        yield made
        await proxy.stop()
        made.engine.dispose()


def kept(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "x.db")) as database:
        return database.execute(query).fetchall()


async def test_the_table_is_made_once_and_a_row_is_inserted_once(tmp_path: Path) -> None:
    options = sql.Options(url=f"sqlite:///{tmp_path}/x.db", table="mine", lines=True)
    (job,) = [event(EventType.JOB_ACCOUNTED)]
    for _ in range(2):
        sink = sql.SqlSink("table", options)
        await sink.tell([job, job])
        await sink.tell_lines(job, records(job, range(1, 4)))
    with sqlite3.connect(tmp_path / "x.db") as found:
        assert found.execute("select id, type, subject from mine").fetchall() == [
            (job.id, "job.accounted", job.subject)
        ]
        assert found.execute("select number, amount from mine_lines").fetchall() == [
            (1, 1_500_000),
            (2, 1_500_000),
            (3, None),
        ]
        assert '"role":"user"' in found.execute("select request from mine_lines").fetchone()[0].replace(" ", "")
    found.close()


async def test_two_who_tell_the_same_at_once_leave_one_row(tmp_path: Path) -> None:
    options = sql.Options(url=f"sqlite:///{tmp_path}/x.db")
    first, second = sql.SqlSink("a", options), sql.SqlSink("b", options)
    await first.tell(ends(1))
    events = ends(40)
    await asyncio.gather(first.tell(events), second.tell(events))
    assert kept(tmp_path, "select count(*) from batchway_events") == [(41,)]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"url": "no url"}, "is not a database URL"),
        ({"url": "nodriver://host/db"}, "is not a database URL"),
        ({"url": "mysql+pymysql://host/db"}, "its driver is not installed: pymysql"),
        ({"url": "sqlite://", "table": "a; drop"}, "table: letters"),
    ],
)
def test_what_is_no_database_is_refused_at_the_start(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        sql.Options(**options)
