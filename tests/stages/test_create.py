from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from batchway.core.errors import KeyReused, RequestError
from batchway.core.principal import Principal
from batchway.db.idempotency import Idempotency
from batchway.db.outbox import of_subject
from batchway.pipeline.create import create, window_seconds
from batchway.pipeline.intake import Incoming, receive
from batchway.wire.batches import BatchCreate
from tests.stages.world import CHAT, PRICED, WHO, chat, either, world

__all__ = ["either", "world"]


def wanted(**fields) -> BatchCreate:
    return msgspec.convert(
        {"endpoint": CHAT, "completion_window": "24h", "input_file_id": "file-x"} | fields, BatchCreate
    )


async def test_a_new_batch_is_validating_and_told_of_with_its_settings(either):
    file_id = await either.file(*chat(2))
    either.trip.bells.work.clear()
    made = await create(either.trip, WHO, wanted(input_file_id=file_id, metadata={"a": "b"}, model=PRICED, priority=2))
    assert (made.status, made.input_file_id, made.metadata, made.model) == ("validating", file_id, {"a": "b"}, PRICED)
    assert (made.created_at, made.expires_at) == (int(either.now), int(either.now) + 86400)
    assert (made.request_counts.total, made.output_file_id, made.usage) == (0, None, None)
    (event,) = await either.db.read(of_subject, made.id)
    assert (event.type, event.data["call_type"]) == ("batch.created", "acreate_batch")
    assert event.data["metadata"] == {"a": "b"}
    assert either.trip.bells.work.is_set()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/other"}, "endpoint"),
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": ""}, "input_file_id"),
        ({"completion_window": "1w"}, "completion_window"),
        ({"custom_llm_provider": "nobody"}, "custom_llm_provider"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 2592001}}, "output_expires_after.seconds"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
    ],
)
async def test_a_field_at_fault_is_named_and_nothing_is_stored(world, fields, param):
    with pytest.raises(RequestError) as refused:
        await create(world.trip, WHO, wanted(**fields))
    assert (refused.value.param, refused.value.status) == (param, 400)
    assert refused.value.code
    assert world.points.names == []


async def test_a_name_of_metadata_that_is_too_long_is_refused(world):
    with pytest.raises(RequestError, match="64"):
        await create(world.trip, WHO, wanted(metadata={"x" * 65: "y"}))


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86400), ("1m", 60), ("60m", 3600), ("1d", 86400), ("30d", 2592000), ("720h", 2592000)]
)
def test_windows(text, seconds):
    assert window_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "59s", "24", "h", "-1h", "31d", "1.5h", "24 h", "٢٤h", "24H", "9999999m"])
def test_what_is_no_window(text):
    with pytest.raises(RequestError) as refused:
        window_seconds(text)
    assert refused.value.param == "completion_window"


async def test_a_file_of_another_purpose_is_refused(world):
    async def data():
        yield b"hello"

    incoming = Incoming(project="p", key_id="k", filename="a.txt", purpose="user_data")
    row = await receive(world.trip, incoming, data())
    with pytest.raises(RequestError) as refused:
        await create(world.trip, WHO, wanted(input_file_id=row["id"]))
    assert refused.value.param == "input_file_id"


async def test_a_file_of_another_project_is_one_that_is_not_there(world):
    file_id = await world.file(*chat(2))
    made = await create(world.trip, Principal(key_id="key_2", project="q"), wanted(input_file_id=file_id))
    assert await world.drive(made.id) == "failed"
    assert (await world.row(made.id))["errors"][0]["param"] == "file_id"


async def test_a_forced_provider_takes_every_line_it_can(world):
    file_id = await world.file(*chat(2, "some-model"))
    made = await create(world.trip, WHO, wanted(input_file_id=file_id), provider="alpha")
    assert await world.drive(made.id) == "completed"
    assert (await world.job(made.id))["model"] == "some-model"


async def test_an_idempotency_key_makes_one_batch_of_many_requests(either):
    file_id = await either.file(*chat(2))
    key = Idempotency(key="k", fingerprint="f")
    made = await asyncio.gather(
        *(create(either.trip, WHO, wanted(input_file_id=file_id), idempotency=key) for _ in range(5))
    )
    made.append(await create(either.trip, WHO, wanted(input_file_id=file_id), idempotency=key))
    assert len({json.dumps(msgspec.to_builtins(one), sort_keys=True) for one in made}) == 1
    assert await either.events(made[0].id) == ["batch.created"]
    with pytest.raises(KeyReused):
        await create(either.trip, WHO, wanted(), idempotency=Idempotency(key="k", fingerprint="g"))


async def test_keys_of_others_are_others_and_are_forgotten_after_a_day(world):
    key = Idempotency(key="k", fingerprint="f")
    first = await create(world.trip, WHO, wanted(), idempotency=key)
    other = await create(world.trip, Principal(key_id="key_2", project="p"), wanted(), idempotency=key)
    world.now += 86400
    later = await create(world.trip, WHO, wanted(), idempotency=key)
    assert len({first.id, other.id, later.id}) == 3
