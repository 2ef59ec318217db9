"""DBOS Transact 3.4, as little of it as we need. Nothing else in the project imports dbos.

What DBOS gives: rows that survive (`workflow_status`), an atomic claim that admits one runner, a token (`owner_xid`)
that each claim writes anew and without which no result is recorded, and patience with a lost database. What it does not
give: it never takes over the work of another executor. `lease.py` and `reaper.py` do that, through `recover`.

One durable function per name, which only calls us back, and one queue of the same name. A key is a deduplication id: it
is held while the work waits or runs and free again when it has ended, however it ended. No steps, no events, no
schedules. Underscored names of DBOS are used here on purpose; `tests/contract/test_engine_*.py` hold what we rely on.
"""
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import dbos._dbos as dbos_module
import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, EnqueueOptions, WorkflowSerializationFormat
from dbos._error import DBOSQueueDeduplicatedError
from dbos._queue import Queue, queue_worker_thread
from dbos._sys_db import SystemDatabase, db_retry
from dbos._utils import INTERNAL_QUEUE_NAME, GlobalParams

from batchway.core.errors import ConfigError
from batchway.engine.bell import Bell
from batchway.engine.connections import SCHEMA, is_sqlite

T = TypeVar("T")
Run = Callable[[str, str], Awaitable[None]]

APPLICATION = "batchway"
VERSION = "batchway-1"
"""Never change it: work is only taken by the version that queued it, what another one queued would stay for good."""

_IDLE_POLL_SECONDS = 3600.0
"""DBOS's internal queue: nothing of ours ever waits there."""


class BodyFailedError(Exception):
    """What DBOS keeps of a body's exception: the body's name and the exception's type, never its message."""


class Durable:
    """The one DBOS of this process. `open`, then `listen`, then everything else, then `close`."""

    def __init__(self, *, url: str, database: sa.Engine, executor_id: str, max_threads: int) -> None:
        if dbos_module._dbos_global_instance is not None:
            raise ConfigError("This process runs an engine already, and DBOS allows one: close the other first.")
        _quiet()
        config = DBOSConfig(
            name=APPLICATION,
            application_version=VERSION,
            executor_id=executor_id,
            system_database_url=url,
            system_database_engine=database,
            dbos_system_schema=None if is_sqlite(url) else SCHEMA,
            max_executor_threads=max_threads,
            use_listen_notify=False,
            enable_otlp=False,
            log_level="WARNING",
            notification_listener_polling_interval_sec=0.25,
            scheduler_polling_interval_sec=_IDLE_POLL_SECONDS,
        )
        self._dbos = DBOS(config=config)
        self._dbos._registry._register_internal_queue(INTERNAL_QUEUE_NAME, polling_interval_sec=_IDLE_POLL_SECONDS)
        DBOS.listen_queues([])
        self._queues: dict[str, tuple[Queue, Bell]] = {}
        self._changed = threading.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def _db(self) -> SystemDatabase:
        return self._dbos._sys_db

    @property
    def executor_id(self) -> str:
        """The id under which work is claimed now."""
        return GlobalParams.executor_id

    def become(self, executor_id: str) -> None:
        """Claim work under another id from here on."""
        GlobalParams.executor_id = executor_id

    def register(self, name: str, run: Run, *, concurrency: int, bell: Bell, poll_seconds: float) -> None:
        """Before `open`: work of `name` calls `run(workflow_id, key)`, at most `concurrency` at once here."""
        slots = asyncio.Semaphore(concurrency)  # DBOS counts a claim once it runs, so a quick poll can claim too many

        def ended(task: asyncio.Task[Any]) -> None:
            # The task is DBOS's own: its outcome is written by now, and its slot is free for what waits. Not if it was
            # cancelled: its work waits again, and on a loop that is closed it would come back as fast as it is cut.
            if not task.cancelled():
                bell.ring()
            with self._changed:
                self._tasks.discard(task)
                self._changed.notify_all()

        async def workflow(key: str) -> None:
            task = asyncio.current_task()
            workflow_id = DBOS.workflow_id
            assert task is not None and workflow_id is not None, "not inside a workflow"  # noqa: S101, PT018
            with self._changed:
                self._tasks.add(task)
            task.add_done_callback(ended)
            async with slots:
                await run(workflow_id, key)

        registry = self._dbos._registry
        DBOS.workflow(name=name, max_recovery_attempts=None, serialization_type=WorkflowSerializationFormat.PORTABLE)(
            workflow
        )
        queue = registry._register_internal_queue(
            name, worker_concurrency=concurrency, polling_interval_sec=poll_seconds
        )
        registry.internal_queue_map.pop(name)  # or DBOS would start its worker: `listen` does, with our bell
        self._queues[name] = (queue, bell)

    def open(self) -> None:
        """Make DBOS's tables and start its threads; no work is taken yet. Not from a thread with a running event loop:
        DBOS would adopt that loop as its own.
        """
        DBOS.launch()

    def listen(self) -> None:
        """Start taking work."""
        for name, (queue, bell) in self._queues.items():
            threading.Thread(
                target=queue_worker_thread, args=(bell, self._dbos, queue), name=f"engine-queue-{name}", daemon=True
            ).start()
            bell.ring()

    def start(self, name: str, key: str, priority: int) -> bool:
        """Queue `name(key)` unless it waits or runs; True when this call did. Blocks while the database is away."""
        # Asked first: a refused insert leaves a dead row and an error in the server's log, and sweeps ask often.
        if self._patient(lambda: self._holds(name, key)):
            return False
        options = EnqueueOptions(
            workflow_name=name,
            queue_name=name,
            deduplication_id=key,
            app_version=VERSION,
            serialization_type=WorkflowSerializationFormat.PORTABLE,
        )
        if priority > 0:
            options["priority"] = priority
        try:
            DBOS.enqueue_workflow_with_options(options, key)
        except DBOSQueueDeduplicatedError:
            return False
        return True

    def _holds(self, name: str, key: str) -> bool:
        ws = self._db.tables.workflow_status
        held = sa.select(sa.literal(1)).where(ws.c.queue_name == name, ws.c.deduplication_id == key)
        with self._db.engine.connect() as connection:
            return connection.scalar(held) is not None

    def keys(self, name: str) -> set[str]:
        """The keys of `name` that wait or run, in any process. Blocks while the database is away."""
        return self._patient(lambda: self._keys(name))

    def _keys(self, name: str) -> set[str]:
        ws = self._db.tables.workflow_status
        with self._db.engine.connect() as connection:
            found = connection.scalars(
                sa.select(ws.c.deduplication_id).where(ws.c.queue_name == name, ws.c.deduplication_id.is_not(None))
            )
            return {key for key in found if key is not None}

    def _patient(self, read: Callable[[], T]) -> T:
        """What DBOS does around its own statements: wait for a lost database, with backoff."""
        return db_retry(sys_db=self._db)(read)()

    def pending_executors(self) -> set[str]:
        """The ids of all executors that have claimed work which has not ended."""
        ws = self._db.tables.workflow_status
        # A literal, not a parameter: the partial index on pending rows serves no other form on SQLite.
        pending = ws.c.status == sa.literal_column("'PENDING'")
        with self._db.engine.connect() as connection:
            return set(connection.scalars(sa.select(ws.c.executor_id).where(pending).distinct()))

    def recover(self, executor_id: str) -> int:
        """Put the unfinished work of a dead executor back into its queues; how much that was.

        Any number of processes may do this at once: a row goes back only while the dead executor holds it.
        """
        return len(DBOS._recover_pending_workflows([executor_id]))

    def release(self, workflow_id: str, executor_id: str) -> bool:
        """Put work that `executor_id` claimed back into its queue; False when it holds it no more."""
        return self._db.reenqueue_for_recovery(workflow_id, [executor_id], INTERNAL_QUEUE_NAME)

    def unattended(self) -> set[tuple[str, str]]:
        """Work claimed under our id of which nothing runs here, as (workflow id, claim).

        A claim whose answer was lost with the connection ends like that: the row is ours, and DBOS does not know it.
        """
        ws = self._db.tables.workflow_status
        pending = ws.c.status == sa.literal_column("'PENDING'")
        with self._db.engine.connect() as connection:
            rows = connection.execute(
                sa.select(ws.c.workflow_uuid, ws.c.owner_xid).where(pending, ws.c.executor_id == self.executor_id)
            ).all()
        running = set(self._dbos._active_workflows_set.activeList())
        return {(row[0], row[1] or "") for row in rows if row[0] not in running}

    def delete_finished(self, *, older_seconds: float, limit: int) -> int:
        """Delete up to `limit` rows of work that ended more than `older_seconds` ago; how many."""
        ws = self._db.tables.workflow_status
        ended = ws.c.completed_at < self._db._now_ms_sql() - int(older_seconds * 1000)
        with self._db.engine.connect() as connection:
            ids = list(
                connection.scalars(sa.select(ws.c.workflow_uuid).where(ended).order_by(ws.c.completed_at).limit(limit))
            )
        if ids:
            self._db.delete_workflows(ids)
        return len(ids)

    def close(self, timeout: float) -> None:
        """End DBOS: its threads, its loop, its registry. Outcomes that are being written get `timeout` seconds, but a
        database that is away is not waited for: what was not written is recovered.
        """
        if self._dbos._sys_db_field is not None:
            self._db._retry_connection_errors = False
        with self._changed:
            self._changed.wait_for(lambda: not self._tasks, timeout)
        DBOS.destroy(destroy_registry=True)


def _quiet() -> None:
    """DBOS logs to the console unless its logger has a handler, and reports once more what we have reported."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.addFilter(_reported_by_us)


def _reported_by_us(record: logging.LogRecord) -> bool:
    if str(record.msg).startswith("Asyncio task cancelled"):
        return False
    return not (record.exc_info and isinstance(record.exc_info[1], BodyFailedError))
