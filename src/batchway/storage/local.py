"""Storage in a local folder: plain files, 5 to 30 times faster there than any object store's own local mode.

Whole or absent: bytes go to `.writing/` under the root, are fsynced, then renamed to their key, and the folder is
fsynced too. So an object that a committed row points to survives a power cut.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TypeVar

from batchway.storage.protocol import WINDOW, StorageMissing, Writer, check_range, checked, pour, probe, told

PIECES = 8192  # a window of many tiny writes weighs more than its bytes

T = TypeVar("T")


class LocalStorage:
    """Plain files under `root`: 0600 in folders 0700, on threads of its own.

    `durable=False` leaves out fsync, for tests and scratch folders: a power cut may then lose finished objects.
    """

    def __init__(self, root: Path, *, durable: bool = True, threads: int = 4) -> None:
        self._root = root.absolute()
        self._durable = durable
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batchway-storage")

    @asynccontextmanager
    async def writer(self, key: str) -> AsyncGenerator[Writer]:
        path = self._path(key)
        with told(key):
            file, temporary = await self._do(self._create)
        writing = _FileWriter(key, file, self._pool)
        try:
            yield writing
            await writing.flush()
            with told(key):
                await self._do(partial(self._commit, file, temporary, path))
        except BaseException:
            await self._do(partial(_discard, file, temporary))
            raise

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        return await pour(self, key, chunks)

    async def put(self, key: str, data: bytes) -> None:
        path = self._path(key)

        def whole() -> None:
            file, temporary = self._create()
            try:
                file.write(data)
                self._commit(file, temporary, path)
            except BaseException:
                _discard(file, temporary)
                raise

        with told(key):
            await self._do(whole)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        path = self._path(key)
        check_range(start, end)

        def piece() -> bytes:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                return _read_full(file, None if end is None else max(0, end - start))

        with told(key, missing=True):
            return await self._do(piece)

    async def read(
        self, key: str, start: int = 0, end: int | None = None, chunk: int = WINDOW
    ) -> AsyncGenerator[bytes, None]:
        path = self._path(key)
        check_range(start, end)
        with told(key, missing=True):
            file = await self._do(lambda: path.open("rb", buffering=0))
        with file:
            at = start
            while end is None or at < end:
                wanted = chunk if end is None else min(chunk, end - at)
                with told(key, missing=True):  # a folder opens, and fails here
                    data = await self._do(partial(os.pread, file.fileno(), wanted, at))
                if not data:
                    return
                at += len(data)
                yield data

    async def size(self, key: str) -> int:
        with told(key, missing=True):
            found = await self._do(self._path(key).stat)
        if not stat.S_ISREG(found.st_mode):
            raise StorageMissing(key)
        return found.st_size

    async def exists(self, key: str) -> bool:
        return await self._do(self._path(key).is_file)

    async def delete(self, key: str) -> None:
        path = self._path(key)
        with told(key), suppress(FileNotFoundError, NotADirectoryError):
            await self._do(path.unlink)

    async def delete_prefix(self, prefix: str) -> None:
        path = self._path(prefix.rstrip("/"))
        with told(prefix), suppress(FileNotFoundError, NotADirectoryError):
            await self._do(partial(shutil.rmtree, path))

    async def list(self, prefix: str = "") -> AsyncGenerator[str, None]:
        waiting = [self._path(prefix.rstrip("/")) if prefix else self._root]
        while waiting:
            with told(prefix):
                files, folders = await self._do(partial(_look, waiting.pop()))
            waiting += folders
            for file in files:
                yield file.relative_to(self._root).as_posix()

    async def sweep(self, before: float) -> None:
        with told("unfinished objects"):
            await self._do(partial(self._sweep, before))

    async def check(self) -> None:
        await probe(self, f"folder {self._root}")

    async def close(self) -> None:
        """Let running writes end, then release the threads."""
        await asyncio.to_thread(self._pool.shutdown)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _path(self, key: str) -> Path:
        return self._root / checked(key)

    def _create(self) -> tuple[BinaryIO, Path]:
        folder = self._root / ".writing"  # on the same disk as the target, and no key can name it
        self._make_folder(folder)
        handle, name = tempfile.mkstemp(dir=folder)  # mode 0600
        return os.fdopen(handle, "wb"), Path(name)

    def _commit(self, file: BinaryIO, temporary: Path, path: Path) -> None:
        with file:
            file.flush()
            if self._durable:
                os.fsync(file.fileno())
        self._make_folder(path.parent)
        temporary.replace(path)
        if self._durable:
            _sync_folder(path.parent)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._durable:
            _sync_folder(folder.parent)

    def _sweep(self, before: float) -> None:
        for entry in (self._root / ".writing").glob("*"):
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < before:
                    entry.unlink()


class _FileWriter:
    """Gathers small writes: a thread is asked once a window."""

    def __init__(self, key: str, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self.size = 0
        self._key = key
        self._file = file
        self._pool = pool
        self._window: list[bytes] = []
        self._held = 0

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        self._held += len(data)
        self._window.append(data)
        if self._held >= WINDOW or len(self._window) >= PIECES:
            await self.flush()

    async def flush(self) -> None:
        window, self._window, self._held = self._window, [], 0
        with told(self._key):
            await asyncio.get_running_loop().run_in_executor(self._pool, self._file.writelines, window)


def _read_full(file: FileIO, wanted: int | None) -> bytes:
    """Up to `wanted` bytes: one read call may bring fewer."""
    if wanted is None:
        return file.readall()
    pieces: list[bytes] = []
    while wanted > 0 and (piece := file.read(wanted)):
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)


def _discard(file: BinaryIO, temporary: Path) -> None:
    try:
        file.close()
    finally:
        temporary.unlink(missing_ok=True)


def _look(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and folders in a folder; none when it is absent."""
    files: list[Path] = []
    folders: list[Path] = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir(follow_symlinks=False) else files).append(Path(entry.path))
    return files, folders


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
