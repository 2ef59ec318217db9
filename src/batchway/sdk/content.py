"""The bytes of a file, read when they are asked for.

From `Client` they come from the connection as they are read; from `AsyncClient` the answer is complete when the await
is (in memory up to a few MiB, then in a temporary file), so that the same methods work without a second await.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class Content:
    """A file's bytes. They can be streamed once; `.content` and `.text` keep them all and can be asked again."""

    def __init__(
        self, pieces: Iterator[bytes], headers: Mapping[str, str], close: Callable[[], None] = lambda: None
    ) -> None:
        self.headers = headers
        self._pieces = pieces
        self._close = close
        self._begun = False
        self._all: bytes | None = None

    @property
    def content(self) -> bytes:
        """All bytes, in memory."""
        if self._all is None:
            self._all = b"".join(self._stream())
        return self._all

    @property
    def text(self) -> str:
        """All bytes as UTF-8 text."""
        return self.content.decode()

    def read(self) -> bytes:
        """All bytes, in memory."""
        return self.content

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The bytes in pieces: of `chunk_size` bytes (the last may be shorter), or as they come."""
        if chunk_size is None:
            yield from self._stream()
            return
        held = bytearray()
        for piece in self._stream():
            held += piece
            while len(held) >= chunk_size:
                yield bytes(held[:chunk_size])
                del held[:chunk_size]
        if held:
            yield bytes(held)

    def iter_lines(self) -> Iterator[str]:
        """The lines as text, without their newlines."""
        held: list[bytes] = []
        for piece in self._stream():
            *whole, rest = piece.split(b"\n")
            for line in whole:
                yield b"".join((*held, line)).decode()
                held.clear()
            held.append(rest)
        if any(held):
            yield b"".join(held).decode()

    def write_to_file(self, path: str | os.PathLike[str]) -> None:
        """Writes the bytes to `path`; a download that breaks off leaves what stands there alone."""
        target = Path(path)
        if target.exists() and not target.is_file():  # /dev/stdout must not be replaced
            self._write(target)
            return
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            self._write(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    stream_to_file = write_to_file

    def _write(self, path: Path) -> None:
        with path.open("wb") as out:
            for piece in self._stream():
                out.write(piece)

    def close(self) -> None:
        """Lets the connection go before the end."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Content({self.headers.get('content-disposition', 'unnamed')})"

    def _stream(self) -> Iterator[bytes]:
        if self._all is not None:
            return iter((self._all,))
        if self._begun:
            raise RuntimeError("these bytes were streamed already; ask for the file's content again")
        self._begun = True
        return self._pieces
