from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import threading

import pytest
from sqlalchemy import select

from batchway.core.errors import Conflict, InvalidFile, NotFound, RequestError, TooLarge
from batchway.core.events import EventType
from batchway.core.ids import new_id
from batchway.core.principal import Sight
from batchway.core.spans import decode_index
from batchway.core.states import BatchState
from batchway.db import files
from batchway.db.engine import Database
from batchway.db.outbox import of_subject
from batchway.db.schema import outbox
from batchway.db.transitions import create_batch, move_batch
from batchway.pipeline.intake import Incoming, delete_file, expire_files, receive, store_requests
from batchway.storage import LocalStorage, StorageError
from batchway.wire.errors import LineFault
from tests.postgres import postgres

__all__ = ["postgres"]

SIGHT = Sight("p", "key_1")
OTHER = Sight("other", "key_2")

NOW = 1_790_000_000.0
LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
}


class Gateway:
    """The real database and storage under a folder; time is set by hand."""

    def __init__(self, url: str, root) -> None:
        self.db = Database(url)
        self.storage = LocalStorage(root, durable=False)
        self.now = NOW
        self.new_id = new_id
        self.max_file_bytes = 1 << 20

    def clock(self) -> float:
        return self.now

    async def objects(self) -> list[str]:
        return sorted([key async for key in self.storage.list()])

    async def left_nothing(self) -> bool:
        page, _ = await self.db.read(files.list_page, sight=None, limit=10)
        events = await self.db.read(lambda tx: tx.execute(select(outbox)).all())
        return not page and not events and not await self.objects() and not self.unfinished()

    def unfinished(self) -> list:
        return list((self.storage._root / ".writing").glob("*"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def gw(request, tmp_path):
    on_postgres = request.param == "postgresql"
    url = request.getfixturevalue("postgres").fresh() if on_postgres else f"sqlite:///{tmp_path}/db"
    gateway = Gateway(url, tmp_path / "storage")
    yield gateway
    gateway.db.close()
    await gateway.storage.close()


def incoming(**changes) -> Incoming:
    return Incoming(**{"project": "p", "key_id": "key_1", "filename": "in.jsonl", "purpose": "batch"} | changes)


def jsonl(*lines) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def stream(data: bytes, piece: int = 50):
    for start in range(0, len(data), piece):
        yield data[start : start + piece]
        await asyncio.sleep(0)


def batch_values(file_id: str) -> dict:
    return {
        "id": new_id("batch_"), "project": "p", "key_id": "key_1", "endpoint": "/v1/chat/completions",
        "input_file_id": file_id, "completion_window": "24h", "window_seconds": 86400, "expires_at": NOW + 86400,
    }  # fmt: skip


async def test_an_upload_is_stored_hashed_indexed_and_told(gw):
    data = jsonl(LINE, LINE | {"custom_id": "b"})
    row = await receive(gw, incoming(filename="mine ü.jsonl"), stream(data))
    assert await gw.storage.get(row["storage_key"]) == data
    assert row["storage_key"] == f"files/{row['id']}"
    index = decode_index(await gw.storage.get(row["storage_key"] + ".index"))
    assert (index.bytes, index.blocks[0].models["m"].lines) == (len(data), 2)
    wire = files.to_wire(row)
    assert (wire.bytes, wire.filename, wire.purpose) == (len(data), "mine ü.jsonl", "batch")
    assert (wire.created_at, wire.expires_at) == (int(NOW), int(NOW) + 30 * 86400)
    assert wire.batchway.sha256 == hashlib.sha256(data).hexdigest()
    assert (wire.batchway.lines, wire.batchway.models, wire.batchway.fault_count) == (2, {"m": 2}, 0)
    assert row["models"]["m"] == {
        "lines": 2, "bytes": len(data), "input_tokens": wire.batchway.estimated_input_tokens,
        "output_limit": 0, "unlimited": 2,
    }  # fmt: skip
    assert row["urls"] == {"/v1/chat/completions": 2}
    (event,) = await gw.db.read(of_subject, row["id"])
    assert (event.type, event.data["bytes"]) == (EventType.FILE_CREATED, len(data))


async def test_faulty_lines_are_accepted_and_named(gw):
    row = await receive(gw, incoming(), stream(jsonl(LINE, LINE, {**LINE, "custom_id": "c", "url": "/v2"})))
    faults = await gw.db.read(files.faults, row["id"])
    assert [(fault.line, fault.code) for fault in faults] == [(2, "duplicate_custom_id"), (3, "invalid_url")]
    assert row["fault_count"] == 2
    assert files.to_wire(row, faults).batchway.faults == faults
    assert all(isinstance(fault, LineFault) for fault in faults)


async def test_a_strict_upload_is_refused_with_every_fault(gw):
    with pytest.raises(InvalidFile, match="2 faults, the first in line 2") as caught:
        await receive(gw, incoming(), stream(jsonl(LINE, LINE, LINE)), strict=True)
    assert [fault.line for fault in caught.value.faults] == [2, 3]
    assert caught.value.status == 400
    assert await gw.left_nothing()


async def test_a_strict_upload_without_faults_is_accepted(gw):
    row = await receive(gw, incoming(), stream(jsonl(LINE)), strict=True)
    assert row["fault_count"] == 0


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (b"", {}, "The file is empty."),
        (b"\n\n", {}, "The file holds no lines."),
        (b"", {"purpose": "user_data", "filename": "x"}, "The file is empty."),
        (jsonl(LINE), {"filename": "in.txt"}, "Invalid file format for Batch API. Must be .jsonl"),
        (b"PK not json\n", {}, "Invalid file format for Batch API. Must be .jsonl"),
        ("ÿþ".encode("latin-1") + b"{}", {}, "Invalid file for Batch API. Must be utf-8 encoded"),
        (jsonl(LINE), {"purpose": None}, "Missing required parameter: 'purpose'."),
    ],
)
async def test_what_is_no_batch_file_is_refused_as_at_openai_and_leaves_nothing(gw, data, changes, message):
    with pytest.raises(RequestError) as caught:
        await receive(gw, incoming(**changes), stream(data))
    assert caught.value.message.startswith(message)
    assert caught.value.status == 400
    assert await gw.left_nothing()


async def test_a_file_of_another_purpose_is_not_looked_into(gw):
    row = await receive(gw, incoming(purpose="user_data", filename="a.bin"), stream(b"\x00\xff\n\n"))
    assert await gw.objects() == [row["storage_key"]]
    assert (row["lines"], row["fault_count"], row["models"], row["expires_at"]) == (0, 0, None, None)
    assert files.to_wire(row).batchway is None


@pytest.mark.parametrize(("purpose", "objects"), [("batch", 2), ("user_data", 1)])
async def test_the_purpose_may_be_told_behind_the_bytes(gw, purpose, objects):
    upload = incoming(purpose=None)

    async def form():
        yield jsonl(LINE)
        upload.purpose, upload.expires_at = purpose, NOW + 5000

    row = await receive(gw, upload, form())
    assert (row["purpose"], row["expires_at"], len(await gw.objects())) == (purpose, NOW + 5000, objects)


async def test_an_upload_that_breaks_off_leaves_nothing(gw):
    async def broken():
        yield jsonl(LINE) * 100
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await receive(gw, incoming(), broken())
    assert await gw.left_nothing()


async def test_a_client_who_leaves_leaves_nothing(gw):
    asked = asyncio.Event()

    async def stuck():
        yield jsonl(LINE)
        asked.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(receive(gw, incoming(), stuck()))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gw.left_nothing()


async def test_a_client_who_leaves_after_the_last_byte_parts_no_row_from_its_bytes(gw, monkeypatch):
    at_the_index, go_on, put = asyncio.Event(), asyncio.Event(), gw.storage.put

    async def slow_put(key, data):
        at_the_index.set()
        await go_on.wait()
        await put(key, data)

    monkeypatch.setattr(gw.storage, "put", slow_put)
    task = asyncio.create_task(receive(gw, incoming(), stream(jsonl(LINE))))
    await at_the_index.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (row,), _ = await gw.db.read(files.list_page, sight=None, limit=10)
    assert await gw.objects() == [row["storage_key"], row["storage_key"] + ".index"]


async def test_a_storage_that_fails_at_the_index_leaves_nothing(gw, monkeypatch):
    async def full(key, data):
        raise StorageError("full")

    monkeypatch.setattr(gw.storage, "put", full)
    with pytest.raises(StorageError):
        await receive(gw, incoming(), stream(jsonl(LINE)))
    assert await gw.left_nothing()


async def test_a_row_that_cannot_be_written_leaves_nothing(gw):
    row = await receive(gw, incoming(), stream(jsonl(LINE)))
    before = await gw.objects()
    gw.new_id = lambda prefix: prefix + "second"
    with pytest.raises(Exception, match=r"(?i)null"):
        await receive(gw, incoming(key_id=None), stream(jsonl(LINE)))
    assert await gw.objects() == before
    assert (await gw.db.read(files.list_page, sight=None, limit=10))[0] == [row]


async def test_a_file_over_the_limit_is_refused_while_it_comes_in(gw):
    gw.max_file_bytes = 1000
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            yield b"x" * 100
            sent += 100

    with pytest.raises(TooLarge):
        await receive(gw, incoming(), endless())
    assert sent == 1000
    assert await gw.left_nothing()


async def test_a_file_of_exactly_the_limit_is_accepted(gw):
    data = jsonl(LINE)
    gw.max_file_bytes = len(data)
    assert (await receive(gw, incoming(), stream(data)))["bytes"] == len(data)


async def test_inline_requests_are_a_file_like_any_other(gw):
    requests = [LINE | {"custom_id": str(number)} for number in range(600)]
    row = await store_requests(gw, incoming(filename="requests.jsonl"), requests)
    stored = await gw.storage.get(row["storage_key"])
    assert [json.loads(line) for line in stored.splitlines()] == requests
    assert (row["lines"], row["fault_count"]) == (600, 0)
    with pytest.raises(RequestError) as caught:
        await store_requests(gw, incoming(), [])
    assert caught.value.param == "requests"


async def test_the_loop_goes_on_while_a_large_chunk_is_read(gw):
    data = b"".join(jsonl(LINE | {"custom_id": str(number)}) for number in range(7000))
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await asyncio.sleep(0)
    row = await receive(gw, incoming(), stream(data, len(data)))
    counting.cancel()
    assert row["lines"] == 7000
    assert turns >= len(data) // (64 << 10)


async def test_a_deleted_file_is_gone_with_its_objects_and_once_more_does_no_harm(gw):
    row = await receive(gw, incoming(), stream(jsonl(LINE, LINE)))
    for _ in range(2):
        await delete_file(gw, row)
    assert await gw.objects() == []
    with pytest.raises(NotFound):
        await gw.db.read(files.get, row["id"], SIGHT)
    assert await gw.db.read(files.faults, row["id"]) == []


async def test_missing_objects_do_not_keep_a_file_from_being_deleted(gw):
    row = await receive(gw, incoming(), stream(jsonl(LINE)))
    await gw.storage.delete(row["storage_key"])
    await delete_file(gw, row)
    assert await gw.objects() == []


async def test_a_file_that_a_live_batch_reads_is_neither_deleted_nor_expired(gw):
    row = await receive(gw, incoming(expires_at=NOW + 3600), stream(jsonl(LINE)))
    values = batch_values(row["id"])
    await gw.db.write(create_batch, NOW, values)
    assert await gw.db.read(files.reads_live, row["id"])
    with pytest.raises(Conflict):
        await delete_file(gw, row)
    assert await expire_files(gw, NOW + 5000) == 0
    await gw.db.write(move_batch, values["id"], BatchState.VALIDATING, BatchState.FAILED, NOW)
    assert await expire_files(gw, NOW + 3599) == 0
    assert len(await gw.objects()) == 2
    assert await expire_files(gw, NOW + 5000) == 1
    assert await gw.objects() == []


async def test_other_people_s_files_are_not_found(gw):
    row = await receive(gw, incoming(), stream(jsonl(LINE)))
    with pytest.raises(NotFound):
        await gw.db.read(files.get, row["id"], OTHER)
    assert (await gw.db.read(files.get, row["id"], None))["id"] == row["id"]
    assert await gw.db.read(files.list_page, sight=OTHER, limit=5) == ([], False)
    with pytest.raises(NotFound):
        await gw.db.read(files.list_page, sight=OTHER, limit=5, after=row["id"])


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_hold_every_file_once_while_others_arrive(gw, order):
    async def upload(purpose="batch"):
        return (await receive(gw, incoming(purpose=purpose), stream(jsonl(LINE))))["id"]

    ids = []
    for number in range(7):
        gw.now = NOW + number // 3  # several of the same moment
        ids.append(await upload())
    await upload("user_data")
    seen, after = [], None
    for turn in itertools.count():
        page, more = await gw.db.read(files.list_page, sight=SIGHT, limit=3, after=after, order=order, purpose="batch")
        seen += [row["id"] for row in page]
        if not more:
            break
        after = seen[-1]
        if order == "desc":
            gw.now = NOW + 100 + turn
            await upload()
    assert sorted(seen) == sorted(ids)
    times = [int((await gw.db.read(files.get, one, SIGHT))["created_at"]) for one in seen]
    assert times == sorted(times, reverse=order == "desc")


async def test_an_unknown_after_is_not_found(gw):
    with pytest.raises(NotFound):
        await gw.db.read(files.list_page, sight=SIGHT, limit=3, after="file-none")


async def test_a_batch_made_while_its_file_is_being_deleted_keeps_it(gw):
    row = await receive(gw, incoming(), stream(jsonl(LINE)))
    held, go_on = threading.Event(), threading.Event()

    def slow_create(tx):
        files.get(tx, row["id"], SIGHT, hold=True)
        held.set()
        go_on.wait(10)
        create_batch(tx, NOW, batch_values(row["id"]))

    creating = asyncio.create_task(gw.db.write(slow_create))
    await asyncio.to_thread(held.wait, 10)
    deleting = asyncio.create_task(delete_file(gw, row))
    await asyncio.wait({deleting}, timeout=0.1)
    assert not deleting.done()
    go_on.set()
    await creating
    with pytest.raises(Conflict):
        await deleting
    assert len(await gw.objects()) == 2
