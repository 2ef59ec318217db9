from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from batchway.core.errors import Fault, NotFound, ProviderError, RequestError
from batchway.core.principal import Principal
from batchway.db.audit import AuditFilter, page
from batchway.pipeline.adopt import adopt
from batchway.pipeline.collect import collect
from batchway.wire.batches import BatchAdopt
from tests.stages.memory_provider import Remote, good
from tests.stages.money import GATEWAY, adds_up, budget, held, need, set_budget
from tests.stages.world import PRICED, WHO, chat, either, killed_everywhere, line, world

__all__ = ["either", "world"]

WANTED = BatchAdopt(provider="alpha", remote_id="foreign", metadata={"from": "elsewhere"})


def foreign(world, *lines) -> Remote:
    """A batch that somebody made at the provider without us."""
    made = lines or chat(4)
    pairs = [(one["custom_id"], json.dumps(one).encode()) for one in made]
    world.alpha.jobs["foreign"] = Remote(id="foreign", token="another's", lines=pairs)
    return world.alpha.jobs["foreign"]


async def test_a_foreign_batch_walks_the_same_road(either):
    foreign(either)
    batch_id = await adopt(either.trip, WHO, WANTED)
    row, job = await either.row(batch_id), await either.job(batch_id)
    assert (row["status"], row["total"], row["metadata"]) == ("in_progress", 4, {"from": "elsewhere"})
    assert (job["status"], job["remote_id"], job["account"], job["model"]) == ("running", "foreign", "alpha", PRICED)
    assert await either.events(batch_id) == ["batch.created", "batch.in_progress", "job.submitted"]
    assert await either.drive(batch_id) == "completed"
    output, _ = await either.files_of(batch_id)
    assert [found["custom_id"] for found in output] == ["line-1", "line-2", "line-3", "line-4"]
    assert [entry["lines"] for entry in await either.entries(batch_id)] == [4]
    assert not either.alpha.calls["submit"]


async def test_adopting_again_answers_the_batch_that_has_it(either):
    foreign(either)
    first = await adopt(either.trip, WHO, WANTED)
    assert await adopt(either.trip, WHO, WANTED) == first
    await either.drive(first)
    assert await adopt(either.trip, WHO, WANTED) == first


async def test_an_adoption_is_in_the_audit_log_once(world):
    foreign(world)
    batch_id = await adopt(world.trip, WHO, WANTED, request_id="r")
    await adopt(world.trip, WHO, WANTED, request_id="again")
    ((entry,), _) = await world.db.read(page, AuditFilter())
    assert (entry["key_id"], entry["request_id"], entry["action"], entry["target"], entry["details"]) == (
        WHO.key_id, "r", "batch.adopted", batch_id, {"provider": "alpha", "remote_id": "foreign"},
    )  # fmt: skip


async def test_a_job_of_our_own_is_known_already(world):
    batch_id = await world.prepared(*chat(2))
    (remote,) = world.alpha.jobs
    assert await adopt(world.trip, WHO, BatchAdopt(provider="alpha", remote_id=remote)) == batch_id


async def test_a_batch_that_another_project_adopted_is_not_told(world):
    foreign(world)
    await adopt(world.trip, WHO, WANTED)
    with pytest.raises(NotFound):
        await adopt(world.trip, Principal(key_id="key_2", project="q"), WANTED)


async def test_of_two_who_adopt_at_once_one_batch_comes(either):
    foreign(either)
    found = await asyncio.gather(*(adopt(either.trip, WHO, WANTED) for _ in range(3)))
    assert len(set(found)) == 1


@pytest.mark.parametrize("where", ["look", "input"])
async def test_what_the_provider_does_not_have_is_not_found(world, where):
    if where == "input":
        foreign(world)
        gone = ProviderError("gone", fault=Fault.REJECTED, status=404)

        async def fetch_input(look):
            raise gone
            yield b""

        world.alpha.fetch_input = fetch_input
    with pytest.raises(NotFound, match="foreign"):
        await adopt(world.trip, WHO, WANTED)


@pytest.mark.parametrize("provider", ["nobody", "gamma"])
async def test_an_account_without_batches_of_its_own_is_refused(world, provider):
    with pytest.raises(RequestError, match=provider) as refused:
        await adopt(world.trip, WHO, BatchAdopt(provider=provider, remote_id="x"))
    assert refused.value.param == "provider"


async def test_metadata_is_checked_before_anything_is_asked(world):
    with pytest.raises(RequestError):
        await adopt(world.trip, WHO, msgspec.structs.replace(WANTED, metadata={"x": 1}))
    assert not world.alpha.calls


async def test_lines_that_share_a_custom_id_do_not_shift_the_others(world):
    """Our own validation refuses them; a provider may not have."""
    remote = foreign(world, line(1), line(2), line(2), line(4))
    batch_id = await adopt(world.trip, WHO, WANTED)
    world.alpha.end()
    remote.answers = [good(name) for name in ("line-4", "line-2", "line-1")]
    await world.look()
    await collect(world.trip, (await world.job(batch_id))["id"])
    assert await world.drive(batch_id) == "completed"
    output, errors = await world.files_of(batch_id)
    assert [found["custom_id"] for found in output] == ["line-1", "line-2", "line-4"]
    assert [(found["custom_id"], found["error"]["code"]) for found in errors] == [("line-2", "missing_answer")]


async def test_a_death_anywhere_adopts_once():
    async def before(world):
        foreign(world)

    async def stage(world, _):
        await adopt(world.trip, WHO, WANTED)

    async def after(world, _):
        batch_id = await adopt(world.trip, WHO, WANTED)
        assert await world.drive(batch_id) == "completed"
        assert [entry["lines"] for entry in await world.entries(batch_id)] == [4]

    await killed_everywhere(before, stage, after)


async def test_what_is_adopted_is_held_for_whatever_the_budget_and_settled_as_any_other(either):
    await set_budget(either, GATEWAY, 1)
    foreign(either)
    batch_id = await adopt(either.trip, WHO, WANTED)
    hold = await held(either, batch_id)
    assert hold == await need(*chat(4))
    assert (await budget(either, GATEWAY)).remainder == 1 - hold
    assert (await either.row(batch_id))["input_tokens"] > 0
    assert await either.drive(batch_id) == "completed"
    assert (await budget(either, GATEWAY)).used == (await either.row(batch_id))["amount"]
    await adds_up(either)
