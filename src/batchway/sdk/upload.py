"""What `file=` may be, as a source that can be read in pieces, and the multipart body around it.

Memory is bounded by one piece. A source is read again for a retry where that is possible: bytes, paths and seekable
file objects are; others are sent once.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeAlias, cast
from uuid import uuid4

from batchway.sdk.errors import BadRequestError

PIECE = 256 << 10
UNNAMED = "upload.jsonl"


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes with a name; `size` in bytes is None when only reading tells. `pieces` opens them anew."""

    filename: str
    size: int | None
    pieces: Callable[[], Iterator[bytes]]
    repeatable: bool = True
    content_type: str = "application/octet-stream"


FileTypes: TypeAlias = "IO[bytes] | bytes | os.PathLike[str] | str | tuple[Any, ...] | Source"


@dataclass(frozen=True, slots=True)
class Body:
    """A multipart/form-data body: fields first, so that the gateway knows the purpose when the file arrives."""

    source: Source
    fields: Mapping[str, str]
    boundary: str

    @property
    def content_type(self) -> str:
        """The header of the request."""
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def size(self) -> int | None:
        """All bytes of the body, when the source knows its own."""
        return None if self.source.size is None else len(self._head()) + self.source.size + len(self._tail())

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning."""
        yield self._head()
        yield from self.source.pieces()
        yield self._tail()

    def _head(self) -> bytes:
        parts = [f'{self._open()}name="{_quoted(name)}"\r\n\r\n{value}\r\n' for name, value in self.fields.items()]
        named = f'name="file"; filename="{_quoted(self.source.filename)}"'
        parts.append(f"{self._open()}{named}\r\ncontent-type: {self.source.content_type}\r\n\r\n")
        return "".join(parts).encode()

    def _open(self) -> str:
        return f"--{self.boundary}\r\ncontent-disposition: form-data; "

    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()


def body(file: FileTypes, fields: Mapping[str, str]) -> Body:
    """The body of an upload; BadRequestError when `file` is nothing that can be read."""
    return Body(source(file), fields, uuid4().hex)


def source(file: object, filename: str | None = None) -> Source:
    """`file` as OpenAI's clients take it: a file object, bytes, a path, or (name, one of them[, content type])."""
    if isinstance(file, Source):
        return file
    if isinstance(file, tuple):
        return _of_tuple(cast("tuple[Any, ...]", file))
    if isinstance(file, bytes | bytearray | memoryview):
        data = bytes(cast("bytes", file))
        return Source(filename or UNNAMED, len(data), lambda: _slices(data))
    if isinstance(file, str | os.PathLike):
        return _of_path(Path(cast("str", file)), filename)
    if hasattr(file, "read"):
        return _of_object(cast("IO[bytes]", file), filename)
    message = f"Invalid 'file': expected a binary file object, bytes, a path or a tuple, got {type(file).__name__}."
    raise BadRequestError(message, param="file")


def _of_tuple(file: tuple[Any, ...]) -> Source:
    if not 2 <= len(file) <= 4 or not isinstance(file[0], str | None):
        raise BadRequestError("Invalid 'file': a tuple is (name, content) or (name, content, type).", param="file")
    inner = source(file[1], file[0])
    kind = file[2] if len(file) > 2 and isinstance(file[2], str) else inner.content_type
    return replace(inner, content_type=kind)


def _of_path(path: Path, filename: str | None) -> Source:
    if not path.is_file():
        raise BadRequestError(f"Invalid 'file': there is no file {path}.", param="file")

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as opened:
            yield from _read(opened)

    return Source(filename or path.name, path.stat().st_size, pieces)


def _of_object(file: IO[bytes], filename: str | None) -> Source:
    if isinstance(file, io.TextIOBase):
        raise BadRequestError("Invalid 'file': it was opened as text; open it with mode 'rb'.", param="file")
    name = filename or _name_of(file)
    start = size = None
    with suppress(OSError, AttributeError, ValueError):  # a pipe or a socket: read once, to its end
        if file.seekable():
            start = file.tell()
            size = file.seek(0, os.SEEK_END) - start
            file.seek(start)

    def pieces() -> Iterator[bytes]:
        if start is not None:
            file.seek(start)
        yield from _read(file)

    return Source(name, size, pieces, repeatable=start is not None)


def _name_of(file: IO[bytes]) -> str:
    name: object = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) and name else UNNAMED


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def _slices(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def _quoted(text: str) -> str:
    """As browsers write names: quotes and line breaks percent-encoded (WHATWG, multipart/form-data)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
