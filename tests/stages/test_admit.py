from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from batchway.core.errors import Forbidden, OverBudget, RequestError, TooMany
from batchway.core.money import PICO, to_dollars
from batchway.core.principal import Limits, Policy, Principal
from batchway.db.idempotency import Idempotency
from batchway.pipeline.admit import ask
from batchway.pipeline.create import create
from batchway.pipeline.validate import validate
from batchway.wire.batches import BatchCreate
from tests.stages.money import GATEWAY, KEY, PROJECT, adds_up, budget, held, need, set_budget
from tests.stages.world import BOTH, CHAT, PRICED, SERVED, UNPRICED, WHO, chat, either, line, world

__all__ = ["either", "world"]


def limited(**limits) -> Principal:
    return msgspec.structs.replace(WHO, limits=Limits(**limits))


def under(*policies: Policy) -> Principal:
    return msgspec.structs.replace(WHO, policies=policies)


async def made(world, file_id: str, who: Principal = WHO, **fields) -> str:
    wanted = BatchCreate(endpoint=CHAT, completion_window="24h", input_file_id=file_id)
    return (await create(world.trip, who, wanted, **fields)).id


# Budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [KEY, GATEWAY])
async def test_of_200_at_once_exactly_as_many_come_in_as_there_is_money_for(either, owner):
    file_id, one = await either.file(*chat(2)), await need()
    await set_budget(either, owner, 50 * one + one - 1)
    results = await asyncio.gather(*(made(either, file_id) for _ in range(200)), return_exceptions=True)
    accepted = [found for found in results if isinstance(found, str)]
    assert len(accepted) == 50
    assert all(isinstance(found, str | OverBudget) for found in results)
    found = await budget(either, owner)
    assert (found.held, found.remainder) == (50 * one, one - 1)
    for batch_id in accepted:
        assert await either.drive(batch_id) == "completed"
    amounts = [(await either.row(batch_id))["amount"] for batch_id in accepted]
    found = await budget(either, owner)
    assert (found.held, found.settled) == (0, sum(amounts))
    assert found.remainder == 50 * one + one - 1 - sum(amounts)
    await adds_up(either)


async def test_a_refusal_tells_the_numbers_and_leaves_nothing(either):
    one = await need()
    await set_budget(either, PROJECT, one - 1, "month")
    file_id = await either.file(*chat(2))
    with pytest.raises(OverBudget) as refused:
        await made(either, file_id)
    error = refused.value
    assert (error.status, error.code, error.type) == (429, "insufficient_quota", "insufficient_quota")
    assert error.owner == PROJECT
    assert f"needs at most ${to_dollars(one)}" in error.message
    left = to_dollars(one - 1)
    assert f"project p is ${left} a month: $0 settled, $0 held, ${left} left" in error.message
    assert (await budget(either, PROJECT)).used == 0


async def test_every_budget_of_the_owner_must_have_room(either):
    one = await need()
    await set_budget(either, KEY, PICO)
    await set_budget(either, PROJECT, one)
    await either.batch(*chat(2))
    with pytest.raises(OverBudget):
        await either.batch(*chat(2))
    other = msgspec.structs.replace(WHO, key_id="key_2", project="q")
    await either.batch(input_file_id="file-none", who=other)
    assert (await budget(either, KEY)).held == (await budget(either, PROJECT)).held == one


async def test_a_batch_holds_the_dearest_of_its_routes(world):
    cheap, dear = f"alpha/{PRICED}", "alpha/gpt-4o"
    world.trip.accounts._names["spread"] = [cheap, dear]
    only_dear, spread = await world.batch(*chat(2, dear)), await world.batch(*chat(2, "spread"))
    only_cheap = await world.batch(*chat(2, cheap))
    assert await held(world, only_cheap) < await held(world, spread)
    assert (await held(world, spread)) >= (await held(world, only_dear)) * 9 // 10  # names differ in length


async def test_what_cannot_run_holds_nothing(either):
    await set_budget(either, KEY, 0)
    for wanted in (
        {"input_file_id": "file-none"},
        {"input_file_id": await either.file(line(1), line(1))},
        {"input_file_id": await either.file(line(1, "none-such"))},
        {"input_file_id": await either.file(line(1)), "endpoint": "/v1/embeddings"},
    ):
        batch_id = await either.batch(**wanted)
        assert await held(either, batch_id) is None
        assert await either.drive(batch_id) == "failed"
    await adds_up(either)


async def test_a_batch_that_fails_validation_gives_its_hold_back(either):
    await set_budget(either, KEY, PICO)
    batch_id = await either.batch(*chat(2, "alias"))
    assert (await budget(either)).held > 0
    del either.trip.accounts._names["alias"]
    assert await either.drive(batch_id) == "failed"
    assert (await budget(either)).used == 0
    await adds_up(either)


async def test_what_gets_a_route_after_its_creation_is_held_for_then(either):
    ids = [await either.batch(*chat(2, "late")) for _ in range(2)]
    one = await need()
    await set_budget(either, KEY, one + one // 2)
    either.trip.accounts._names["late"] = [f"alpha/{PRICED}"]
    for batch_id in ids:
        await validate(either.trip, batch_id)
    states = sorted([(await either.row(batch_id))["status"] for batch_id in ids])
    assert states == ["failed", "validating"]
    (fault,) = next(row["errors"] for row in [await either.row(one) for one in ids] if row["errors"])
    assert (fault["code"], fault["line"]) == ("insufficient_quota", None)
    await adds_up(either)


async def test_a_repeated_request_gets_its_first_answer_though_the_money_is_held(either):
    file_id, one = await either.file(*chat(2)), await need()
    await set_budget(either, KEY, one)
    key = Idempotency(key="k", fingerprint="f")
    found = await asyncio.gather(*(made(either, file_id, idempotency=key) for _ in range(6)))
    assert len(set(found)) == 1
    assert (await budget(either)).held == one


async def test_a_key_without_a_budget_of_its_own_goes_by_those_above_it(world):
    admin = Principal(key_id="master", project="p", scopes=frozenset({"admin"}))
    file_id = await world.file(*chat(2))
    await set_budget(world, KEY, 0)
    await made(world, file_id, admin)
    await set_budget(world, GATEWAY, 0)
    with pytest.raises(OverBudget):
        await made(world, file_id, admin)


# Unknown prices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "limited", "refused"),
    [("budgeted", False, False), ("budgeted", True, True), ("refuse", False, True), ("allow", True, False)],
)
async def test_unknown_prices_are_refused_where_the_settings_say_so(world, rule, limited, refused):
    world.trip = replace(world.trip, unknown_prices=rule)
    if limited:
        await set_budget(world, GATEWAY, PICO)
    file_id = await world.file(*chat(2, PRICED, UNPRICED))
    if not refused:
        assert await held(world, await made(world, file_id)) is None
        return
    with pytest.raises(RequestError) as refusal:
        await made(world, file_id)
    assert (refusal.value.status, refusal.value.code) == (400, "price_unknown")
    assert f"beta/{UNPRICED}" in refusal.value.message
    assert "`prices`" in refusal.value.message


async def test_a_route_that_only_takes_over_must_have_a_price_too(world):
    await set_budget(world, GATEWAY, PICO)
    with pytest.raises(RequestError, match=f"beta/{UNPRICED}"):
        await world.batch(*chat(2, BOTH))


# Limits ---------------------------------------------------------------------------------------------------------------


async def test_of_many_at_once_as_many_come_in_as_may_be_active(either):
    file_id, who = await either.file(*chat(2)), limited(active_batches=3)
    found = await asyncio.gather(*(made(either, file_id, who) for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(one, str) for one in found) == 3
    refused = [one for one in found if not isinstance(one, str)]
    assert {(one.status, one.code) for one in refused} == {(429, "active_batches_exceeded")}
    assert all(one.retry_after > 0 for one in refused)
    for batch_id in found:
        if isinstance(batch_id, str):
            await either.drive(batch_id)
    await made(either, file_id, who)


async def test_enqueued_tokens_are_those_of_live_batches(either):
    file_id = await either.file(*chat(2))
    tokens = (await ask(either.trip, await either.row(await made(either, file_id)))).input_tokens
    who = limited(enqueued_tokens=3 * tokens - 1)
    await made(either, file_id, who)
    with pytest.raises(TooMany, match="enqueued") as refused:
        await made(either, file_id, who)
    assert refused.value.code == "token_limit_exceeded"


async def test_the_limits_of_a_project_are_those_of_all_its_keys(either):
    file_id = await either.file(*chat(2))
    one, two = [Principal(key_id=f"key_{at}", project="p", project_limits=Limits(active_batches=1)) for at in (1, 2)]
    await made(either, file_id, one)
    with pytest.raises(TooMany, match="project p"):
        await made(either, file_id, two)
    await made(either, "file-none", Principal(key_id="key_1", project="q", project_limits=Limits(active_batches=1)))


# Policies -------------------------------------------------------------------------------------------------------------


async def test_a_line_of_a_model_that_is_not_allowed_is_named(either):
    who = under(Policy(models=("gpt-*",)))
    batch_id = await either.batch(*chat(4, PRICED, UNPRICED), who=who)
    assert await either.drive(batch_id) == "failed"
    errors = (await either.row(batch_id))["errors"]
    assert [(fault["line"], fault["code"]) for fault in errors] == [(2, "model_not_allowed"), (4, "model_not_allowed")]
    assert not either.alpha.calls
    assert not either.beta.calls


async def test_every_policy_must_allow_a_line(world):
    who = under(Policy(models=("*",)), Policy(providers=("gamma",)))
    batch_id = await world.batch(*chat(2, SERVED, PRICED), who=who)
    assert await world.drive(batch_id) == "failed"
    assert [(fault["line"], fault["code"]) for fault in (await world.row(batch_id))["errors"]] == [
        (2, "provider_not_allowed")
    ]


async def test_routes_that_are_not_allowed_are_not_taken_nor_held_for(world):
    batch_id = await world.batch(*chat(2, BOTH), who=under(Policy(providers=("alpha",))))
    assert await held(world, batch_id) is not None
    assert await world.drive(batch_id) == "completed"
    (job,) = await world.jobs(batch_id)
    assert (job["account"], job["alternatives"]) == ("alpha", [])


async def test_a_prefix_is_no_way_around_a_policy(world):
    batch_id = await world.batch(line(1, f"beta/{UNPRICED}"), who=under(Policy(models=(PRICED,))))
    assert await world.drive(batch_id) == "failed"


@pytest.mark.parametrize("forced", [{"custom_llm_provider": "beta"}, {"model": UNPRICED}])
async def test_forcing_what_is_not_allowed_is_forbidden(world, forced):
    with pytest.raises(Forbidden) as refused:
        await world.batch(*chat(2), who=under(Policy(models=(PRICED,), providers=("alpha",))), **forced)
    assert refused.value.param in forced
