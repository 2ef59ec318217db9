"""A gateway that is killed again and again while its webhook's receiver comes and goes: no event is lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.gateway import FINAL, Away
from tests.journeys.hooked import hooked
from tests.journeys.trips import Running, chat, running

KINDS = ("batch.", "job.")


def outbox(world: Running) -> dict[str, list[str]]:
    """The stored events of batches, by batch in their order."""
    rows = world.rows("select id, subject, type from outbox order by seq")
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["type"].startswith(KINDS):
            found.setdefault(row["subject"], []).append(row["id"])
    return found


def hurry(world: Running, hook: str) -> None:
    """Nothing is dead yet, and what failed often and waits for long is sent now."""
    assert world.ask("POST", f"/v1/webhooks/{hook}/retry").json["retried"] == 0
    for row in world.ask("GET", f"/v1/webhooks/{hook}/deliveries?status=waiting&limit=100").json["data"]:
        if row["next_attempt_at"] is not None:
            world.ask("POST", f"/v1/webhooks/{hook}/deliveries/{row['id']}/retry")


def ended(world: Running, batches: list[str]) -> bool:
    try:
        return all(world.batch(batch_id)["status"] in FINAL for batch_id in batches)
    except (Away, OSError, sa.exc.OperationalError):
        return False


def ordeal(folder: Path, seed: int, kills: int, count: int) -> None:
    chance = random.Random(seed)
    with hooked() as receiver, running(folder) as world:
        wanted = {"url": receiver.url, "allow_private": True, "events": ["batch.*", "job.*"]}
        hook = world.ask("POST", "/v1/webhooks", wanted).json
        batches = [world.create(world.upload(chat(3)))["id"] for _ in range(count)]
        for _ in range(kills):
            receiver.status = chance.choice([204, 500, 204, 503])
            time.sleep(chance.uniform(0.05, 0.8))  # the moment of the kill is what is drawn
            world.gateway.kill()
            world.gateway.start()
        receiver.status = 204
        deadline = time.monotonic() + 90
        while not ended(world, batches):
            assert time.monotonic() < deadline, world.gateway.tail()
            time.sleep(0.1)
        told = outbox(world)
        hurry(world, hook["id"])
        receiver.until(lambda: {one for ids in told.values() for one in ids} <= _taken(receiver), 90)
    for batch_id in batches:
        mine = [asked.event["id"] for asked in receiver.taken() if asked.event["batchway"]["subject"] == batch_id]
        assert list(dict.fromkeys(mine)) == told[batch_id]
        assert len({asked.event["id"] for asked in receiver.taken() if _success_of(asked, batch_id)}) == 1


def _taken(receiver) -> set[str]:
    return {asked.event["id"] for asked in receiver.taken()}


def _success_of(asked, batch_id: str) -> bool:
    return (asked.event["type"], asked.event["data"]["id"]) == ("batch.completed", batch_id)


def test_kills_and_outages_lose_no_message(tmp_path: Path) -> None:
    ordeal(tmp_path, seed=1, kills=4, count=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 8))
def test_many_kills_and_outages_lose_no_message(tmp_path: Path, seed: int) -> None:
    ordeal(tmp_path, seed, kills=15, count=12)
