"""Two workers, an API apart from them, one PostgreSQL: one worker is killed and does not come back.

The leases are those that are shipped. Work that waited is done by the other worker at once; what the dead one had in
its hands is taken over when its lease has run out.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchway.db.engine import driver_url
from batchway.engine.connections import SCHEMA
from batchway.executor.tuning import Tuning
from batchway.pipeline.poll import LEASE as POLL_LEASE
from tests.crash.ordeal import Ordeal, chat_lines
from tests.crash.repeats import Repeats
from tests.gateway import Gateway
from tests.postgres import Postgres
from tests.simulator import Simulator

LINES = 1_600  # half of them executed
LATENCY = 0.2
CONCURRENCY = 16
LEASE = 15.0
GRACE = 1.5 * LEASE  # before a fresh process judges others
ROUNDS = 8.0  # seconds: the reaper's round, the poller's, and what is left to be done
FAULTS = "line=0.03,429=0.02,500=0.02,accept_then_500=0.5"
KINDS = {"openai": "openai", "local": "openai_compatible"}


def started(stack: ExitStack, folder: Path, name: str, settings: dict[str, object]) -> Gateway:
    gateway = Gateway(folder / name, settings, name=name)
    stack.callback(gateway.kill)
    gateway.launch()
    return gateway


def chunks_held(database: str) -> Counter[int]:
    """How many chunks each process has in its hands: an executor's id is host, pid and chance, by dashes."""
    engine = sa.create_engine(driver_url(database))
    table = f"{SCHEMA}.workflow_status"
    with engine.connect() as connection:
        query = sa.text(f"select executor_id from {table} where queue_name = 'chunk' and status = 'PENDING'")
        ids = list(connection.scalars(query))
    engine.dispose()
    return Counter(int(executor_id.rsplit("-", 2)[1]) for executor_id in ids)


@pytest.mark.postgres
def test_another_worker_takes_over_within_the_lease(tmp_path: Path, postgres: Postgres) -> None:
    with ExitStack() as stack:
        simulator = Simulator(tmp_path / "simulator", speed=60, fail=FAULTS, latency=LATENCY, retry_after=0.2)
        stack.callback(simulator.close)
        native = {"api_key": "sim", "base_url": simulator.base_url, "max_lines": 600}
        local = {"kind": "openai_compatible", "base_url": simulator.base_url, "api_key": "sim", "models": ["llama"]}
        shared = {
            "database_url": postgres.fresh(),
            "storage_url": f"file://{tmp_path / 'storage'}",
            "poll_seconds": 0.5,
            "providers": {"openai": native, "local": {**local, "concurrency": CONCURRENCY}},
        }
        api = started(stack, tmp_path, "api", {**shared, "roles": ["api"]})
        api.wait_ready()  # it makes the tables
        workers = [
            started(stack, tmp_path, name, {**shared, "roles": ["worker", "poller", "housekeeping"]})
            for name in ("worker-1", "worker-2")
        ]
        for worker in workers:
            worker.wait_ready()
        born = time.monotonic()
        ordeal = Ordeal(api, simulator, seed=1, kills=0)
        repeats = Repeats(api, simulator)
        ordeal.begin(chat_lines(LINES, ("gpt-4o-mini", "local/llama")))
        ordeal.watch(3)
        held = chunks_held(api.database)
        victim = max(workers, key=lambda worker: held[worker.process.pid])
        assert held[victim.process.pid] > 0, f"nobody executes anything: {held}"
        victim.kill()
        killed = time.monotonic()
        repeats.note()
        ordeal.watch(float("inf"))
        took = time.monotonic() - killed
        print(f"{held}, killed {victim.name}; {ordeal.status} {took:.1f} s later")
        bound = CONCURRENCY + 3 * Tuning().segment_lines
        assert [*ordeal.violations(KINDS), *repeats.violations(bound)] == []
        print(f"{repeats.repeats} answers paid for again")
        assert ordeal.status == "completed"
        # The wait for the dead one's lease, or for a look it had claimed, and what all of it takes a single worker.
        assert took < max(LEASE, born + GRACE - killed, POLL_LEASE) + ROUNDS + LINES / 2 * LATENCY / CONCURRENCY
