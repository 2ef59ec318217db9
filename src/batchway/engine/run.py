"""`Engine`: durable work by key, put together from the parts beside this file. `__init__.py` says what it promises."""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar, TypeVarTuple, cast

from sqlalchemy.exc import SQLAlchemyError

from batchway import metrics
from batchway.core.errors import BatchwayError, ConfigError
from batchway.engine.bell import Bell
from batchway.engine.connections import is_sqlite, open_database
from batchway.engine.durable import BodyFailedError, Durable
from batchway.engine.filelock import FolderLock
from batchway.engine.heart import Heart
from batchway.engine.lease import Lease
from batchway.engine.reaper import Reaper
from batchway.engine.work import Body, Work

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_HERE = Path(__file__).parent
_UNWIND_SECONDS = 5.0
"""How long bodies that were cancelled by `close` get to end."""


class _Kind(NamedTuple):
    """One name of work."""

    name: str
    body: Body
    concurrency: int
    bell: Bell


class Engine:
    """Durable work by key. One per process; see the package for the guarantees."""

    def __init__(  # noqa: PLR0913 - all keywords, all with the values of the design as defaults
        self,
        *,
        database_url: str,
        executor_id: str | None = None,
        loop: asyncio.AbstractEventLoop | None,
        max_threads: int = 32,
        exclusive_lock: Path | None,
        beat_seconds: float = 3,
        lease_seconds: float = 15,
        keep_seconds: float = 600,
        poll_seconds: float = 1,
    ) -> None:
        """Nothing happens before `launch`.

        Args:
            database_url: SQLite or PostgreSQL, as SQLAlchemy takes it; the database of the project's own tables.
            executor_id: a name for this process in logs and tables, made unique here; the host's name if None.
            loop: where bodies run; the loop running now if None.
            max_threads: how many threads DBOS may use for its statements; a running body takes none.
            exclusive_lock: a file to lock; SQLite needs one, as the proof that no other process uses the database.
            beat_seconds: how often the lease is renewed; also how often the dead are looked for.
            lease_seconds: how long after its last renewal a process may be declared dead.
            keep_seconds: how long the row of finished work is kept.
            poll_seconds: how often queues are looked at for work that other processes started.
        """
        if is_sqlite(database_url) and exclusive_lock is None:
            raise ConfigError("A SQLite database belongs to one process: the engine needs a lock file beside it.")
        self._url = database_url
        self._loop = loop or asyncio.get_running_loop()
        self._max_threads = max_threads
        self._lock_path = exclusive_lock
        self._beat_seconds = beat_seconds
        self._keep_seconds = keep_seconds
        self._poll_seconds = poll_seconds
        self._database = open_database(database_url, connections=max_threads, lease_seconds=lease_seconds)
        self._heart_database = open_database(database_url, connections=1, lease_seconds=lease_seconds)
        self._lease = Lease(self._heart_database, name=executor_id, seconds=lease_seconds)
        self._work = Work(self._loop)
        self._kinds: dict[str, _Kind] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="engine-call")
        self._heart = Heart(self._lease, beat_seconds=beat_seconds, on_loss=self._rejoin)
        self._lock: FolderLock | None = None
        self._durable: Durable | None = None
        self._reaper: Reaper | None = None
        self._closed = False

    def register(self, name: str, body: Body, *, concurrency: int) -> None:
        """Before `launch`: work of `name` runs `body(key)` here, at most `concurrency` at once in this process."""
        if self._durable is not None:
            raise ConfigError(f"{name} must be registered before the engine is launched")
        self._kinds[name] = _Kind(name, body, concurrency, Bell(self._lease.alive))

    def launch(self) -> None:
        """Lock, make tables, recover what the dead left, and start to work. Blocks meanwhile; any thread may call it.

        Raises `ConfigError` when another process holds the lock or another engine runs in this one.
        """
        # In a thread of its own, since DBOS adopts the loop of the thread that launches it, and ours is the host's.
        with ThreadPoolExecutor(1, thread_name_prefix="engine-launch") as launcher:
            launcher.submit(self._launch).result()

    def _launch(self) -> None:
        if self._lock_path is not None:
            self._lock = FolderLock(self._lock_path)
        try:
            self._start()
        except BaseException:
            self._end()
            raise

    def _start(self) -> None:
        self._lease.create_table()
        executor_id = self._lease.take()
        self._heart.start()
        durable = Durable(
            url=self._url, database=self._database, executor_id=executor_id, max_threads=self._max_threads
        )
        self._durable = durable
        for name, kind in self._kinds.items():
            durable.register(
                name,
                functools.partial(self._run, durable, kind),
                concurrency=kind.concurrency,
                bell=kind.bell,
                poll_seconds=self._poll_seconds,
            )
        durable.open()
        if is_sqlite(self._url):
            # Only here does the lock prove anything: a PostgreSQL server has clients on other machines.
            self._lease.inherit()
        self._reaper = Reaper(
            durable,
            self._lease,
            every_seconds=self._beat_seconds,
            keep_seconds=self._keep_seconds,
            on_recovered=self._ring,
        )
        self._reaper.recover_dead()
        self._reaper.start()
        durable.listen()

    async def ensure(self, name: str, key: str, *, priority: int = 0) -> bool:
        """Durably start `name(key)` unless it waits or runs already; True when this call started it.

        What has ended, well or badly, may be started again. Lower priorities run first. Returns once it is committed;
        while the database is away it waits.
        """
        started = await self._call(self._running().start, name, key, priority)
        kind = self._kinds.get(name)
        if started and kind is not None:
            kind.bell.ring()
        return started

    async def active(self, name: str) -> set[str]:
        """The keys of `name` that wait or run, in any process."""
        return await self._call(self._running().keys, name)

    def alive(self) -> bool:
        """False when this process could not renew its lease for half a lease, or is closed: paid requests must stop."""
        return self._lease.alive()

    def beat_age(self) -> float:
        """Seconds since the lease was last renewed."""
        return self._lease.beat_age()

    @property
    def executor_id(self) -> str:
        """The id under which this process takes work now; a new one after it was declared dead."""
        return self._lease.executor_id

    async def close(self, timeout: float) -> None:
        """Take no new work, give running bodies `timeout` seconds, then cancel them; what did not finish goes back into
        its queue for the next process. A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        for kind in self._kinds.values():
            kind.bell.set()
        if not await self._call(self._work.wait_idle, timeout):
            self._work.interrupt()
            if not await self._call(self._work.wait_idle, _UNWIND_SECONDS):
                log.warning("engine: some bodies did not end when cancelled; they are left behind")
        await self._call(self._end)
        self._threads.shutdown(wait=False)

    def _end(self) -> None:
        """Let go of everything that outlives an object: threads, the lease, connections, the lock."""
        if self._reaper is not None:
            self._reaper.stop()
        if self._durable is not None:
            self._durable.close(_UNWIND_SECONDS)
        self._heart.stop()
        for thread in (self._reaper, self._heart):
            if thread is not None and thread.is_alive():
                thread.join(_UNWIND_SECONDS)
        try:
            self._lease.give_back()
        except SQLAlchemyError as error:
            log.warning("engine: the lease could not be given back (%s); it runs out by itself", type(error).__name__)
        self._database.dispose()
        self._heart_database.dispose()
        if self._lock is not None:
            self._lock.release()

    async def _run(self, durable: Durable, kind: _Kind, workflow_id: str, key: str) -> None:
        """What a durable function does: run the body on the host's loop and sort its ends. Runs on DBOS's loop."""
        executor_id = durable.executor_id
        try:
            await self._work.carry(functools.partial(_tell_failure, kind), key, self._lease.alive)
        except asyncio.CancelledError:
            # Not an end: nobody decided that this work failed. Raised on, so that DBOS records nothing.
            await asyncio.to_thread(durable.release, workflow_id, executor_id)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a body raises ends its work as failed, and nothing else
            raise BodyFailedError(f"{kind.name}: {type(error).__name__}") from None

    def _rejoin(self) -> None:
        """This process was declared dead: end all that ran under the old id, then take part again under a new one."""
        self._work.interrupt()
        while not self._work.wait_idle(self._beat_seconds):
            log.warning("engine: waiting for bodies that run without a lease to end")
            if self._closed:
                return
        durable = self._durable
        executor_id = self._lease.take(None if durable is None else durable.become)
        log.info("engine: takes part again as executor %s", executor_id)

    def _ring(self) -> None:
        for kind in self._kinds.values():
            kind.bell.ring()

    def _running(self) -> Durable:
        if self._durable is None or self._closed:
            raise BatchwayError("the engine is not running")
        return self._durable

    async def _call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run something that blocks in a thread of ours: the host's own threads may all be busy."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


async def _tell_failure(kind: _Kind, key: str) -> None:
    """The body; its failure is told in its own context, where the log knows what it was about."""
    try:
        await kind.body(key)
    except Exception as error:
        metrics.WORK_FAILURES.add(kind.name)
        log.error("engine: %s(%s) failed: %s", kind.name, key, _describe(error))  # noqa: TRY400 - messages may hold bodies
        raise


def _describe(error: BaseException) -> str:
    """An exception's type and where it came from; its message only where it is ours, which never holds a body."""
    if isinstance(error, BaseExceptionGroup):
        parts = cast("tuple[BaseException, ...]", error.exceptions)
        return f"ExceptionGroup({'; '.join(map(_describe, parts))})"
    message = f": {error}" if isinstance(error, BatchwayError) else ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent != _HERE]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[:-5:-1])
    return f"{type(error).__name__}{message} at {where or 'an unknown place'}"
