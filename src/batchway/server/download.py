"""The bytes of a file: streamed in large pieces, by range, by entity tag, compressed when asked.

The entity tag is the content's sha-256, so it holds for ever and on every replica. A range is answered uncompressed: it
counts the file's own bytes. Starlette's own file answer sends 64 KiB pieces, which costs four to six times the CPU.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NamedTuple
from urllib.parse import quote

import zstandard
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from batchway.server.errors import render
from batchway.storage import Storage
from batchway.wire.errors import ErrorBody

PIECE = 512 << 10
WORTH_COMPRESSING = 1024
FASTEST = 1  # level: a download waits for it
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Stored(NamedTuple):
    """A stored file, as far as its bytes are concerned."""

    key: str
    size: int
    sha256: str
    filename: str


def respond(request: Request, storage: Storage, file: Stored) -> Response:
    """200, 206, 304 or 416 for a GET or HEAD of a file's content."""
    tag = f'"{file.sha256}"'
    headers = {
        "etag": tag,
        "accept-ranges": "bytes",
        "vary": "accept-encoding",
        "cache-control": "private, no-cache",
        "content-disposition": disposition(file.filename),
        "x-content-type-options": "nosniff",
    }
    if _names(request.headers.get("if-none-match", ""), file.sha256):
        return Response(status_code=304, headers=headers)
    try:
        part = _range(request, tag, file.size)
    except Unsatisfiable:
        message = f"The range is outside of the file, which has {file.size} bytes."
        body = ErrorBody(message=message, type="invalid_request_error", param="Range")
        return render(416, body, {"content-range": f"bytes */{file.size}"})
    if part is not None:
        start, end = part
        headers |= {"content-range": f"bytes {start}-{end - 1}/{file.size}", "content-length": str(end - start)}
        return _send(request, storage.read(file.key, start, end, PIECE), headers, 206)
    coding = _coding(request.headers.get("accept-encoding", "")) if file.size >= WORTH_COMPRESSING else None
    content = storage.read(file.key, 0, file.size, PIECE)
    if coding is None:
        return _send(request, content, headers | {"content-length": str(file.size)}, 200)
    coded = {"content-encoding": coding, "etag": f'"{file.sha256}-{coding}"'}
    return _send(request, _compressed(content, coding), headers | coded, 200)


def disposition(filename: str) -> str:
    """`attachment` under the user's own name, which can say nothing else: plain characters, and all of it as UTF-8."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"


def _send(request: Request, content: AsyncIterator[bytes], headers: dict[str, str], status: int) -> Response:
    kind = "application/octet-stream"
    if request.method == "HEAD" or headers.get("content-length") == "0":
        return Response(None, status, headers, media_type=kind)
    return StreamingResponse(content, status, headers, media_type=kind)


def _names(header: str, sha256: str) -> bool:
    return header.strip() == "*" or f'"{sha256}"' in header or f'"{sha256}-' in header


class Unsatisfiable(ValueError):
    """The range begins behind the end of the file."""


def _range(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """[start, end) that the client wants; None for the whole: no range, several, an unreadable or outdated one."""
    match = RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or match.groups() == ("", "") or request.headers.get("if-range", tag) != tag:
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    elif last and int(last) < int(first):
        return None
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise Unsatisfiable
    return start, end


def _coding(accepted: str) -> str | None:
    """The better of the codings that the client accepts; None for a client that names neither."""
    split = (offer.partition(";") for offer in accepted.split(","))
    offers = {name.strip(): weight.replace(" ", "") for name, _, weight in split}
    for coding in ("zstd", "gzip"):
        if coding in offers and not re.fullmatch(r"q=0(\.0*)?", offers[coding]):
            return coding
    return None


async def _compressed(content: AsyncIterator[bytes], coding: str) -> AsyncGenerator[bytes, None]:
    """The content compressed off the event loop: both libraries let go of the interpreter meanwhile."""
    compress, flush = _packer(coding)
    async for piece in content:
        packed = await asyncio.to_thread(compress, piece)
        if packed:
            yield packed
    yield await asyncio.to_thread(flush)


def _packer(coding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if coding == "zstd":
        zstd = zstandard.ZstdCompressor(level=FASTEST).compressobj()
        return zstd.compress, zstd.flush
    gzip = zlib.compressobj(FASTEST, wbits=31)
    return gzip.compress, gzip.flush
