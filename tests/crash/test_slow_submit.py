"""A provider that is still at work on our submit when its sender was killed: the job is found, not sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from batchway.billing.prices import Prices
from batchway.core.errors import Fault, ProviderError
from batchway.core.ids import new_id
from batchway.core.jobs import Limits
from batchway.core.states import BatchState, JobState
from batchway.db import jobs
from batchway.db.engine import Database
from batchway.db.transitions import create_batch, create_jobs, move_batch, move_job
from batchway.pipeline.dispatch import SETTLES, dispatch
from batchway.pipeline.trip import Trip
from batchway.providers.accounts import Accounts
from batchway.providers.protocol import Account
from batchway.storage import open_storage
from tests.stages.world import webhook_endpoints

UPLOAD = 3600.0  # seconds that passed between our commit and the call that creates the provider's batch


class Slow:
    """Shows a submit only a while after it was made; its `find` may fail first."""

    def __init__(self, *failures: ProviderError) -> None:
        self.submits = 0
        self.visible = False
        self._failures = list(failures)

    def limits(self, model: str) -> Limits:
        return Limits(lines=10, bytes=10_000, endpoints=frozenset({"/v1/chat/completions"}))

    async def submit(self, job: Any, source: Any) -> str:
        self.submits += 1
        return "remote-2"

    async def find(self, job: Any) -> str | None:
        if self._failures:
            raise self._failures.pop()
        return "remote-1" if self.visible else None


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Any]:
    """A job whose sender was killed just after a long upload, and a clock to move."""
    now = [1_800_000_000.0]
    provider = Slow()
    database = Database(f"sqlite:///{tmp_path / 'batchway.db'}")
    storage = open_storage(f"file://{tmp_path / 'storage'}", home=tmp_path)
    trip = Trip(
        db=database,
        storage=storage,
        accounts=Accounts([Account(name="slow", kind="slow", native=provider)], {}, {}, lambda: now[0]),
        prices=Prices(),
        clock=lambda: now[0],
        new_id=new_id,
        scratch=tmp_path,
        alive=lambda: True,
        max_file_bytes=1 << 20,
        webhooks=webhook_endpoints(lambda: now[0]),
    )
    await database.write(_submitting, now[0])
    now[0] += UPLOAD
    yield SimpleNamespace(trip=trip, provider=provider, now=now)
    database.close()
    await storage.close()


def _submitting(tx: Any, now: float) -> None:
    batch = {"id": "batch_1", "project": "p", "key_id": "k", "endpoint": "/v1/chat/completions"}
    batch |= {"input_file_id": "file-1", "completion_window": "24h", "window_seconds": 86400, "total": 1}
    create_batch(tx, now, {**batch, "expires_at": now + 86400})
    job = {"id": "job_1", "batch_id": "batch_1", "ordinal": 0, "token": "bw1", "account": "slow", "model": "m"}
    job |= {"lane": "native", "models": [], "endpoint": "/v1/chat/completions", "file_key": "files/file-1"}
    job |= {"span_start": 0, "span_end": 1, "first_line": 1, "lines": 1, "bytes": 1, "window_seconds": 86400}
    create_jobs(tx, now, [{**job, "deadline": now + 86400}])
    move_batch(tx, "batch_1", BatchState.VALIDATING, BatchState.IN_PROGRESS, now, {"prepared_at": now})
    move_job(tx, "job_1", JobState.PLANNED, JobState.SUBMITTING, now)


async def test_a_submit_that_shows_up_late_is_found_although_its_upload_took_long(world):
    await dispatch(world.trip, "batch_1")
    world.provider.visible = True
    world.now[0] += SETTLES
    await dispatch(world.trip, "batch_1")
    row = await world.trip.db.read(jobs.get, "job_1")
    assert (row["status"], row["remote_id"], world.provider.submits) == (JobState.RUNNING, "remote-1", 0)


async def test_a_failed_look_for_the_submit_is_no_shorter_wait(world):
    world.provider._failures.append(ProviderError("away", fault=Fault.TRANSIENT))
    await dispatch(world.trip, "batch_1")
    world.now[0] += SETTLES - 1
    await dispatch(world.trip, "batch_1")
    world.provider.visible = True
    world.now[0] += 1
    await dispatch(world.trip, "batch_1")
    assert (await world.trip.db.read(jobs.get, "job_1"))["remote_id"] == "remote-1"
    assert world.provider.submits == 0


async def test_a_submit_that_never_happened_is_made_after_the_wait(world):
    await dispatch(world.trip, "batch_1")
    assert world.provider.submits == 0
    world.now[0] += SETTLES
    await dispatch(world.trip, "batch_1")
    assert world.provider.submits == 1
