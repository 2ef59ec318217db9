"""Azure's batches over blobs: the shipped suite beside a real Azurite, seen by obstore, an independent client."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from typing import ClassVar

import msgspec
import obstore
import pytest
from obstore.store import AzureStore

from batchway.core.errors import Fault, ProviderError
from batchway.core.states import Outcome
from batchway.providers.azure.blobs import BLOCK, Access, Blobs, account_of
from batchway.providers.protocol import Tools
from tests.conformance import azurite
from tests.conformance.azure_simulated import KEY, Running, Trial, line, opened, serving, tools

pytest.register_assert_rewrite("batchway.testing.provider_suite")

from batchway.testing.provider_suite import Ground, ProviderSuite  # noqa: E402 - after what rewrites its asserts

__all__ = ["tools"]

MODEL = "gpt-4o-mini-batch"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite.running(tmp_path_factory.mktemp("azurite")) as url:
        yield url


@pytest.fixture(scope="module")
def resource(container: str) -> Iterator[Running]:
    with serving(api_key=KEY, storage_key=azurite.KEY, retry_after=0.0) as running:
        yield running


@pytest.fixture
def sim(resource: Running) -> Running:
    resource.faults("")
    return resource


@pytest.fixture
def store(container: str) -> AzureStore:
    root = container.removesuffix(f"/{azurite.CONTAINER}")
    config = {"account_name": azurite.ACCOUNT, "account_key": azurite.KEY, "endpoint": root}
    return AzureStore(azurite.CONTAINER, config=config, client_options={"allow_http": True})


def keys(store: AzureStore) -> list[str]:
    return sorted(found["path"] for page in obstore.list(store) for found in page)


@pytest.fixture
def blobs(container: str, tools: Tools) -> Blobs:
    return Blobs(tools.http, container, Access(account_key=azurite.KEY), time.time)


def trial(sim: Running, tools: Tools, container: str, lines: list, token: str) -> Trial:
    storage = {"container_url": container, "account_key": azurite.KEY}
    return Trial(opened(tools, sim, storage=storage), lines, model=MODEL, token=token)


class TestBlobJobs(ProviderSuite):
    gaps: ClassVar[Mapping[str, str]] = {
        "test_a_status_nobody_knows_is_running": "the same code as for jobs over files, where it is tested",
    }

    @pytest.fixture
    async def ground(self, sim: Running, container: str, tools: Tools) -> Ground:
        storage = {"container_url": container, "account_key": azurite.KEY}

        async def passes(seconds: float) -> None:
            sim.advance(seconds)

        async def disturb(spec: str) -> None:
            sim.faults(spec)

        return Ground(
            account=opened(tools, sim, storage=storage),
            denied=opened(tools, sim, storage=storage, api_key="sk-wrong"),
            model=MODEL,
            passes=passes,
            disturb=disturb,
        )


async def test_the_input_lies_under_its_token_and_results_are_read_from_blobs(
    sim: Running, container: str, tools: Tools, store: AzureStore
) -> None:
    one = trial(sim, tools, container, [line(1), line(2, simulate="400")], "token-a")
    await one.submit()
    placed = f"batchway/{one.job.token}/input.jsonl"
    assert placed in keys(store)
    sent = bytes(obstore.get(store, placed).bytes()).splitlines()
    assert [json.loads(each)["body"]["model"] for each in sent] == [MODEL] * 2
    raw = sim.raw(f"/openai/v1/batches/{one.job.remote_id}")
    assert (raw["input_blob"], raw["input_file_id"], raw["metadata"]) == (f"{container}/{placed}", None, None)
    assert raw["output_blob"] == ""
    assert await one.native.find(one.job) == one.job.remote_id
    sim.advance(2_000)
    look = await one.look()
    assert look.outcome is Outcome.SUCCEEDED
    assert len(look.results) == 2
    assert {name: answer.ok for name, answer in (await one.answers(look)).items()} == {"line-1": True, "line-2": False}
    assert len([key for key in keys(store) if f"{container}/{key}" in look.results]) == 2
    for _ in range(2):
        await one.native.clean(one.job, look)
    mine = {placed, *(url.removeprefix(f"{container}/") for url in look.results)}
    assert not mine & set(keys(store))


async def test_jobs_submitted_at_once_are_all_there(sim: Running, container: str, tools: Tools) -> None:
    trials = [trial(sim, tools, container, [line(1)], f"token-at-once-{number}") for number in range(6)]
    ids = await asyncio.gather(*(each.submit() for each in trials))
    assert len(set(ids)) == 6
    assert [await each.native.find(each.job) for each in trials] == list(ids)


async def test_a_result_that_was_not_written_is_no_error(sim: Running, container: str, tools: Tools) -> None:
    one = trial(sim, tools, container, [line(1)], "token-b")
    await one.submit()
    await one.native.cancel(one.job)
    sim.advance(2_000)
    look = await one.look()
    assert (look.outcome, len(look.results)) == (Outcome.CANCELLED, 2)
    assert await one.answers(look) == {}


async def test_an_input_that_the_resource_cannot_read_refuses_the_job(container: str, tools: Tools) -> None:
    with serving() as stranger:
        one = trial(stranger, tools, container, [line(1)], "token-c")
        await one.submit()
        stranger.advance(100)
        look = await one.look()
    assert (look.outcome, look.code) == (Outcome.REJECTED, "input_no_permissions")


async def test_a_refused_creation_leaves_no_blob(sim: Running, container: str, tools: Tools, store: AzureStore) -> None:
    before = keys(store)
    one = trial(sim, tools, container, [line(1)], "token-d")
    one.job = msgspec.structs.replace(one.job, window=3_600)
    with pytest.raises(ProviderError) as refused:
        await one.submit()
    assert refused.value.fault is Fault.REJECTED
    assert keys(store) == before


async def test_credentials_go_nowhere_but_to_their_container(blobs: Blobs, container: str) -> None:
    for url in ("http://127.0.0.1:1/evil/x", container + "-other/x", f"{container}/../x"):
        with pytest.raises(ProviderError) as refused:
            await blobs.delete(url)
        assert refused.value.code == "foreign_blob"


async def test_a_blob_of_many_blocks_is_what_was_written_with_flat_memory(
    blobs: Blobs, container: str, store: AzureStore
) -> None:
    piece = bytes(range(256)) * 4096  # 1 MiB

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield piece

    tracemalloc.start()
    try:
        await blobs.write(f"{container}/many/blocks.bin", pieces())
        size = 0
        async for chunk in blobs.read(f"{container}/many/blocks.bin"):
            size += len(chunk)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 40 << 20 == obstore.head(store, "many/blocks.bin")["size"]
    assert most < 4 * BLOCK
    assert bytes(obstore.get_range(store, "many/blocks.bin", start=39 << 20, end=40 << 20)) == piece
    await blobs.delete(f"{container}/many/blocks.bin")


async def test_an_empty_blob_is_a_blob_and_an_absent_one_is_a_404(blobs: Blobs, container: str) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for each in ():
            yield each

    await blobs.write(f"{container}/empty", nothing())
    assert [chunk async for chunk in blobs.read(f"{container}/empty")] == []
    await blobs.delete(f"{container}/empty")
    await blobs.delete(f"{container}/empty")
    with pytest.raises(ProviderError) as absent:
        async for _ in blobs.read(f"{container}/empty"):
            pass
    assert absent.value.status == 404


async def test_a_signed_query_made_elsewhere_is_enough(container: str, tools: Tools, store: AzureStore) -> None:
    signed = obstore.sign(store, "PUT", "signed/one.jsonl", timedelta(hours=1)).partition("?")[2]
    blobs = Blobs(tools.http, container, Access(sas=f"?{signed}"), time.time)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"by its signature\n"

    await blobs.write(f"{container}/signed/one.jsonl", pieces())
    assert bytes(obstore.get(store, "signed/one.jsonl").bytes()) == b"by its signature\n"
    obstore.delete(store, "signed/one.jsonl")


def test_the_account_is_in_the_host_or_first_in_an_emulators_path() -> None:
    assert account_of("https://mine.blob.core.windows.net/c/x") == "mine"
    assert account_of("https://mine.blob.core.usgovcloudapi.net/c/x") == "mine"
    assert account_of("http://127.0.0.1:10000/devstoreaccount1/c/x") == "devstoreaccount1"
