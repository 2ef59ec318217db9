"""What every storage must do: subclass `StorageSuite` and provide a fixture `storage`, empty at each test's start.

The tests need pytest and pytest-asyncio (mode "auto"), and run the storage for real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from batchway.storage import Storage, StorageMissing

BIG = bytes(range(256)) * 40_000  # 10 MB: more than one part of a multipart upload


async def pieces(data: bytes, size: int = 700_001) -> AsyncIterator[bytes]:
    """The data in pieces that fit no window."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def keys(storage: Storage, prefix: str = "") -> list[str]:
    """All keys, sorted."""
    return sorted([key async for key in storage.list(prefix)])


class StorageSuite:
    """Objects are whole or absent, ranges are exact, absence is told apart from failure."""

    async def test_what_was_put_is_read_back(self, storage: Storage) -> None:
        await storage.put("a/b", b"hello")
        assert await storage.get("a/b") == b"hello"
        assert await storage.size("a/b") == 5
        assert await storage.exists("a/b")

    async def test_an_empty_object_exists(self, storage: Storage) -> None:
        await storage.put("put", b"")
        async with storage.writer("written"):
            pass
        for key in ("put", "written"):
            assert await storage.size(key) == 0
            assert await storage.get(key) == b""
            assert [piece async for piece in storage.read(key)] == []
            assert await storage.get(key, 0, 5) == b""

    async def test_a_put_replaces_the_whole_object(self, storage: Storage) -> None:
        await storage.put("a", b"a long first version")
        await storage.put("a", b"short")
        assert await storage.get("a") == b"short"

    async def test_a_stream_of_several_parts_is_written_whole(self, storage: Storage) -> None:
        assert await storage.write("big", pieces(BIG)) == len(BIG)
        assert await storage.size("big") == len(BIG)
        assert b"".join([piece async for piece in storage.read("big")]) == BIG

    async def test_small_writes_arrive_in_order(self, storage: Storage) -> None:
        async with storage.writer("a") as writing:
            for number in range(1000):
                await writing.write(b"%d\n" % number)
        assert writing.size == 3890
        assert await storage.get("a") == b"".join(b"%d\n" % number for number in range(1000))

    @pytest.mark.parametrize("size", [10, len(BIG)])
    async def test_nothing_is_visible_before_the_end(self, storage: Storage, size: int) -> None:
        async with storage.writer("a") as writing:
            await writing.write(BIG[:size])
            assert not await storage.exists("a")
            assert await keys(storage) == []
        assert await keys(storage) == ["a"]

    @pytest.mark.parametrize("size", [10, len(BIG)])
    async def test_a_block_that_raises_leaves_the_former_object(self, storage: Storage, size: int) -> None:
        await storage.put("a", b"former")
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is under test
            async with storage.writer("a") as writing:
                await writing.write(BIG[:size])
                _ = 1 / 0
        assert await storage.get("a") == b"former"
        assert await keys(storage) == ["a"]

    async def test_a_source_that_fails_leaves_nothing(self, storage: Storage) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield BIG
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await storage.write("a", failing())
        assert await keys(storage) == []

    async def test_a_cancelled_writer_leaves_nothing(self, storage: Storage) -> None:
        written = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield BIG
            written.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(storage.write("a", endless()))
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await keys(storage) == []

    @pytest.mark.parametrize(
        ("start", "end"), [(0, None), (0, 1), (3, 7), (5, 5), (9, 10), (9, None), (8, 99), (10, None), (12, 15)]
    )
    async def test_ranges_are_those_of_python(self, storage: Storage, start: int, end: int | None) -> None:
        await storage.put("a", b"0123456789")
        assert await storage.get("a", start, end) == b"0123456789"[start:end]
        assert b"".join([piece async for piece in storage.read("a", start, end)]) == b"0123456789"[start:end]

    async def test_a_range_of_a_big_object_is_exact(self, storage: Storage) -> None:
        await storage.write("a", pieces(BIG))
        start, end = 1_000_003, 7_000_001
        assert b"".join([piece async for piece in storage.read("a", start, end, chunk=300_000)]) == BIG[start:end]

    async def test_a_reader_may_stop_early(self, storage: Storage) -> None:
        await storage.write("a", pieces(BIG))
        reading = storage.read("a")
        assert (await anext(reading))[:3] == BIG[:3]
        await reading.aclose()

    @pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4)])
    async def test_a_range_that_cannot_be_is_refused(self, storage: Storage, start: int, end: int | None) -> None:
        await storage.put("a", b"0123456789")
        with pytest.raises(ValueError, match="range"):
            await storage.get("a", start, end)

    async def test_a_missing_object_is_told_by_its_key(self, storage: Storage) -> None:
        await storage.put("folder/a", b"x")
        for key in ("none", "folder", "folder/b"):
            assert not await storage.exists(key)
            with pytest.raises(StorageMissing, match=key):
                await storage.get(key)
            with pytest.raises(StorageMissing, match=key):
                await storage.get(key, 0, 5)
            with pytest.raises(StorageMissing, match=key):
                await storage.size(key)
            with pytest.raises(StorageMissing, match=key):
                await anext(storage.read(key, 2))

    async def test_deleting_is_final_and_may_be_repeated(self, storage: Storage) -> None:
        await storage.put("a/b", b"x")
        await storage.delete("a/b")
        await storage.delete("a/b")
        await storage.delete("none/at/all")
        assert not await storage.exists("a/b")

    async def test_a_prefix_is_a_folder_not_the_start_of_a_name(self, storage: Storage) -> None:
        for key in ("a/1", "a/b/2", "ab/3", "c"):
            await storage.put(key, b"x")
        assert await keys(storage) == ["a/1", "a/b/2", "ab/3", "c"]
        assert await keys(storage, "a") == await keys(storage, "a/") == ["a/1", "a/b/2"]
        assert await keys(storage, "none") == []
        await storage.delete_prefix("a")
        await storage.delete_prefix("none")
        assert await keys(storage) == ["ab/3", "c"]

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a/.b", "a b", "a\\b", "a\n", "é", "a" * 513]
    )
    async def test_a_key_that_could_leave_its_place_is_refused(self, storage: Storage, key: str) -> None:
        with pytest.raises(ValueError, match="key"):
            await storage.put(key, b"x")
        with pytest.raises(ValueError, match="key"):
            await storage.get(key)
        with pytest.raises(ValueError, match="key"):
            async with storage.writer(key):
                pass
        with pytest.raises(ValueError, match="key"):
            await storage.delete(key)

    async def test_not_even_a_mistake_deletes_everything(self, storage: Storage) -> None:
        await storage.put("a", b"x")
        for prefix in ("", "/", "."):
            with pytest.raises(ValueError, match="key"):
                await storage.delete_prefix(prefix)
        assert await keys(storage) == ["a"]

    async def test_many_at_once(self, storage: Storage) -> None:
        async def one(number: int) -> bytes:
            await storage.put(f"many/{number}", b"%d" % number)
            return await storage.get(f"many/{number}")

        assert await asyncio.gather(*(one(number) for number in range(50))) == [b"%d" % n for n in range(50)]

    async def test_the_check_passes_and_leaves_nothing(self, storage: Storage) -> None:
        await storage.check()
        assert await keys(storage) == []

    async def test_sweeping_leaves_finished_objects(self, storage: Storage) -> None:
        await storage.put("a", b"x")
        await storage.sweep(4e9)
        assert await storage.get("a") == b"x"
