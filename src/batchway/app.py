"""The composition root: settings in, a wired gateway out. Nothing else builds anything."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import SystemRandom

import msgspec

from batchway.billing.own import own_rows
from batchway.billing.prices import Prices
from batchway.core.budgets import GATEWAY, Period, checked_amount
from batchway.core.errors import ConfigError
from batchway.core.ids import IdMaker, new_id
from batchway.core.principal import Principal
from batchway.db.budgets import set_budget
from batchway.db.engine import Database
from batchway.db.idempotency import Idempotency
from batchway.engine import Engine
from batchway.executor import Executor
from batchway.http import Http
from batchway.integrations import registry as receivers
from batchway.integrations.protocol import Tools as ReceiverTools
from batchway.integrations.webhook.endpoints import Endpoints
from batchway.integrations.webhook.send import Messenger
from batchway.pipeline import adopt, cancel, create, forecast, results, resume, retry, show
from batchway.pipeline.measure import Gauges, Vitals
from batchway.pipeline.notify import Teller
from batchway.pipeline.routing import meters
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

log = logging.getLogger(__name__)

CONNECTIONS = 2048  # at most this many to all providers together


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """What the server serves: the store, and the operations over batches. `trip` is what the stages run on."""

    settings: Settings
    trip: Trip
    http: Http
    engine: Engine
    executor: Executor
    gauges: Gauges
    teller: Teller

    async def close(self) -> None:
        """Lets go of connections and threads; the worker is stopped before."""
        await self.http.close()
        await self.webhooks.close()
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

    @property
    def webhooks(self) -> Endpoints:
        return self.trip.webhooks

    def budget_changed(self) -> None:
        """Batches that wait for money may go on."""
        self.trip.bells.money.set()

    async def create_batch(
        self,
        principal: Principal,
        wanted: BatchCreate,
        *,
        provider: str | None,
        idempotency: Idempotency | None,
        traceparent: str | None = None,
    ) -> Batch:
        """See `pipeline/create.py`."""
        return await create.create(
            self.trip, principal, wanted, provider=provider, idempotency=idempotency, traceparent=traceparent
        )

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

    async def resume_batch(self, principal: Principal, batch_id: str) -> Batch:
        """See `pipeline/resume.py`."""
        await resume.resume(self.trip, batch_id, principal.sees)
        return await self.retrieve_batch(principal, batch_id)

    async def adopt_batch(self, principal: Principal, wanted: BatchAdopt, *, request_id: str) -> Batch:
        """See `pipeline/adopt.py`."""
        batch_id = await adopt.adopt(self.trip, principal, wanted, request_id=request_id)
        return await self.retrieve_batch(principal, batch_id)

    async def retry_batch(self, principal: Principal, batch_id: str, *, idempotency: Idempotency | None) -> Batch:
        """See `pipeline/retry.py`."""
        return await retry.retry(self.trip, principal, batch_id, idempotency=idempotency)

    async def estimate(self, principal: Principal, wanted: EstimateCreate) -> BatchEstimate:
        """See `pipeline/forecast.py`."""
        return await forecast.forecast(self.trip, principal, wanted)

    def results(self, principal: Principal, batch_id: str, wanted: ResultsFilter) -> AsyncIterator[bytes]:
        """See `pipeline/results.py`."""
        return results.results(self.trip, principal.sees, batch_id, wanted)

    async def measure(self, accept: str) -> tuple[bytes, str]:
        """See `pipeline/measure.py`."""
        return await self.gauges.tell(accept)

    async def models(self, principal: Principal) -> ModelList:
        """The names that the caller's lines may use."""
        names = await self.trip.accounts.names()
        allowed = [(name, account) for name, account in names if self._allows(principal, name, account)]
        return ModelList(data=[Model(id=name, owned_by=account) for name, account in allowed])

    def _allows(self, principal: Principal, name: str, account: str) -> bool:
        """Whether every policy allows the name, and all of them together one account that serves it."""
        accounts = {account, *(route.partition("/")[0] for route in self.settings.models.get(name, ()))}
        policies = principal.policies
        return all(policy.allows_model(name) for policy in policies) and any(
            all(policy.allows_provider(account) for policy in policies) for account in accounts
        )


async def build(settings: Settings, env: Mapping[str, str] | None = None) -> Gateway:
    """A wired gateway whose roles do not work yet; ConfigError when the settings cannot work.

    Call it inside the event loop that shall serve, and `close` it there.
    """
    home = settings.folder
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    budget = _budget(settings)
    vault = settings.vault
    own = own_rows(settings.prices, datetime.now(UTC).date())
    prices = Prices(own=own)
    told = receivers.listed(settings.receivers)
    http = Http(user_agent="batchway", random=SystemRandom(), max_connections=CONNECTIONS)
    storage = open_storage(settings.storage, home=home)
    accounts = _accounts(settings, Tools(http=http, storage=storage, clock=time.time, random=SystemRandom()), env)
    for name in sorted(own.keys() - {account.name for account in accounts}):  # it may have left with jobs to account
        log.warning("prices: no account is called '%s'", name)
    db = Database(settings.database)
    _check_roles(settings, db)
    if budget is not None:
        await db.write(set_budget, GATEWAY, *budget, time.time())
    engine = _engine(settings, db)
    executor = Executor(
        db=db,
        storage=storage,
        http=http,
        engine=engine,
        endpoints=accounts.endpoints(),
        clock=time.time,
        new_id=new_id,
        meter_of=meters(prices, accounts, time.time),
    )
    accounts.use_executor(registry.open_executed(executor))
    tools = ReceiverTools(
        http=http, db=db, storage=storage, clock=time.time, new_id=new_id, seal=vault.seal, unseal=vault.unseal
    )
    trip = Trip(
        db=db,
        storage=storage,
        accounts=accounts,
        prices=prices,
        clock=time.time,
        new_id=new_id,
        scratch=_scratch(home),
        alive=engine.alive,
        max_file_bytes=settings.max_file_bytes,
        poll_seconds=settings.poll_seconds,
        unknown_prices=settings.unknown_prices,
        webhooks=Endpoints(Messenger(time.time), clock=time.time, new_id=new_id, seal=tools.seal, unseal=tools.unseal),
    )
    gauges = Gauges(trip, partial(_vitals, engine, executor))
    teller = Teller(trip, told, tools, SystemRandom())
    db.on_told = partial(asyncio.get_running_loop().call_soon_threadsafe, teller.bell.set)
    return Gateway(
        settings=settings, trip=trip, http=http, engine=engine, executor=executor, gauges=gauges, teller=teller
    )


def _vitals(engine: Engine, executor: Executor) -> Vitals:
    works = bool(engine.executor_id)  # not where only the API is served
    return Vitals(works=works, alive=engine.alive(), beat_age=engine.beat_age(), executor=executor.load())


def _check_roles(settings: Settings, db: Database) -> None:
    missing = set(ROLES) - {"api"} - set(settings.roles)
    if db.is_sqlite and missing:
        raise ConfigError(
            f"roles: SQLite serves one process, which needs {', '.join(sorted(missing))} too; PostgreSQL parts them"
        )


def _budget(settings: Settings) -> tuple[int, Period] | None:
    """What the settings say of the whole gateway's budget; they say nothing when it is left to the API."""
    if settings.budget is None:
        return None
    try:
        wanted = msgspec.convert(settings.budget, _GatewayBudget, strict=False)
        return checked_amount(str(wanted.usd)), wanted.period
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"budget: {error}; such as {{usd: '100', period: month}}") from None


class _GatewayBudget(msgspec.Struct, forbid_unknown_fields=True):
    usd: str | int | float
    period: Period = "total"


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
