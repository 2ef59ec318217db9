"""What the SDK makes of wrong keys, refusals, cut connections and silence; and the memory of an upload."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import socket
import threading
from pathlib import Path

import pytest

import batchway
from batchway import Client
from batchway.sdk import calls
from tests.tiny_gateway import JSONL, client, gateway, naps, served

__all__ = ["gateway", "naps", "served"]


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
