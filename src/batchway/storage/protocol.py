"""The seam every storage fills: its two protocols, its errors, and what all storages do alike.

A key is a relative path of plain characters, `files/file-1/content`: names of ours, never a client's. No part of it
begins with a dot, so a storage may keep its own things there. A key is not also a folder of other keys.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from secrets import token_hex
from typing import Protocol

from obstore.exceptions import BaseError

from batchway.core.errors import BatchwayError, ConfigError

WINDOW = 1 << 20
KEY = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]*(?:/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*")


class StorageMissing(LookupError):
    """There is no object with this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no object {key!r} in the storage")
        self.key = key


class StorageError(BatchwayError):
    """The storage refused or failed: full, unreachable, denied."""


class Writer(Protocol):
    """An object in the making."""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    async def write(self, data: bytes) -> None:
        """Append; returns when another window fits in memory."""
        ...


class Storage(Protocol):
    """Objects by key. A missing one is StorageMissing, a failing storage StorageError, a bad key ValueError."""

    def writer(self, key: str) -> AbstractAsyncContextManager[Writer]:
        """A block whose bytes become the object, in the place of any former one, when the block ends well.

        A block that raises leaves no trace.
        """
        ...

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """The size in bytes of the object made of all chunks."""
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Write a small object."""
        ...

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from `start` up to, not including, `end`; fewer when the object ends before."""
        ...

    def read(
        self, key: str, start: int = 0, end: int | None = None, chunk: int = WINDOW
    ) -> AsyncGenerator[bytes, None]:
        """The same range, in pieces of about `chunk` bytes."""
        ...

    async def size(self, key: str) -> int:
        """Bytes of the object."""
        ...

    async def exists(self, key: str) -> bool: ...

    async def delete(self, key: str) -> None:
        """Remove the object; an absent one is fine."""
        ...

    async def delete_prefix(self, prefix: str) -> None:
        """Remove all objects in the folder `prefix`."""
        ...

    def list(self, prefix: str = "") -> AsyncGenerator[str, None]:
        """The keys in the folder `prefix` and below, in no particular order."""
        ...

    async def sweep(self, before: float) -> None:
        """Remove what killed writers left behind before this time (seconds since 1970); keep a day's distance."""
        ...

    async def check(self) -> None:
        """Write, read and delete a probe; ConfigError says what is wrong."""
        ...

    async def close(self) -> None: ...


@contextmanager
def told(key: str, *, missing: bool = False) -> Generator[None]:
    """Failures of the disk or the bucket as errors of ours; with `missing`, an absent object is one of its own.

    They are not chained: obstore's errors quote URLs whose query may hold a signature.
    """
    try:
        yield
        return
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        failure = StorageMissing(key) if missing else StorageError(f"storage failed at {key}: {brief(error)}")
    except (OSError, BaseError) as error:
        failure = StorageError(f"storage failed at {key}: {brief(error)}")
    raise failure from None


def brief(error: Exception) -> str:
    """The first line of an error, without XML and queries."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = (str(error).splitlines() or [""])[0].partition("<")[0]
    return re.sub(r"\?\S+", "", first).strip(" :")[:300] or type(error).__name__


def checked(key: str) -> str:
    """The key, when it is one; ValueError otherwise."""
    if len(key) > 512 or not KEY.fullmatch(key):
        raise ValueError(f"not a storage key: {key[:80]!r}")
    return key


def check_range(start: int, end: int | None) -> None:
    """Raise ValueError for a range no object can have."""
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"not a range of bytes: {start} to {end}")


async def pour(storage: Storage, key: str, chunks: AsyncIterator[bytes]) -> int:
    """`Storage.write` by means of `Storage.writer`."""
    async with storage.writer(key) as writing:
        async for chunk in chunks:
            await writing.write(chunk)
    return writing.size


async def probe(storage: Storage, name: str) -> None:
    """`Storage.check` for the storage that messages call `name`."""
    key, data = f"probe/{token_hex(8)}", token_hex(32).encode()
    try:
        await storage.put(key, data)
        found = await storage.get(key)
        await storage.delete(key)
    except (StorageError, StorageMissing) as error:
        raise ConfigError(
            f"storage {name} cannot be used: {error}. Check that it exists and the credentials."
        ) from error
    if found != data:
        raise ConfigError(f"storage {name} does not return what was written")
