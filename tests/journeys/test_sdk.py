"""The SDK against a small gateway over real HTTP: every operation in both flavours, and what if things go wrong."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import io
import json
import logging
import os
import socket
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import batchway
from batchway import AsyncClient, Client
from batchway.sdk import calls, functions
from tests.tiny_gateway import KEY, TinyGateway, serving

LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
JSONL = json.dumps(LINE).encode() + b"\n"


@pytest.fixture(scope="module")
def served():
    tiny = TinyGateway()
    with serving(tiny.app) as url:
        yield tiny, url


@pytest.fixture
def gateway(served, monkeypatch):
    tiny, url = served
    for state in (tiny.files, tiny.contents, tiny.batches, tiny.answers, tiny.done, tiny.faults, tiny.seen):
        state.clear()
    tiny.keep_content, tiny.at_a_time = True, 2
    monkeypatch.setenv("BATCHWAY_BASE_URL", url)
    monkeypatch.setenv("BATCHWAY_API_KEY", KEY)
    tiny.url = url
    return tiny


@pytest.fixture
def naps(monkeypatch):
    """The waits between tries, which are not waited for."""
    taken: list[float] = []

    async def nap(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr("batchway.sdk.client.blocking_sleep", nap)
    return taken


def client(gateway: TinyGateway, **settings: Any) -> Client:
    return Client(base_url=gateway.url, api_key=KEY, **settings)


# The documented examples ----------------------------------------------------------------------------------------------


async def test_litellms_documented_example_runs_unchanged(gateway, tmp_path):
    import batchway as litellm

    file_path = tmp_path / "openai_batch_completions.jsonl"
    file_path.write_bytes(JSONL)
    with file_path.open("rb") as opened:
        file_obj = await litellm.acreate_file(file=opened, purpose="batch", custom_llm_provider="openai")
    create_batch_response = await litellm.acreate_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id=file_obj.id,
        custom_llm_provider="openai",
        metadata={"key1": "value1", "key2": "value2"},
    )
    retrieved_batch = await litellm.aretrieve_batch(batch_id=create_batch_response.id, custom_llm_provider="openai")
    assert retrieved_batch.id == create_batch_response.id
    file_content = await litellm.afile_content(file_id=file_obj.id, custom_llm_provider="openai")
    assert file_content.content == JSONL
    listed = await asyncio.to_thread(litellm.list_batches, custom_llm_provider="openai", limit=2)
    assert listed.data[0].metadata == {"key1": "value1", "key2": "value2"}
    assert gateway.files[file_obj.id]["provider"] == "openai"


def test_the_files_in_the_blocking_flavour(gateway, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(JSONL)
    with path.open("rb") as opened:
        file = batchway.create_file(
            file=opened, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
    assert (file.filename, file.bytes, file.object) == ("in.jsonl", len(JSONL), "file")
    assert file.form.to_dict() == {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    assert file.batchway.models == {"m": 3}
    assert batchway.file_retrieve(file.id) == file
    assert [one.id for one in batchway.file_list(purpose="batch", limit=10_000)] == [file.id]
    assert batchway.file_content(file.id).text.startswith("{")
    assert batchway.file_delete(file.id).deleted is True
    with pytest.raises(batchway.NotFoundError):
        batchway.file_retrieve(file.id)


def test_a_batch_in_the_blocking_flavour(gateway):
    with client(gateway) as ours:
        file = ours.create_file(JSONL)
        batch = ours.create_batch("24h", "/v1/chat/completions", file.id, model="m2", extra_body={"extra": {"a": 1}})
        assert batch.sent.model == "m2"
        assert batch.sent.extra == {"a": 1}
        while batch.status != "completed":
            batch = ours.retrieve_batch(batch.id)
        assert [line.text for line in ours.batch_results(batch.id)] == ["to a"]
        assert ours.list_batches(status="completed", metadata={"k": "v"}, limit=1).asked.to_dict() == {
            "limit": "1", "status": "completed", "metadata[k]": "v",
        }  # fmt: skip
        with pytest.raises(batchway.ConflictError) as refused:
            ours.cancel_batch(batch.id)
        assert refused.value.request_id == "req-1"
        other = ours.create_batch("1h", "/v1/chat/completions", file.id)
        assert ours.cancel_batch(batch_id=other.id).status == "cancelled"
        assert ours.estimate_batch(input_file_id=file.id).amount_usd.likely == "0.2"
        assert ours.adopt_batch("main", "batch_far", metadata={"k": "v"}).status == "in_progress"
        assert [model.id for model in ours.list_models()] == ["m"]
        assert ours.create_key("n", project="p").key == "sk-bw-secret"
        assert ours.list_keys().data[0].key is None
        assert ours.delete_key("key_1").deleted


async def test_a_batch_in_the_suspending_flavour(gateway):
    async with AsyncClient(base_url=gateway.url, api_key=KEY) as ours:
        file = await ours.create_file(("named.jsonl", io.BytesIO(JSONL)))
        assert file.filename == "named.jsonl"
        batch = await ours.create_batch("24h", "/v1/chat/completions", file.id)
        while batch.status != "completed":
            batch = await ours.retrieve_batch(batch.id)
        assert [line.custom_id async for line in ours.batch_results(batch.id)] == ["a"]
        assert len(await ours.list_batches()) == 1
        assert (await ours.file_content(batch.output_file_id)).content.endswith(b"\n")
        assert (await ours.estimate_batch(requests=[LINE])).sent.requests[0].custom_id == "a"


def test_the_functions_work_from_one_event_loop_after_another(gateway):
    for _ in range(2):
        assert asyncio.run(batchway.alist_models()).data[0].id == "m"


def test_threads_may_share_the_functions(gateway):
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(batchway.list_models().data[0].id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["m"] * 8


def test_a_base_url_of_openais_form_is_understood(gateway):
    assert batchway.list_models(base_url=f"{gateway.url}/v1/").data
    assert batchway.list_models(api_base=gateway.url, api_key=KEY, timeout=5).data


def test_pages_lead_on(gateway):
    file = batchway.create_file(JSONL)
    made = [batchway.create_batch("24h", "/v1/chat/completions", file.id).id for _ in range(3)]
    first = batchway.list_batches(limit=2)
    second = batchway.list_batches(limit=2, after=first.last_id)
    assert [batch.id for batch in (*first, *second)] == made[::-1]
    assert (first.has_more, second.has_more) == (True, False)


def test_an_unknown_id_with_a_provider_is_adopted(gateway):
    assert batchway.retrieve_batch("batch_far", custom_llm_provider="main").id == "batch_adopted"
    with pytest.raises(batchway.NotFoundError, match="No batch found"):
        batchway.retrieve_batch("batch_far")
    with pytest.raises(batchway.NotFoundError, match="The provider knows no such batch"):
        batchway.retrieve_batch("batch_unknown", custom_llm_provider="main")


# When things go wrong -------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_told_and_not_tried_again(gateway, naps):
    with pytest.raises(batchway.AuthenticationError) as refused:
        batchway.list_models(api_key="sk-wrong")
    error = refused.value
    assert (error.status_code, error.code, error.type) == (401, "invalid_api_key", "invalid_request_error")
    assert error.request_id == "req-1"
    assert error.body["message"] == error.message
    assert not naps


def test_a_wrong_key_is_told_in_the_middle_of_an_upload(gateway, tmp_path):
    path = tmp_path / "big.jsonl"
    sparse(path, 64 << 20)
    with pytest.raises(batchway.AuthenticationError):
        batchway.create_file(path, api_key="sk-wrong")


def test_retry_after_is_obeyed(gateway, naps):
    gateway.faults["GET /v1/models"] = [(429, {"retry-after": "7"}), (429, {"retry-after-ms": "1500"})]
    assert client(gateway).list_models().data
    assert 7 <= naps[0] <= 7.5
    assert 1.5 <= naps[1] <= 2


def test_the_last_refusal_is_raised_when_the_tries_are_used_up(gateway, naps):
    gateway.faults["GET /v1/models"] = [503] * 3
    with pytest.raises(batchway.InternalServerError) as refused:
        client(gateway, max_retries=2).list_models()
    assert refused.value.status_code == 503
    assert len(naps) == 2
    gateway.faults["GET /v1/models"] = [429]
    with pytest.raises(batchway.RateLimitError):
        client(gateway).list_models(max_retries=0)


def test_a_hopeless_wait_is_not_waited_for(gateway, naps):
    gateway.faults["GET /v1/models"] = [(429, {"retry-after": "86400"})]
    with pytest.raises(batchway.RateLimitError):
        client(gateway).list_models()
    assert not naps


@pytest.mark.parametrize("fault", ["drop", "late", 500])
def test_a_create_that_is_tried_again_makes_one_batch(gateway, naps, fault):
    file = client(gateway).create_file(JSONL)
    gateway.faults["POST /v1/batches"] = [fault]
    batch = client(gateway).create_batch("24h", "/v1/chat/completions", file.id)
    assert list(gateway.batches) == [batch.id]
    keys = {request.headers["idempotency-key"] for request in gateway.requests("POST", "/v1/batches")}
    assert len(gateway.requests("POST", "/v1/batches")) == 2
    assert len(keys) == 1


def test_two_creates_are_two_batches_unless_the_caller_names_them_one(gateway):
    file = batchway.create_file(JSONL)
    named = {"Idempotency-Key": "mine"}
    made = [batchway.create_batch("24h", "/v1/chat/completions", file.id) for _ in range(2)]
    one = [batchway.create_batch("24h", "/v1/chat/completions", file.id, extra_headers=named) for _ in range(2)]
    assert made[0].id != made[1].id
    assert one[0].id == one[1].id


def test_a_key_that_may_have_been_made_is_not_made_again(gateway, naps):
    gateway.faults["POST /v1/keys"] = ["late"]
    with pytest.raises(batchway.APIConnectionError) as broken:
        client(gateway).create_key("n")
    assert broken.value.sent
    assert not naps


def test_an_upload_is_sent_again_from_its_beginning(gateway, naps):
    file = io.BytesIO(b"skipped" + JSONL)
    file.seek(7)
    gateway.faults["POST /v1/files"] = ["late", 503]
    made = client(gateway).create_file(file)
    assert gateway.contents[made.id] == JSONL
    assert len(naps) == 2


def test_what_can_be_read_once_is_sent_once(gateway, naps):
    read, write = os.pipe()
    os.write(write, JSONL)
    os.close(write)
    gateway.faults["POST /v1/files"] = [503]
    with os.fdopen(read, "rb") as pipe, pytest.raises(batchway.InternalServerError):
        client(gateway).create_file(pipe)
    assert not naps


@pytest.mark.parametrize("flavour", ["blocking", "suspending"])
def test_a_file_that_cannot_be_read_raises_its_own_error(gateway, flavour):
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError("the disk is gone")

    create = batchway.create_file if flavour == "blocking" else lambda file: asyncio.run(batchway.acreate_file(file))
    with pytest.raises(OSError, match="the disk is gone"):
        create(Broken(b"x"))


def test_a_refused_connection_is_told_as_one(naps):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(batchway.APIConnectionError) as broken:
            Client(base_url=url, api_key="secret-key", max_retries=1).create_key("n")
    assert not broken.value.sent
    assert len(naps) == 1
    assert "secret" not in str(broken.value)


def test_silence_is_a_timeout(gateway):
    gateway.faults["GET /v1/models"] = [1.0]
    with pytest.raises(batchway.APITimeoutError):
        client(gateway).list_models(timeout=0.1, max_retries=0)


async def test_silence_is_a_timeout_in_the_suspending_flavour(gateway):
    gateway.faults["GET /v1/models"] = [1.0]
    with pytest.raises(batchway.APITimeoutError):
        await batchway.alist_models(timeout=0.1, max_retries=0)


def test_a_download_goes_on_where_it_broke_off(gateway, naps, tmp_path):
    data = os.urandom(1 << 20)
    gateway.contents["file-x"] = data
    gateway.faults["CUT"] = [300_000, 200_001]
    client(gateway).file_content("file-x").write_to_file(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert len(gateway.requests("GET", "/v1/files/file-x/content")) == 3


def test_a_download_that_cannot_go_on_leaves_what_stood_there(gateway, naps, tmp_path):
    gateway.contents["file-x"] = os.urandom(1 << 20)
    gateway.faults["CUT"] = [1000] + [0] * 9
    (tmp_path / "out").write_text("before")
    with pytest.raises(batchway.APIConnectionError):
        client(gateway).file_content("file-x").write_to_file(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "before"


def test_an_answer_that_is_no_gateways_is_told(gateway):
    gateway.contents["file-x"] = gzip.compress(b"x")
    with pytest.raises(batchway.APIError, match="not answered by a gateway"):
        client(gateway).perform(calls.file_content("file-x"))


# Memory ---------------------------------------------------------------------------------------------------------------


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the process's memory from /proc")
@pytest.mark.parametrize("flavour", ["blocking", "suspending"])
def test_an_upload_takes_no_memory_for_its_size(gateway, tmp_path, flavour):
    path = tmp_path / "big.jsonl"
    sparse(path, int(os.environ.get("BATCHWAY_TEST_UPLOAD_MB", "64")) << 20)
    gateway.keep_content = False
    before, most = peak_kib(), [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], peak_kib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with path.open("rb") as opened:
        file = batchway.create_file(opened) if flavour == "blocking" else asyncio.run(batchway.acreate_file(opened))
    done.set()
    watcher.join()
    assert file.bytes == path.stat().st_size
    assert most[0] - before < 40 << 10


# The whole job --------------------------------------------------------------------------------------------------------


def test_a_run_gives_every_line_once_in_input_order(gateway):
    looks: list[str] = []
    prompts = [f"prompt {number}" for number in range(25)]
    run = batchway.run(prompts, model="m", poll=0.001, progress=lambda batch: looks.append(batch.status))
    results = list(run)
    assert [result.custom_id for result in results] == [f"line-{number}" for number in range(1, 26)]
    assert [result.custom_id for result in results if result.error] == ["line-2", "line-12", "line-22"]
    assert results[0].text == "to line-1"
    assert results[0].usage.prompt_tokens == 3
    assert results[0].cost == Decimal("0.00012")
    assert (results[1].text, results[1].error.code, results[1].error.status_code) == (None, "batch_expired", None)
    assert run.batch_id == run.batch.id
    assert run.batch.status == "completed"
    assert looks[-1] == "completed"
    assert [result.custom_id for result in run] == [result.custom_id for result in results]


def test_a_run_can_give_lines_as_they_finish(gateway):
    gateway.at_a_time = 3
    run = batchway.run(["a", "b", "c", "d", "e"], model="m", ordered=False, poll=0.001)
    first = next(iter(run))
    assert run.batch.status != "completed"
    results = list(run)
    assert first.custom_id == "line-2"
    assert [result.custom_id for result in results] == ["line-2", "line-4", "line-1", "line-3", "line-5"]


async def test_a_run_in_the_suspending_flavour(gateway, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({**LINE, "custom_id": name}) + "\n" for name in "bca"))
    run = await batchway.arun(path, model="other", metadata={"k": "v"}, poll=0.001)
    assert [result.custom_id async for result in run] == ["b", "c", "a"]
    assert run.batch.sent.model == "other"
    assert (await run.wait()).metadata == {"k": "v"}
    assert gateway.files[run.batch.input_file_id]["filename"] == "in.jsonl"


def test_a_run_whose_input_is_refused_tells_the_faults(gateway):
    run = batchway.run([{**LINE, "fail": True}], poll=0.001)
    with pytest.raises(batchway.BatchFailedError, match="line 1: The URL is wrong") as failed:
        list(run)
    assert failed.value.code == "invalid_url"
    assert failed.value.batch.id == run.batch_id


def test_a_run_lives_through_an_outage(gateway, naps):
    gateway.at_a_time = 1
    run = client(gateway).run(["a", "b", "c"], model="m", ordered=False)
    path = f"/v1/batches/{run.batch_id}"
    gateway.faults[f"GET {path}"] = [503, "drop", "drop"]
    gateway.faults[f"GET {path}/results"] = ["drop", 500]
    assert sorted(result.custom_id for result in run) == ["line-1", "line-2", "line-3"]


def test_a_run_can_be_named_so_that_it_happens_once(gateway):
    runs = [
        batchway.run([LINE], extra_headers={"Idempotency-Key": "nightly"}, extra_body={"extra": {"a": 1}})
        for _ in range(2)
    ]
    assert runs[0].batch_id == runs[1].batch_id
    assert runs[0].batch.sent.extra == {"a": 1}


def test_an_interrupted_run_says_how_to_follow_it(gateway, monkeypatch, caplog):
    async def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchway.sdk.client.blocking_sleep", interrupt)
    run = client(gateway).run(["a", "b", "c"], model="m")
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        list(run)
    assert f"batchway watch {run.batch_id}" in caplog.text
    assert gateway.batches[run.batch_id]["status"] != "cancelled"


def test_progress_is_plain_lines_where_nobody_looks(gateway, capsys):
    list(batchway.run(["a", "b", "c"], model="m", progress=True, poll=0.001))
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("validating, 0 of 0 lines, 0 failed")
    assert told[-1].endswith("completed, 3 of 3 lines, 1 failed")


# The surface ----------------------------------------------------------------------------------------------------------


def test_every_operation_has_a_twin_and_a_method_with_the_same_signature():
    operations = [
        name for name, value in vars(calls).items() if inspect.isfunction(value) and value.__module__ == calls.__name__
    ]
    for name in (*(name for name in operations if not name.startswith("_")), "run"):
        one, twin = getattr(batchway, name), getattr(batchway, f"a{name}")
        assert inspect.signature(one) == inspect.signature(twin) == inspect.signature(getattr(Client(), name))
        assert inspect.signature(getattr(AsyncClient(), name)) == inspect.signature(one)
        assert "custom_llm_provider" in inspect.signature(one).parameters
        assert one.__doc__ == getattr(functions, f"a{name}").__doc__
        assert {name, f"a{name}"} <= set(batchway.__all__)
