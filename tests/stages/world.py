"""The surroundings of a stage for tests: real database and storage, a clock set by hand, counting ids, and providers
that keep their jobs in memory but fill the protocol for real.

`World.points` counts the commits, the stored objects and the remote calls; `kill_at(n)` ends the stage at the n-th as
kill -9 would: nothing of ours runs after it (`Killed` is no Exception). `World.drive` walks a batch to its end as the
worker does, by the same statements.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from batchway import pipeline
from batchway.billing.prices import Prices
from batchway.core.ids import new_id
from batchway.core.jobs import Limits
from batchway.core.principal import Principal
from batchway.core.states import FINAL_BATCH_STATES, Outcome
from batchway.db import batches, files, jobs, ledger
from batchway.db.engine import Database
from batchway.db.outbox import of_subject
from batchway.db.schema import metadata
from batchway.executor import Endpoint
from batchway.integrations.webhook.endpoints import Endpoints
from batchway.integrations.webhook.guard import Guard
from batchway.integrations.webhook.send import Messenger
from batchway.pipeline.create import create
from batchway.pipeline.intake import Incoming, receive
from batchway.pipeline.trip import Trip
from batchway.providers.accounts import Accounts
from batchway.providers.protocol import Account
from batchway.storage import LocalStorage
from batchway.wire.batches import BatchCreate
from tests.stages.memory_provider import Killed, MemoryProvider, Points, good

__all__ = ["either", "world"]

NOW = 1_790_000_000.0
CHAT = "/v1/chat/completions"
PRICED, UNPRICED, SERVED = "gpt-4o-mini", "odd-model", "served-model"
BOTH = "either-model"  # a name with two routes: PRICED at alpha, UNPRICED at beta
PRICES = Prices()
WHO = Principal(key_id="key_1", project="p")
SIGHT = WHO.sight


class MortalDatabase(Database):
    def __init__(self, url: str, points: Points) -> None:
        super().__init__(url)
        self._points = points

    async def write(self, statement, *args, **kwargs):
        self._points.reach(f"before {statement.__name__}")
        done = await super().write(statement, *args, **kwargs)
        self._points.reach(f"after {statement.__name__}")
        return done


class MortalStorage(LocalStorage):
    def __init__(self, root: Path, points: Points) -> None:
        super().__init__(root, durable=False)
        self._points = points

    @asynccontextmanager
    async def writer(self, key: str):
        async with super().writer(key) as writing:
            yield writing
            self._points.reach(f"before {key} is whole")
        self._points.reach(f"after {key} is whole")

    async def put(self, key: str, data: bytes) -> None:
        self._points.reach(f"before {key} is put")
        await super().put(key, data)
        self._points.reach(f"after {key} is put")

    async def delete(self, key: str) -> None:
        await super().delete(key)
        self._points.reach(f"after {key} is deleted")


class World:
    """A trip and what stands around it. Accounts: alpha (priced), beta (no price), gamma (executed lane only)."""

    def __init__(self, url: str, root: Path, *, lines: int = 256, size: int = 64 << 20) -> None:
        self.points = Points()
        self.now = NOW
        limits = Limits(lines=lines, bytes=size, endpoints=frozenset({CHAT}))
        executed = Limits(lines=50_000, bytes=4 << 30, endpoints=frozenset({CHAT}), windows=(60, 30 * 86400))
        self.alpha, self.beta = MemoryProvider(self.points, limits), MemoryProvider(self.points, limits)
        self.executed = MemoryProvider(self.points, executed)
        place = Endpoint(base_url="http://127.0.0.1:9", headers={})
        accounts = Accounts(
            [
                Account(name="alpha", kind="openai", native=self.alpha, models=(PRICED, "gpt-4o")),
                Account(name="beta", kind="odd", native=self.beta, models=(UNPRICED,)),
                Account(name="gamma", kind="served", endpoint=place, models=(SERVED,)),
            ],
            {"alias": [f"alpha/{PRICED}"], BOTH: [f"alpha/{PRICED}", f"beta/{UNPRICED}"]},
            {},
            lambda: self.now,
        )
        accounts.use_executor(self.executed)
        (root / "scratch").mkdir(parents=True)
        self.db = MortalDatabase(url, self.points)
        self.storage = MortalStorage(root / "files", self.points)
        ids = itertools.count(1)
        self.trip = Trip(
            db=self.db,
            storage=self.storage,
            accounts=accounts,
            prices=PRICES,
            clock=lambda: self.now,
            new_id=lambda prefix: f"{prefix}{next(ids):06d}",
            scratch=root / "scratch",
            alive=lambda: self.lives,
            max_file_bytes=1 << 30,
            webhooks=webhook_endpoints(lambda: self.now),
        )
        self.lives = True

    async def close(self) -> None:
        self.db.close()
        await self.storage.close()

    @property
    def providers(self) -> tuple[MemoryProvider, ...]:
        return self.alpha, self.beta, self.executed

    async def file(self, *lines: dict[str, Any]) -> str:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 100_000):
                yield data[start : start + 100_000]

        incoming = Incoming(project="p", key_id="key_1", filename="in.jsonl", purpose="batch")
        return (await receive(self.trip, incoming, chunks()))["id"]

    async def batch(self, *lines: dict[str, Any], **wanted: Any) -> str:
        """A new batch of these lines, in `validating`."""
        who = wanted.pop("who", WHO)
        file_id = wanted.pop("input_file_id", None) or await self.file(*lines)
        fields = {"endpoint": CHAT, "completion_window": "24h", "input_file_id": file_id} | wanted
        return (await create(self.trip, who, msgspec.convert(fields, BatchCreate))).id

    async def prepared(self, *lines: dict[str, Any], **wanted: Any) -> str:
        batch_id = await self.batch(*lines, **wanted)
        await pipeline.prepare(self.trip, batch_id)
        return batch_id

    async def ended(self, *lines: dict[str, Any], outcome: Outcome = Outcome.SUCCEEDED, answer=good) -> str:
        """A batch whose jobs have ended at their providers, and are to be collected."""
        batch_id = await self.prepared(*lines)
        for provider in self.providers:
            provider.end(outcome, answer)
        await self.look()
        return batch_id

    async def look(self) -> None:
        """Every running job is looked at."""
        self.now += 120
        await pipeline.poll(self.trip)

    async def settle(self, batch_id: str) -> None:
        for row in await self.jobs(batch_id):
            await pipeline.settle(self.trip, row["id"])

    async def row(self, batch_id: str):
        return await self.db.read(batches.get, batch_id)

    async def jobs(self, batch_id: str):
        return await self.db.read(jobs.of_batch, batch_id)

    async def job(self, batch_id: str):
        (row,) = await self.jobs(batch_id)
        return row

    async def entries(self, batch_id: str):
        return await self.db.read(ledger.of_batch, batch_id)

    async def events(self, batch_id: str) -> list[str]:
        return [event.type.value for event in await self.db.read(of_subject, batch_id)]

    async def read(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        row = await self.db.read(files.get, file_id, SIGHT)
        return [json.loads(line) for line in (await self.storage.get(row["storage_key"])).splitlines()]

    async def files_of(self, batch_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines of the output file and of the error file."""
        row = await self.row(batch_id)
        return await self.read(row["output_file_id"]), await self.read(row["error_file_id"])

    async def step(self) -> None:
        """Every durable function that is due, once, as the worker would start them."""
        read = self.db.read
        for batch_id in await read(batches.to_prepare, self.now, 100):
            await pipeline.prepare(self.trip, batch_id)
        for batch_id in await read(batches.past_deadline, self.now, 100):
            await pipeline.expire(self.trip, batch_id)
        for batch_id in await read(batches.to_stop, self.now, 100):
            await pipeline.stop(self.trip, batch_id)
        await pipeline.poll(self.trip)
        for job_id in await read(jobs.to_settle, self.now, 100):
            await pipeline.settle(self.trip, job_id)
        for batch_id in await read(batches.ready_to_finalize, self.now, 100):
            await pipeline.finish(self.trip, batch_id)

    async def drive(self, batch_id: str, *, steps: int = 40) -> str:
        """Walks on until the batch has ended; its last status."""
        for _ in range(steps):
            status = (await self.row(batch_id))["status"]
            if status in FINAL_BATCH_STATES:
                return status
            for provider in self.providers:
                provider.end()
            await self.step()
            self.now += 30
        raise AssertionError(f"{batch_id} is still {status}: {[dict(row) for row in await self.jobs(batch_id)]}")


def webhook_endpoints(clock: Callable[[], float]) -> Endpoints:
    """Of hosts that are all on this machine, with secrets that are sealed in name only."""
    messenger = Messenger(clock, Guard(_here))
    return Endpoints(messenger, clock=clock, new_id=new_id, seal=str.swapcase, unseal=str.swapcase)


async def _here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def line(number: int, model: str = PRICED, **changes: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": f"say {number}"}]}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body, **changes}


def chat(count: int, *models: str) -> list[dict[str, Any]]:
    """Lines from 1, their models by turns."""
    named = models or (PRICED,)
    return [line(number, named[(number - 1) % len(named)]) for number in range(1, count + 1)]


@functools.cache
def blank() -> bytes:
    """An SQLite database with its tables made: a copy costs a tenth of making them again."""
    with tempfile.TemporaryDirectory() as folder:
        Database(f"sqlite:///{folder}/db").close()
        return (Path(folder) / "db").read_bytes()


@asynccontextmanager
async def open_world(url: str | None = None, **options: Any):
    """A world in a folder of its own; on SQLite unless `url` says otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if url is None:
            (root / "db").write_bytes(blank())
        world = World(url or f"sqlite:///{root}/db", root, **options)
        try:
            yield world
        finally:
            await world.close()


async def killed_everywhere(before, stage, after, **options: Any) -> list[str]:
    """In a fresh world for each point within `stage`: `before`, the stage killed there, the stage again, `after`.

    `before(world)` answers what `stage(world, it)` and `after(world, it)` are given. The names of the points.
    """
    names: list[str] = []
    for number in itertools.count(1):
        async with open_world(**options) as world:
            it = await before(world)
            world.points.kill_at(number)
            try:
                await stage(world, it)
            except BaseException as end:
                if not killed(end):
                    raise
                names.append(world.points.names[-1])
                world.points.kill_at(None)
                world.now += 10  # a restart takes a moment
                await stage(world, it)
            else:
                assert names, "the stage passes no point"
                return names
            await after(world, it)
    raise AssertionError


def killed(end: BaseException) -> bool:
    """Whether this is a death, maybe within a task group."""
    return isinstance(end, Killed) or (isinstance(end, BaseExceptionGroup) and any(map(killed, end.exceptions)))


async def at_once(stage: Callable[[], Any], times: int = 3) -> None:
    await asyncio.gather(*(stage() for _ in range(times)))


@pytest.fixture
async def world():
    """On SQLite."""
    async with open_world() as opened:
        yield opened


_shared: dict[int, str] = {}  # one PostgreSQL database for all of these tests: making one costs more than a test does


def emptied(server) -> str:
    """The URL of a PostgreSQL database with empty tables."""
    if id(server) not in _shared:
        _shared[id(server)] = server.fresh()
        return _shared[id(server)]
    with psycopg.connect(_shared[id(server)], autocommit=True) as connection:
        names = ", ".join(table.name for table in metadata.sorted_tables if table.name != "meta")
        connection.execute(f"TRUNCATE {names} RESTART IDENTITY")
    return _shared[id(server)]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def either(request):
    """On SQLite, and on PostgreSQL."""
    url = emptied(request.getfixturevalue("postgres")) if request.param == "postgresql" else None
    async with open_world(url) as opened:
        yield opened
