"""What is told of a batch before it spends anything: on which routes, by which tokens, and what the past says."""

from __future__ import annotations

import json

import msgspec
import pytest

from batchway.billing.tokens import counter
from batchway.core.errors import RequestError
from batchway.core.jobs import Route
from batchway.core.money import to_pico
from batchway.core.principal import Policy
from batchway.core.tokenguess import parts_of
from batchway.db import history
from batchway.executor import Endpoint
from batchway.pipeline import sample
from batchway.pipeline.admit import ask
from batchway.pipeline.forecast import FEW, forecast
from batchway.providers.protocol import Answer
from batchway.wire.batches import EstimateCreate
from tests.stages.memory_provider import answer_line
from tests.stages.world import BOTH, PRICED, SERVED, UNPRICED, WHO, chat, either, line, world

__all__ = ["either", "world"]

DAY = 86_400
PROSE = "The quick brown fox jumps over the lazy dog while nobody looks. " * 8


def prose(count: int, model: str = PRICED):
    bodies = [
        {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": PROSE[: 40 + number % 400]}]}
        for number in range(count)
    ]
    return [line(number, body=body) for number, body in enumerate(bodies, 1)]


def exact(lines) -> int:
    count = counter(PRICED)
    return sum(count(parts_of(msgspec.Raw(json.dumps(one["body"]["messages"]).encode()))) for one in lines)


async def estimated(world, *lines, who=WHO, **wanted):
    file_id = await world.file(*lines)
    return await forecast(world.trip, who, EstimateCreate(input_file_id=file_id, **wanted))


# Tokens ---------------------------------------------------------------------------------------------------------------


async def test_a_small_file_is_counted_to_the_token(world):
    found = await estimated(world, *prose(50))
    assert (found.input_tokens, found.input_tokens_method) == (exact(prose(50)), "counted")
    inline = await forecast(world.trip, WHO, EstimateCreate(requests=prose(50)))
    assert (inline.input_tokens, inline.input_tokens_method) == (found.input_tokens, "counted")


async def test_a_large_file_is_counted_by_a_bounded_sample(world, monkeypatch):
    monkeypatch.setattr(sample, "WHOLE", 100_000)
    lines = prose(3000)
    read = []
    get = world.storage.get

    async def noted(key, start=0, end=None):
        data = await get(key, start, end)
        read.append(len(data))
        return data

    monkeypatch.setattr(world.storage, "get", noted)
    found = await estimated(world, *lines)
    assert found.input_tokens_method == "sampled"
    assert found.input_tokens == pytest.approx(exact(lines), rel=0.03)
    assert sum(read) <= 100_000
    assert sum(len(json.dumps(one)) for one in lines) > 10 * 100_000


async def test_inline_lines_beyond_a_megabyte_are_counted_by_some_of_them(world, monkeypatch):
    monkeypatch.setattr(sample, "WHOLE", 50_000)
    found = await forecast(world.trip, WHO, EstimateCreate(requests=prose(1000)))
    assert found.input_tokens_method == "sampled"
    assert found.input_tokens == pytest.approx(exact(prose(1000)), rel=0.05)


async def test_lines_too_long_for_the_sample_are_guessed_for(world, monkeypatch):
    monkeypatch.setattr(sample, "WHOLE", 1000)
    found = await estimated(world, *prose(30))
    assert found.input_tokens_method == "guessed"
    assert found.input_tokens == pytest.approx(exact(prose(30)), rel=0.2)


async def test_a_model_without_a_known_tokenizer_is_guessed_for(world):
    found = await estimated(world, *prose(50, SERVED))
    assert found.input_tokens_method == "guessed"
    assert found.input_tokens == pytest.approx(exact(prose(50)), rel=0.2)


async def test_an_override_counts_every_line_by_its_own_tokenizer(world):
    lines = [*prose(10, "one"), *[one | {"custom_id": f"other-{at}"} for at, one in enumerate(prose(10, "two"))]]
    found = await estimated(world, *lines, model=PRICED)
    assert (found.lines, found.input_tokens, found.input_tokens_method) == (20, exact(lines), "counted")


# Routes ---------------------------------------------------------------------------------------------------------------


async def test_what_it_would_hold_is_what_the_batch_holds(world):
    for lines in (prose(20), chat(7), prose(300)):
        file_id = await world.file(*lines)
        found = await forecast(world.trip, WHO, EstimateCreate(input_file_id=file_id))
        batch = await world.row(await world.batch(input_file_id=file_id))
        assert to_pico(found.amount_usd.high) == (await ask(world.trip, batch)).amount


async def test_both_lanes_and_the_routes_that_take_over_are_shown(world):
    account = world.trip.accounts.get("alpha")
    object.__setattr__(account, "endpoint", Endpoint(base_url="http://127.0.0.1:9", headers={}))
    found = await estimated(world, *prose(10, BOTH))
    assert [(one.provider, one.lane, one.falls_over) for one in (*found.routes, *found.alternatives)] == [
        ("alpha", "native", False),
        ("beta", "native", True),
        ("alpha", "executed", False),
    ]
    native, unknown, executed = (*found.routes, *found.alternatives)
    assert to_pico(executed.amount_usd.likely) == 2 * to_pico(native.amount_usd.likely)
    assert (unknown.amount_usd, unknown.reason) == (None, f"The price of beta/{UNPRICED} (native lane) is unknown.")
    assert found.lines == 10


async def test_a_short_window_is_executed_and_the_native_lane_is_shown_beside_it(world):
    account = world.trip.accounts.get("alpha")
    object.__setattr__(account, "endpoint", Endpoint(base_url="http://127.0.0.1:9", headers={}))
    found = await estimated(world, *prose(10), completion_window="1h")
    assert [one.lane for one in (*found.routes, *found.alternatives)] == ["executed", "native"]


async def test_what_a_policy_does_not_allow_is_not_estimated(world):
    who = msgspec.structs.replace(WHO, policies=(Policy(models=("gpt-4*",)),))
    assert (await estimated(world, *prose(2), who=who)).lines == 2
    with pytest.raises(RequestError) as refused:
        await estimated(world, *prose(2, UNPRICED), who=who)
    assert refused.value.code == "model_not_allowed"


# The past -------------------------------------------------------------------------------------------------------------


def answers_of(tokens: int):
    return lambda name: Answer(name, ok=True, line=answer_line(name, tokens=(10, tokens)))


async def finished(world, lines, tokens: int) -> str:
    batch_id = await world.ended(*lines, answer=answers_of(tokens))
    assert await world.drive(batch_id) == "completed"
    return batch_id


async def test_what_this_keys_answers_usually_had_is_likely(either):
    await finished(either, prose(FEW), 30)
    found = await estimated(either, *prose(100))
    assert (found.output_tokens.likely, found.routes[0].output_tokens_method) == (3000, "history")
    other = msgspec.structs.replace(WHO, key_id="key_2")
    assert (await estimated(either, *prose(100), who=other)).routes[0].output_tokens_method == "declared"
    assert (await estimated(either, *prose(100, SERVED))).routes[0].output_tokens_method == "declared"


async def test_a_few_answers_or_old_ones_say_nothing(either):
    await finished(either, prose(FEW - 1), 30)
    assert (await estimated(either, *prose(9))).routes[0].output_tokens_method == "declared"
    await finished(either, prose(1), 30)
    assert (await estimated(either, *prose(9))).routes[0].output_tokens_method == "history"
    either.now += 31 * DAY
    found = await estimated(either, *prose(9))
    assert (found.routes[0].output_tokens_method, found.seconds.likely) == ("declared", None)


async def test_the_latest_jobs_tell_how_long_it_takes(either):
    assert (await estimated(either, *prose(5))).seconds.likely is None
    await finished(either, prose(5), 30)
    found = await estimated(either, *prose(5))
    assert 0 < found.seconds.likely <= found.seconds.high <= DAY
    assert found.seconds_reason is None


async def test_only_jobs_that_ended_well_and_only_their_own_lane_count(either):
    route = Route(account="alpha", model=PRICED)
    batch_id = await finished(either, prose(5), 30)
    (job,) = await either.jobs(batch_id)
    took = job["ended_at"] - job["planned_at"]
    assert await either.db.read(history.latest_jobs, route, 0.0, 9) == [(5, took)]
    executed = msgspec.structs.replace(route, lane="executed")
    assert await either.db.read(history.latest_jobs, executed, 0.0, 9) == []
    assert await either.db.read(history.latest_jobs, route, job["ended_at"] + 1, 9) == []


async def test_what_a_tag_repeats_is_counted_once(either):
    batch_id = await either.prepared(*prose(FEW), metadata={"team": "a", "run": "b"})
    for provider in either.providers:
        provider.end(answer=answers_of(30))
    await either.look()
    assert await either.drive(batch_id) == "completed"
    today = int(either.now // DAY)
    found = await either.db.read(
        history.usual, WHO.key_id, Route(account="alpha", model=PRICED), range(today, today + 1)
    )
    assert found == (FEW, FEW * 30, 0)
