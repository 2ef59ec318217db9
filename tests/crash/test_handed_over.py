"""Work that was handed to the engine and is due again is handed over again soon, whoever ran it in between."""

from __future__ import annotations

from types import SimpleNamespace

from batchway.db.engine import Database
from batchway.db.transitions import create_batch
from batchway.pipeline.dispatch import SETTLES
from batchway.pipeline.trip import Bells
from batchway.worker import Worker


class OtherProcess:
    """An engine whose work another process takes: nobody here hears of its end."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def ensure(self, name: str, key: str) -> bool:
        self.asked.append((name, key))
        return True


async def test_a_batch_that_another_process_left_due_waits_no_longer_than_a_lost_submit(tmp_path):
    now = [1_800_000_000.0]
    database = Database(f"sqlite:///{tmp_path / 'batchway.db'}")
    batch = {"id": "batch_1", "project": "p", "key_id": "k", "endpoint": "/v1/chat/completions", "total": 1}
    batch |= {"input_file_id": "file-1", "completion_window": "24h", "window_seconds": 86400}
    await database.write(create_batch, now[0], {**batch, "expires_at": now[0] + 86400})
    engine = OtherProcess()
    trip = SimpleNamespace(db=database, clock=lambda: now[0], bells=Bells())
    worker = Worker(
        SimpleNamespace(
            trip=trip, engine=engine, executor=None, teller=None, settings=SimpleNamespace(roles=["worker"])
        )
    )
    await worker._start_due()
    now[0] += 1
    await worker._start_due()
    assert engine.asked == [("prepare", "batch_1")]
    now[0] += SETTLES
    await worker._start_due()
    assert engine.asked == [("prepare", "batch_1")] * 2
    database.close()
