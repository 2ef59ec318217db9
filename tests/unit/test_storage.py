from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import pytest

from batchway.core.errors import ConfigError
from batchway.storage import LocalStorage, Storage, StorageError, StorageMissing, open_storage
from batchway.testing.storage_suite import BIG, StorageSuite, keys, pieces


class TestLocal(StorageSuite):
    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        storage = LocalStorage(tmp_path / "data", durable=False)
        yield storage
        await storage.close()


class TestS3(StorageSuite):
    @pytest.fixture
    async def storage(self, bucket: str, tmp_path: Path) -> AsyncIterator[Storage]:
        storage = open_storage(f"{bucket}/some/prefix", home=tmp_path)
        yield storage
        async for key in storage.list():
            await storage.delete(key)
        await storage.close()

    async def test_no_unfinished_upload_is_left_behind(self, storage: Storage, bucket: str) -> None:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is under test
            async with storage.writer("a") as writing:
                await writing.write(BIG)
                _ = 1 / 0
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        assert not client.list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads")

    async def test_the_check_names_a_bucket_that_does_not_exist(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="s3://none-such"):
            await open_storage("s3://none-such/x", home=tmp_path).check()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert server.stderr is not None
        try:
            url = next(found[1] for line in server.stderr if (found := re.search(r"Running on (http://\S+)", line)))
            patch.setenv("AWS_ENDPOINT_URL", url)
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            boto3.client("s3", endpoint_url=url).create_bucket(Bucket="batchway-test")
            yield "s3://batchway-test"
        finally:
            server.terminate()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStorage]:
    storage = LocalStorage(tmp_path / "data")
    yield storage
    await storage.close()


async def test_local_files_are_private(local: LocalStorage, tmp_path: Path) -> None:
    await local.put("a/b", b"x")
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").rglob("*")}
    assert found == {".writing": 0o700, "a": 0o700, "b": 0o600}


async def test_data_and_name_are_synced_before_a_write_returns(
    local: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.put("a/first", b"x")
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes")
        sync(handle)

    def replaced(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    await local.put("a/b", b"12345")
    await local.write("a/c", pieces(b"1234567"))
    assert done == ["5 bytes", "rename", "folder", "7 bytes", "rename", "folder"]
    done.clear()
    await local.put("new/d", b"1")
    assert done == ["1 bytes", "folder", "rename", "folder"]


async def test_what_a_killed_writer_left_is_no_object_and_can_be_swept(local: LocalStorage, tmp_path: Path) -> None:
    await local.put("a", b"x")
    left = tmp_path / "data" / ".writing" / "tmpabc"
    left.write_bytes(b"half")
    assert await keys(local) == ["a"]
    modified = left.stat().st_mtime
    await local.sweep(modified - 1)
    assert left.exists()
    await local.sweep(modified + 1)
    assert not left.exists()


async def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    local: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "data" / ".writing").mkdir(parents=True)
    with pytest.raises(StorageError, match="No space left"):
        await local.put("a", b"x")
    with pytest.raises(StorageError, match="No space left"):
        await local.write("a", pieces(b"x"))
    assert list((tmp_path / "data" / ".writing").iterdir()) == []


async def test_a_folder_that_cannot_be_is_named_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="file/data"):
        await LocalStorage(tmp_path / "file" / "data").check()


async def test_urls_choose_the_storage(tmp_path: Path) -> None:
    absolute = tmp_path / "with space"
    for url, place in {
        "files": tmp_path / "home" / "files",
        str(absolute): absolute,
        f"file://{tmp_path}/with%20space": absolute,
    }.items():
        storage = open_storage(url, home=tmp_path / "home")
        await storage.put("a", b"x")
        assert (place / "a").read_bytes() == b"x"
        await storage.close()
    with pytest.raises(ConfigError, match="ftp"):
        open_storage("ftp://x/y", home=tmp_path)


async def test_an_unreachable_bucket_is_a_storage_error_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", "sv=2024&sig=c2VjcmV0")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1/someone")
    monkeypatch.setattr("batchway.storage.RETRIES", {"max_retries": 0})
    storage = open_storage("az://container/prefix", home=tmp_path)
    with pytest.raises(StorageError) as caught:
        await storage.get("a")
    assert not isinstance(caught.value, StorageMissing)
    assert "c2VjcmV0" not in "".join(traceback.format_exception(caught.value))
