"""The composition root: settings in, a wired gateway out. Nothing else builds anything."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from batchway.billing.prices import Prices
from batchway.core.errors import ConfigError
from batchway.core.ids import IdMaker, new_id
from batchway.core.principal import Principal
from batchway.db.engine import Database
from batchway.db.idempotency import Idempotency
from batchway.engine import Engine
from batchway.executor import Executor
from batchway.http import Http
from batchway.pipeline import adopt, cancel, create, forecast, results, retry, show
from batchway.pipeline.trip import Trip
from batchway.providers import registry
from batchway.providers.accounts import Accounts
from batchway.providers.protocol import Tools
from batchway.settings import ROLES, Settings
from batchway.storage import Storage, open_storage
from batchway.wire.batches import (
    Batch,
    BatchAdopt,
    BatchCreate,
    BatchEstimate,
    BatchFilter,
    BatchList,
    EstimateCreate,
    ResultsFilter,
)
from batchway.wire.keys import Model, ModelList

CONNECTIONS = 2048  # at most this many to all providers together


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """What the server serves: the store, and the operations over batches. `trip` is what the stages run on."""

    settings: Settings
    trip: Trip
    http: Http
    engine: Engine
    executor: Executor

    async def close(self) -> None:
        """Lets go of connections and threads; the worker is stopped before."""
        await self.http.close()
        self.db.close()
        await self.storage.close()

    @property
    def db(self) -> Database:
        return self.trip.db

    @property
    def storage(self) -> Storage:
        return self.trip.storage

    @property
    def clock(self) -> Callable[[], float]:
        return self.trip.clock

    @property
    def new_id(self) -> IdMaker:
        return self.trip.new_id

    @property
    def max_file_bytes(self) -> int:
        return self.trip.max_file_bytes

    async def create_batch(
        self, principal: Principal, wanted: BatchCreate, *, provider: str | None, idempotency: Idempotency | None
    ) -> Batch:
        """See `pipeline/create.py`."""
        return await create.create(self.trip, principal, wanted, provider=provider, idempotency=idempotency)

    async def retrieve_batch(self, principal: Principal, batch_id: str) -> Batch:
        """The batch as it is now."""
        return await self.db.read(show.one, batch_id, principal.sees, self.clock())

    async def list_batches(self, principal: Principal, wanted: BatchFilter) -> BatchList:
        """A page of the caller's batches."""
        return await self.db.read(show.page, principal.sees, wanted)

    async def cancel_batch(self, principal: Principal, batch_id: str) -> Batch:
        """See `pipeline/cancel.py`."""
        await cancel.cancel(self.trip, batch_id, principal.sees)
        return await self.retrieve_batch(principal, batch_id)

    async def adopt_batch(self, principal: Principal, wanted: BatchAdopt) -> Batch:
        """See `pipeline/adopt.py`."""
        return await self.retrieve_batch(principal, await adopt.adopt(self.trip, principal, wanted))

    async def retry_batch(self, principal: Principal, batch_id: str, *, idempotency: Idempotency | None) -> Batch:
        """See `pipeline/retry.py`."""
        return await retry.retry(self.trip, principal, batch_id, idempotency=idempotency)

    async def estimate(self, principal: Principal, wanted: EstimateCreate) -> BatchEstimate:
        """See `pipeline/forecast.py`."""
        return await forecast.forecast(self.trip, principal, wanted)

    def results(self, principal: Principal, batch_id: str, wanted: ResultsFilter) -> AsyncIterator[bytes]:
        """See `pipeline/results.py`."""
        return results.results(self.trip, principal.sees, batch_id, wanted)

    async def models(self, principal: Principal) -> ModelList:
        """The names that lines may use."""
        del principal
        return ModelList(data=[Model(id=name, owned_by=account) for name, account in await self.trip.accounts.names()])


async def build(settings: Settings, env: Mapping[str, str] | None = None) -> Gateway:
    """A wired gateway whose roles do not work yet; ConfigError when the settings cannot work.

    Call it inside the event loop that shall serve, and `close` it there.
    """
    home = settings.folder
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    http = Http(user_agent="batchway", random=SystemRandom(), max_connections=CONNECTIONS)
    storage = open_storage(settings.storage, home=home)
    accounts = _accounts(settings, Tools(http=http, storage=storage, clock=time.time, random=SystemRandom()), env)
    db = Database(settings.database)
    _check_roles(settings, db)
    engine = _engine(settings, db)
    executor = Executor(
        db=db,
        storage=storage,
        http=http,
        engine=engine,
        endpoints=accounts.endpoints(),
        clock=time.time,
        new_id=new_id,
    )
    accounts.use_executor(registry.open_executed(executor))
    trip = Trip(
        db=db,
        storage=storage,
        accounts=accounts,
        prices=Prices(),
        clock=time.time,
        new_id=new_id,
        scratch=_scratch(home),
        alive=engine.alive,
        max_file_bytes=settings.max_file_bytes,
        poll_seconds=settings.poll_seconds,
    )
    return Gateway(settings=settings, trip=trip, http=http, engine=engine, executor=executor)


def _check_roles(settings: Settings, db: Database) -> None:
    missing = set(ROLES) - {"api"} - set(settings.roles)
    if db.is_sqlite and missing:
        raise ConfigError(
            f"roles: SQLite serves one process, which needs {', '.join(sorted(missing))} too; PostgreSQL parts them"
        )


def _accounts(settings: Settings, tools: Tools, env: Mapping[str, str] | None) -> Accounts:
    entries = registry.entries(settings.providers, os.environ if env is None else env)
    return Accounts(registry.open_accounts(entries, tools), settings.models, registry.aliases(), time.time)


def _engine(settings: Settings, db: Database) -> Engine:
    return Engine(
        database_url=db.url.render_as_string(hide_password=False),
        loop=asyncio.get_running_loop(),
        exclusive_lock=settings.folder / "engine.lock" if db.is_sqlite else None,
    )


def _scratch(home: Path) -> Path:
    folder = home / "scratch"
    folder.mkdir(mode=0o700, exist_ok=True)
    for stray in folder.iterdir():  # of a process that was killed
        stray.unlink(missing_ok=True)
    return folder
