"""This process's lease: one row that says until when it counts as alive, and who may call others dead.

Invariants, which hold on the database's clock alone:
- An executor is dead from the moment its row is deleted, and for good: its id never comes back. A process that finds
  its row gone takes part again under a new id, so nothing started under the old one can be mistaken for its own.
- Only a row whose beat is older than its lease may be deleted by another process, and only by a process that has itself
  beaten without a gap for 1.5 leases. After a database outage every beat is stale; whoever skipped this rule would
  declare everybody dead and repeat paid work.
- `alive()` looks at the time of the last beat that reached the database, never at a flag: a process that was frozen
  answers False at its first instruction, before any thread of it has run.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from batchway.engine.connections import SCHEMA

GRACE_LEASES = 1.5
"""How long, in leases, a process must have beaten without a gap before it judges others."""

executors = sa.Table(
    "engine_executors",
    sa.MetaData(schema=SCHEMA),
    sa.Column("executor_id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),  # seconds since 1970, the database's clock
    sa.Column("beat_at", sa.Double, nullable=False),
    sa.Column("lease_seconds", sa.Double, nullable=False),
)


def steady_clock() -> float:
    """Seconds that go on while the process is stopped and, where the system can tell, while the machine sleeps."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def database_now(connection: sa.Connection) -> sa.ColumnElement[float]:
    """The database's own time as an expression, in seconds since 1970: hosts' clocks differ, this one is shared."""
    if connection.dialect.name == "sqlite":
        return sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Double)
    return sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Double)


class Lease:
    """The row of this process; thread-safe. Times in seconds."""

    def __init__(
        self, database: sa.Engine, *, name: str | None, seconds: float, clock: Callable[[], float] = steady_clock
    ) -> None:
        self.seconds = seconds
        self.executor_id = ""
        self._database = database
        self._name = name or socket.gethostname()
        self._clock = clock
        self._lock = threading.Lock()
        self._beat_at = float("-inf")  # on `clock`: when the last beat that succeeded was sent
        self._steady_since = float("inf")

    def create_table(self) -> None:
        """Make the table where it is missing; safe with several processes starting at once."""
        with self._database.begin() as connection:
            if connection.dialect.name == "postgresql":
                # CREATE ... IF NOT EXISTS of two sessions at once can still collide in PostgreSQL's catalog.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('batchway_engine'))"))
                connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
            connection.execute(sa.schema.CreateTable(executors, if_not_exists=True))

    def take(self, adopt: Callable[[str], None] | None = None) -> str:
        """Start a lease under a new executor id and answer it. What the former id left behind is not ours any more.

        `adopt` is called with the id once its row is there and before `alive()` turns True.
        """
        executor_id = f"{self._name}-{os.getpid()}-{secrets.token_hex(4)}"
        sent = self._clock()
        with self._database.begin() as connection:
            now = database_now(connection)
            connection.execute(
                sa.insert(executors).values(
                    executor_id=executor_id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    started_at=now,
                    beat_at=now,
                    lease_seconds=self.seconds,
                )
            )
        if adopt is not None:
            adopt(executor_id)
        with self._lock:
            self.executor_id = executor_id
            self._beat_at = self._steady_since = sent
        return executor_id

    def beat(self) -> bool:
        """Renew; False when somebody declared this executor dead. Raises what the database raises."""
        sent = self._clock()
        with self._database.begin() as connection:
            renewed = connection.execute(
                sa.update(executors)
                .where(executors.c.executor_id == self.executor_id)
                .values(beat_at=database_now(connection))
            ).rowcount
        with self._lock:
            if renewed == 0:
                self._beat_at = float("-inf")
                return False
            if sent - self._beat_at > self.seconds / 2:
                self._steady_since = sent
            self._beat_at = sent
        return True

    def alive(self) -> bool:
        """True while the last renewal is younger than half a lease."""
        return self._clock() - self._beat_at < self.seconds / 2

    def beat_age(self) -> float:
        """Seconds since the last renewal was sent; infinite without a lease."""
        return self._clock() - self._beat_at

    def may_judge(self) -> bool:
        """True when this process has beaten without a gap for long enough to call others dead."""
        with self._lock:
            now = self._clock()
            return now - self._beat_at < self.seconds / 2 and now - self._steady_since >= GRACE_LEASES * self.seconds

    def judge(self) -> list[str]:
        """Declare dead whoever let its lease run out; their ids. Two judges at once share the ids between them."""
        with self._database.begin() as connection:
            stale = executors.c.beat_at < database_now(connection) - executors.c.lease_seconds
            return list(
                connection.scalars(
                    sa.delete(executors)
                    .where(stale, executors.c.executor_id != self.executor_id)
                    .returning(executors.c.executor_id)
                )
            )

    def inherit(self) -> list[str]:
        """Declare everybody else dead; only for the holder of the exclusive lock, which proves it."""
        with self._database.begin() as connection:
            others = executors.c.executor_id != self.executor_id
            return list(connection.scalars(sa.delete(executors).where(others).returning(executors.c.executor_id)))

    def living(self) -> set[str]:
        """The ids of all executors that have a row."""
        with self._database.connect() as connection:
            return set(connection.scalars(sa.select(executors.c.executor_id)))

    def give_back(self) -> None:
        """End the lease: from here on this process counts as gone."""
        with self._lock:
            self._beat_at = float("-inf")
        if not self.executor_id:
            return
        with self._database.begin() as connection:
            connection.execute(sa.delete(executors).where(executors.c.executor_id == self.executor_id))
