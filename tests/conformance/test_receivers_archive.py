"""The archive, in a local folder and in a real S3 server."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from batchway.core.events import EventType
from batchway.integrations import archive
from batchway.integrations.protocol import ReceiverError
from batchway.testing.receiver_ground import ReceiverGround, Trouble, ends, event, records
from batchway.testing.receiver_suite import ReceiverSuite
from tests.conformance.receiving import Proxy
from tests.gateway import free_port

SECRET = "the-secret-of-the-bucket"
START_SECONDS = 60.0
GAPS = {
    "test_a_busy_peer_is_given_the_time_it_asks_for": "the storage layer obeys it by itself, and then only fails",
    "test_what_the_peer_will_never_take_is_permanent": "a storage that refuses may be mended: no refusal is final",
}


@dataclass
class Weed:
    """A running SeaweedFS with one bucket."""

    port: int

    @property
    def s3(self) -> Any:
        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1")

    def objects(self) -> dict[str, bytes]:
        """Every object by its key, in order."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="archive")
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {key: self.s3.get_object(Bucket="archive", Key=key)["Body"].read() for key in sorted(keys)}

    def empty(self) -> None:
        for key in self.objects():
            self.s3.delete_object(Bucket="archive", Key=key)


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    folder = tmp_path_factory.mktemp("weed")
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3", "admin")}
    grpc = {name: free_port() for name in ports}
    flags = [f"-{name}.port={port}" for name, port in ports.items()]
    flags += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
    flags += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
    command = ["weed", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-bucket=archive", *flags]
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("AWS_ACCESS_KEY_ID", "gateway")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        path = f"{Path(__file__).parents[2] / '.venv' / 'bin'}:{os.environ['PATH']}"
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PATH": path})
        try:
            made = Weed(ports["s3"])
            wait_ready(made, server)
            yield made
        finally:
            server.kill()
            server.wait(30)


def wait_ready(weed: Weed, server: subprocess.Popen[bytes]) -> None:
    """Until the bucket is there."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, "weed ended"
        with suppress(BotoCoreError, ClientError):
            if [found["Name"] for found in weed.s3.list_buckets()["Buckets"]] == ["archive"]:
                return
        time.sleep(0.1)  # another process: there is nothing else to wait on
    raise AssertionError("weed was not ready")


def told_of(objects: dict[str, bytes], kind: str) -> list[dict[str, Any]]:
    """The elements of all objects of events or of lines, in the order of their names."""
    found = [data for key, data in objects.items() if f"{kind}/" in key]
    unpacked = [gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in found]
    return [json.loads(line) for data in unpacked for line in data.splitlines()]


class ArchiveGround(ReceiverGround):
    patience = 1.5

    def __init__(self, options: archive.Options) -> None:
        self.open = lambda: archive.Archive("archive", options)
        self.receiver = self.open()

    def objects(self) -> dict[str, bytes]:
        raise NotImplementedError

    async def taken(self, wanted: int) -> list[str]:
        return [one["id"] for one in told_of(self.objects(), "events")]

    async def lines_taken(self, wanted: int) -> list[tuple[str, int]]:
        return [(one["job_id"], one["number"]) for one in told_of(self.objects(), "lines")]

    async def reopened(self):
        return self.open()


class BucketGround(ArchiveGround):
    secrets = (SECRET,)

    def __init__(self, weed: Weed, proxy: Proxy) -> None:
        self.weed, self.proxy = weed, proxy
        super().__init__(archive.Options(url="s3://archive/of/mine", timeout=1.0, lines=True, compress="gzip"))

    def objects(self) -> dict[str, bytes]:
        return self.weed.objects()

    async def disturb(self, how: Trouble) -> None:
        await self.proxy.disturb(how)


class TestBucket(ReceiverSuite):
    gaps = GAPS

    @pytest.fixture
    async def ground(self, weed: Weed, monkeypatch: pytest.MonkeyPatch):
        proxy = Proxy(weed.port)
        await proxy.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        made = BucketGround(weed, proxy)
        yield made
        await made.receiver.close()
        await proxy.stop()
        weed.empty()


def objects_in(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*.jsonl*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


async def test_an_object_is_named_by_what_is_in_it_and_a_repeat_overwrites_it(tmp_path: Path) -> None:
    first = archive.Archive("archive", archive.Options(url=str(tmp_path)))
    events = ends(3)
    await first.tell(events)
    once = objects_in(tmp_path)
    await archive.Archive("archive", archive.Options(url=f"file://{tmp_path}")).tell(events)
    assert objects_in(tmp_path) == once
    (name,) = once
    day = time.strftime("%Y-%m-%d", time.gmtime(events[0].created_at))
    assert name == f"events/date={day}/{events[0].position:020d}-{events[2].position:020d}.jsonl"


async def test_no_repeat_that_is_cut_otherwise_loses_an_event(tmp_path: Path) -> None:
    sink = archive.Archive("archive", archive.Options(url=str(tmp_path)))
    events = ends(6)
    for window in (events, events[:2], events[2:], events[:1]):
        await sink.tell(window)
    assert {one["id"] for one in told_of(objects_in(tmp_path), "events")} == {one.id for one in events}


async def test_a_folder_that_cannot_be_written_is_told_later(tmp_path: Path) -> None:
    sink = archive.Archive("archive", archive.Options(url=str(tmp_path / "data")))
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(ReceiverError) as caught:
        await sink.tell(ends(1))
    assert not caught.value.permanent


async def test_packed_objects_hold_the_same_lines(tmp_path: Path) -> None:
    job = event(EventType.JOB_ACCOUNTED)
    sink = archive.Archive("archive", archive.Options(url=str(tmp_path), compress="gzip", lines=True))
    for _ in range(2):
        await sink.tell_lines(job, records(job, range(1, 4)))
    (name,) = objects_in(tmp_path)
    assert name.endswith(f"/{job.data['id']}/000000000001-000000000003.jsonl.gz")
    assert [one["number"] for one in told_of(objects_in(tmp_path), "lines")] == [1, 2, 3]


@pytest.mark.parametrize(("url", "word"), [("some/folder", "a whole path"), ("ftp://x", "scheme 'ftp'")])
def test_what_is_no_place_is_refused_at_the_start(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        archive.Options(url=url)
