from __future__ import annotations

import msgspec
import pytest

from batchway.core.errors import Conflict, NotFound, OverBudget
from batchway.core.principal import Policy, Principal
from batchway.core.states import Outcome
from batchway.db import files
from batchway.db.budgets import budget_of, set_budget
from batchway.db.idempotency import Idempotency
from batchway.pipeline.housekeeping import tidy
from batchway.pipeline.intake import delete_file
from batchway.pipeline.retry import retry
from tests.stages.memory_provider import bad, good
from tests.stages.world import PRICED, SIGHT, UNPRICED, WHO, chat, either, line, world

__all__ = ["either", "world"]

ADMIN = Principal(key_id="root", project="default", scopes=frozenset({"admin"}))


def some(name: str):
    number = int(name.removeprefix("line-"))
    return None if number % 5 == 0 else bad(name) if number % 3 == 0 else good(name)


async def ended(world, *lines, answer=some, **wanted):
    batch_id = await world.prepared(*lines, **wanted)
    for provider in world.providers:
        provider.end(Outcome.EXPIRED, answer)
    await world.drive(batch_id)
    return batch_id


async def test_the_lines_without_a_good_answer_are_tried_again(either):
    old_id = await ended(either, *chat(300, PRICED, UNPRICED), metadata={"a": "b"}, priority=3)
    new = await retry(either.trip, WHO, old_id)
    row = await either.row(new.id)
    assert (row["metadata"], row["priority"], row["completion_window"]) == ({"a": "b"}, 3, "24h")
    assert row["extra"] == {"retry_of": old_id}
    assert await either.drive(new.id) == "completed"
    output, _ = await either.files_of(new.id)
    again = [number for number in range(1, 301) if number % 5 == 0 or number % 3 == 0]
    assert [found["custom_id"] for found in output] == [f"line-{number}" for number in again]


async def test_the_old_batch_stays_as_it_is(world):
    old_id = await ended(world, *chat(6))
    before = dict(await world.row(old_id))
    await retry(world.trip, WHO, old_id)
    assert dict(await world.row(old_id)) == before


async def test_a_live_batch_cannot_be_retried(world):
    batch_id = await world.prepared(*chat(2))
    with pytest.raises(Conflict, match="in_progress"):
        await retry(world.trip, WHO, batch_id)


@pytest.mark.parametrize("why", ["all good", "failed"])
async def test_a_batch_with_nothing_to_try_again_is_refused(world, why):
    batch_id = await (ended(world, *chat(2), answer=good) if why == "all good" else world.batch(line(1, "none-such")))
    await world.drive(batch_id)
    with pytest.raises(Conflict, match="no line to try again"):
        await retry(world.trip, WHO, batch_id)


async def test_a_batch_whose_input_is_gone_is_refused(world):
    batch_id = await ended(world, *chat(6))
    row = await world.row(batch_id)
    await delete_file(world.trip, await world.db.read(files.get, row["input_file_id"], SIGHT))
    with pytest.raises(Conflict, match="input file"):
        await retry(world.trip, WHO, batch_id)


async def test_a_batch_whose_answers_are_tidied_away_is_refused(world):
    batch_id = await ended(world, *chat(6))
    await tidy(world.trip, batch_id)
    with pytest.raises(Conflict):
        await retry(world.trip, WHO, batch_id)


async def test_somebody_elses_batch_is_not_found_and_an_admins_retry_stays_in_its_project(world):
    batch_id = await ended(world, *chat(6))
    with pytest.raises(NotFound):
        await retry(world.trip, Principal(key_id="key_2", project="q"), batch_id)
    new = await retry(world.trip, ADMIN, batch_id)
    assert (await world.row(new.id))["project"] == "p"
    assert await world.drive(new.id) == "completed"


async def test_an_admins_retry_belongs_to_and_is_paid_by_the_key_of_the_old_batch(either):
    policies = (Policy(models=("gpt-*",)),)
    who = msgspec.structs.replace(WHO, private=True, policies=policies)
    old_id = await ended(either, *chat(6), who=who)
    await either.db.write(set_budget, "key:key_1", 10**12, "total", either.now)
    key = Idempotency(key="k", fingerprint="f")
    new = await retry(either.trip, ADMIN, old_id, idempotency=key)
    row = await either.row(new.id)
    assert (row["key_id"], row["project"], row["private"]) == ("key_1", "p", True)
    assert row["policies"] == [{"models": ["gpt-*"], "providers": None}]
    assert (await retry(either.trip, ADMIN, old_id, idempotency=key)).id == new.id
    assert await either.drive(new.id) == "completed"
    assert (await either.row(new.id))["amount"] > 0
    assert {entry["key_id"] for entry in await either.entries(new.id)} == {"key_1"}
    found = await either.db.read(budget_of, "key:key_1", either.now)
    assert found.settled == (await either.row(old_id))["amount"] + (await either.row(new.id))["amount"]


async def test_a_retry_over_budget_leaves_no_file(world):
    old_id = await ended(world, *chat(6))
    await world.db.write(set_budget, "project:p", 0, "total", world.now)
    before = sorted(world.storage._root.rglob("file-*"))
    with pytest.raises(OverBudget):
        await retry(world.trip, ADMIN, old_id)
    assert sorted(world.storage._root.rglob("file-*")) == before
