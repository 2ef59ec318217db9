"""Storage in a bucket of S3, Google Cloud Storage or Azure, by obstore.

Whole or absent: an object is one PUT, or a multipart upload that is completed at the end and aborted on any error.
obstore repeats single requests itself, within the bounds `open_storage` gives it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import obstore

from batchway.storage.protocol import (
    WINDOW,
    StorageError,
    StorageMissing,
    Writer,
    check_range,
    checked,
    pour,
    probe,
    told,
)

if TYPE_CHECKING:
    from obstore import AsyncWritableFile, GetOptions, GetResult
    from obstore.store import ObjectStore

PART = 8 << 20  # of a multipart upload: 10,000 parts, so objects up to 80 GB
PARTS_IN_FLIGHT = 4


class BucketStorage:
    """Objects in a bucket, below the prefix of its URL; `name` is that URL, for messages.

    A writer killed half way may leave an unfinished upload, which no listing shows: give the bucket a lifecycle rule
    that aborts them after a day.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    @asynccontextmanager
    async def writer(self, key: str) -> AsyncGenerator[Writer]:
        upload = obstore.open_writer_async(self._store, checked(key), buffer_size=PART, max_concurrency=PARTS_IN_FLIGHT)
        writing = _PartWriter(key, upload)
        try:
            yield writing
        except BaseException as error:
            await upload.__aexit__(type(error), error, error.__traceback__)  # aborts the upload
            raise
        with told(key):
            await upload.close()

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        return await pour(self, key, chunks)

    async def put(self, key: str, data: bytes) -> None:
        with told(key):
            await obstore.put_async(self._store, checked(key), data, chunk_size=PART, max_concurrency=PARTS_IN_FLIGHT)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        answer = await self._open(key, start, end)
        if answer is None:
            return b""
        with told(key, missing=True):
            return bytes(await answer.bytes_async())

    async def read(
        self, key: str, start: int = 0, end: int | None = None, chunk: int = WINDOW
    ) -> AsyncGenerator[bytes, None]:
        answer = await self._open(key, start, end)
        if answer is None:
            return
        pieces = aiter(answer.stream(min_chunk_size=chunk))
        while True:
            with told(key, missing=True):
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield bytes(piece)

    async def size(self, key: str) -> int:
        with told(key, missing=True):
            return (await obstore.head_async(self._store, checked(key)))["size"]

    async def exists(self, key: str) -> bool:
        try:
            await self.size(key)
        except StorageMissing:
            return False
        return True

    async def delete(self, key: str) -> None:
        with told(key), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, checked(key))

    async def delete_prefix(self, prefix: str) -> None:
        async for found in self._pages(checked(prefix.rstrip("/"))):
            with told(prefix), suppress(FileNotFoundError):
                await obstore.delete_async(self._store, found)

    async def list(self, prefix: str = "") -> AsyncGenerator[str, None]:
        async for found in self._pages(checked(prefix.rstrip("/")) if prefix else None):
            for key in found:
                yield key

    async def sweep(self, before: float) -> None:
        """Nothing to do: see the class."""

    async def check(self) -> None:
        await probe(self, self._name)

    async def close(self) -> None:
        """Nothing to do: obstore closes its connections when it is collected."""

    async def _open(self, key: str, start: int, end: int | None) -> GetResult | None:
        """The answer to a GET, or None when the range holds no byte (which buckets answer with an error)."""
        check_range(start, end)
        wanted: GetOptions = {}
        if end is not None:
            wanted = {"range": (start, end)}
        elif start > 0:
            wanted = {"range": {"offset": start}}
        try:
            with told(key, missing=True):
                return await obstore.get_async(self._store, checked(key), options=wanted)
        except StorageError:
            if not wanted or min(await self.size(key), start if end is None else end) > start:
                raise
            return None

    async def _pages(self, prefix: str | None) -> AsyncGenerator[Sequence[str], None]:
        pages = aiter(obstore.list(self._store, prefix, chunk_size=1000))
        while True:
            with told(prefix or "/"):
                page = await anext(pages, None)
            if page is None:
                return
            yield [found["path"] for found in page]


class _PartWriter:
    """obstore gathers the parts itself."""

    def __init__(self, key: str, upload: AsyncWritableFile) -> None:
        self.size = 0
        self._key = key
        self._upload = upload

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        with told(self._key):
            await self._upload.write(data)
