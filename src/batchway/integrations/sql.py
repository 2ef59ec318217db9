"""Events as rows of a table of yours, in any database that SQLAlchemy has a driver for.

The table (`batchway_events`, or as `table` says) is made when it is missing; a row is inserted once for each event id.
With `lines: true` there is a second one, with `_lines` behind its name, by job and line number. Statements run off the
event loop, over a connection of their own for each window, so an outage leaves nothing stale behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    insert,
    select,
)
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from batchway.core.events import Event
from batchway.db.engine import driver_url
from batchway.integrations.protocol import LineRecord, Receiver, ReceiverError, Tools
from batchway.integrations.threads import in_thread

KIND = "sql"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,50}")
MOST_HANGING = 4
Row = Mapping[str, Any]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`url` as SQLAlchemy writes it: postgresql://user:password@host/database, sqlite:////path, mysql+pymysql://..."""

    url: str
    table: str = "batchway_events"
    lines: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.table):
            raise ValueError("table: letters, digits and underscores, at most 51")
        try:
            _engine(self.url)
        except ArgumentError:
            raise ValueError("url: is not a database URL of SQLAlchemy's") from None
        except ImportError as error:
            raise ValueError(f"url: its driver is not installed: {error.name}") from None


def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
    """The tables in the entry's database."""
    return SqlSink(name, options)


class SqlSink:
    """See the module."""

    window = 200

    def __init__(self, name: str, options: Options) -> None:
        self.lines = options.lines
        self._name = name
        self._events, self._lines = _tables(options.table)
        self._engine = _engine(options.url)
        self._made = False
        self._running = 0  # threads, those that hang too

    async def tell(self, events: Sequence[Event]) -> None:
        """Inserts those that are not there."""
        rows = [{**msgspec.structs.asdict(event), "type": event.type.value} for event in events]
        await self._insert(self._events, ("id",), rows)

    async def tell_lines(self, event: Event, records: Sequence[LineRecord]) -> None:
        """Inserts those that are not there."""
        rows: list[dict[str, Any]] = [msgspec.json.decode(msgspec.json.encode(record)) for record in records]
        await self._insert(self._lines, ("job_id", "number"), rows)

    async def close(self) -> None:
        """Nothing is held back."""

    async def _insert(self, table: Table, key: tuple[str, ...], rows: Sequence[Row]) -> None:
        if self._running >= MOST_HANGING:
            raise ReceiverError(f"{self._name}: the database answers none of the last {self._running} windows")
        try:
            await in_thread(lambda: self._work(table, key, rows), f"receiver {self._name}")
            return
        except (DataError, IntegrityError) as error:
            failure = ReceiverError(f"{self._name}: the database refuses a row: {type(error).__name__}", permanent=True)
        except (SQLAlchemyError, OSError) as error:
            failure = ReceiverError(f"{self._name}: the database failed: {type(error).__name__}")
        raise failure

    def _work(self, table: Table, key: tuple[str, ...], rows: Sequence[Row]) -> None:
        self._running += 1
        try:
            if not self._made:
                wanted = [self._events, self._lines] if self.lines else [self._events]
                self._events.metadata.create_all(self._engine, tables=wanted)
                self._made = True
            try:
                self._once(table, key, rows)
            except IntegrityError:  # perhaps of somebody who told the same at the same time
                self._once(table, key, rows)
        finally:
            self._running -= 1

    def _once(self, table: Table, key: tuple[str, ...], rows: Sequence[Row]) -> None:
        with self._engine.begin() as tx:
            _insert_missing(tx, table, key, rows)


def _engine(url: str) -> Engine:
    parsed = driver_url(url)
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "postgresql":
        options["connect_args"] = {"connect_timeout": 10, "tcp_user_timeout": 30_000}
    return create_engine(parsed, poolclass=NullPool, hide_parameters=True, **options)


def _insert_missing(tx: Connection, table: Table, key: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Inserts the rows whose key is not there yet, each once."""
    columns = [table.c[name] for name in key]
    first = {row[key[0]] for row in rows}
    known = {tuple(found) for found in tx.execute(select(*columns).where(columns[0].in_(first)))}
    new = {name: row for row in rows if (name := tuple(row[part] for part in key)) not in known}
    if new:
        tx.execute(insert(table), list(new.values()))


def _tables(name: str) -> tuple[Table, Table]:
    metadata = MetaData()
    events = Table(
        name,
        metadata,
        Column("id", String(64), primary_key=True),
        Column("position", BigInteger, index=True),
        Column("type", String(64), nullable=False),
        Column("version", Integer, nullable=False),
        Column("subject", String(255), nullable=False, index=True),
        Column("project", String(255), nullable=False),
        Column("key_id", String(255), nullable=False),
        Column("created_at", Double, nullable=False),
        Column("data", JSON, nullable=False),
    )
    lines = Table(
        f"{name}_lines",
        metadata,
        Column("job_id", String(64), primary_key=True),
        Column("number", BigInteger, primary_key=True),
        Column("batch_id", String(64), nullable=False, index=True),
        Column("custom_id", String(512), nullable=False),
        Column("project", String(255), nullable=False),
        Column("key_id", String(255), nullable=False),
        Column("provider", String(255), nullable=False),
        Column("model", String(255), nullable=False),
        Column("ok", Boolean, nullable=False),
        Column("status", Integer),
        Column("usage", JSON, nullable=False),
        Column("amount", BigInteger),  # pico-dollars
        Column("request", JSON),
        Column("response", JSON),
        Column("ended_at", Double, nullable=False),
    )
    return events, lines
