"""Opens the database and runs functions over a transaction, off the event loop.

SQLite: one writer connection on one thread (writers never meet, so nothing is ever "locked" inside this process) and
`BEGIN IMMEDIATE`; readers run on the calling thread, because a point read costs microseconds and a hop to a thread
costs fifty. PostgreSQL: a pool, always off the loop. `write` retries nothing: a lost connection is an error that the
caller's durable row survives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from batchway import metrics
from batchway.db.migrations import migrate

P = ParamSpec("P")
T = TypeVar("T")
Statement = Callable[Concatenate[Connection, P], T]

POOL_SIZE = 16
TOLD = "told"  # the mark on a connection whose transaction has stored an event: see db/outbox.py


class Database:
    """The store behind `url` (`sqlite:///path` or `postgresql://...`), its tables brought up to date."""

    def __init__(self, url: str) -> None:
        parsed = driver_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.url = parsed
        if self.is_sqlite:
            self._writer = _sqlite(parsed, pool_size=1, begin="BEGIN IMMEDIATE")
            self._reader = _sqlite(parsed, pool_size=POOL_SIZE, begin="BEGIN")
        else:
            self._writer = self._reader = create_engine(
                parsed, pool_size=POOL_SIZE, pool_pre_ping=True, pool_recycle=1800, hide_parameters=True
            )
        self.on_told: Callable[[], object] = _nobody  # called, in any thread, after a commit that stored an event
        self._threads = ThreadPoolExecutor(1 if self.is_sqlite else POOL_SIZE, thread_name_prefix="batchway-db")
        try:
            migrate(self._writer)
        except BaseException:
            self.close()
            raise

    async def read(self, statement: Statement[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of `statement(tx, ...)`, which must not write."""
        if self.is_sqlite:
            return self._run(self._reader, statement, *args, **kwargs)
        return await self._off_loop(self._reader, statement, *args, **kwargs)

    async def read_apart(self, statement: Statement[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read` for statements of more than a few milliseconds: the event loop goes on meanwhile, on SQLite too."""
        return await asyncio.to_thread(self._run, self._reader, statement, *args, **kwargs)

    async def write(self, statement: Statement[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `statement(tx, ...)` in one transaction: committed when it returns, rolled back when it raises."""
        begun = time.perf_counter()
        try:
            return await self._off_loop(self._writer, statement, *args, **kwargs)
        except SQLAlchemyError:
            metrics.WRITE_FAILURES.add()
            raise
        finally:
            metrics.WRITE_SECONDS.observe(time.perf_counter() - begun)

    def write_now(self, statement: Statement[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`write` for callers outside an event loop: start-up, commands, tests."""
        return self._run(self._writer, statement, *args, **kwargs)

    def close(self) -> None:
        """Waits for running statements and drops the connections."""
        self._threads.shutdown(wait=True)
        self._writer.dispose()
        self._reader.dispose()

    async def _off_loop(self, engine: Engine, statement: Any, *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self._run(engine, statement, *args, **kwargs))

    def _run(self, engine: Engine, statement: Any, *args: Any, **kwargs: Any) -> Any:
        with engine.begin() as tx:
            done = statement(tx, *args, **kwargs)
            told = tx.info.pop(TOLD, False)
        if told:
            self.on_told()
        return done


def _nobody() -> None:
    """Nobody waits for events."""


def driver_url(url: str) -> URL:
    """The URL with our driver: psycopg 3 for PostgreSQL, the standard library for SQLite."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _sqlite(url: URL, *, pool_size: int, begin: str) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True, "connect_args": {"check_same_thread": False}}
    engine = create_engine(url, pool_size=pool_size, max_overflow=64, **options)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: the driver would begin too late
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
