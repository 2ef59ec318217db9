"""How the engine opens the database: its own connections, with limits on how long anything may hang.

Invariant: no connection of the engine can hold a row lock for longer than a lease after its process froze or its
machine was lost, and none waits for a lost server longer than half a lease.
"""

from __future__ import annotations

import sqlite3
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from psycopg.sql import SQL
from sqlalchemy.event import listen

SCHEMA = "batchway_engine"
"""The PostgreSQL schema of the engine's tables; SQLite has none."""


def is_sqlite(url: str) -> bool:
    """True for the embedded database."""
    return url.startswith("sqlite")


def open_database(url: str, *, connections: int, lease_seconds: float) -> sa.Engine:
    """An SQLAlchemy engine that opens at most `connections` connections, each when it is first needed."""
    made = _open_sqlite(url, lease_seconds) if is_sqlite(url) else _open_postgres(url, connections, lease_seconds)
    return made.execution_options(schema_translate_map={SCHEMA: None if is_sqlite(url) else SCHEMA})


def _open_sqlite(url: str, lease_seconds: float) -> sa.Engine:
    # Two: writers queue in the pool, which wakes the next one at once; SQLite lets them sleep and ask again.
    made = sa.create_engine(url, pool_size=2, max_overflow=0, hide_parameters=True)
    wait_ms = int(lease_seconds / 2 * 1000)

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # Writers take the lock when they begin: one that only asks when it first writes can be refused with no retry.
        connection.isolation_level = "IMMEDIATE"
        connection.execute(f"PRAGMA busy_timeout={wait_ms}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    listen(made, "connect", prepare)
    return made


def _open_postgres(url: str, connections: int, lease_seconds: float) -> sa.Engine:
    made = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=30,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "application_name": "batchway-engine",
            "connect_timeout": max(2, int(lease_seconds / 3)),
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": int(lease_seconds / 2 * 1000),
        },
    )
    idle_ms = max(1, int(lease_seconds * 1000))

    def prepare(connection: psycopg.Connection[Any], _record: object) -> None:
        connection.execute(SQL("SET idle_in_transaction_session_timeout = {}").format(idle_ms))
        # The pool rolls a connection back on return, which would undo a bare SET.
        connection.commit()

    listen(made, "connect", prepare)
    listen(made, "do_connect", _connect)
    return made


def _connect(
    dialect: sa.Dialect, _record: object, positional: list[Any], named: dict[str, Any]
) -> psycopg.Connection[Any]:
    """Connect, or fail with the words by which DBOS knows that waiting may help.

    It looks for "connection failed", but psycopg says "connection is bad" where the server's socket is missing: DBOS
    would give up, and what had ended would be run again.
    """
    try:
        return cast("psycopg.Connection[Any]", dialect.connect(*positional, **named))
    except psycopg.OperationalError as error:
        raise psycopg.OperationalError(f"connection failed: {error}") from error
