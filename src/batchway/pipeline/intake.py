"""An upload becomes a stored, hashed, line-indexed file.

The bytes stream through the line check into the storage, a piece at a time; when all are there, the row, its faults and
its event are one transaction. The invariant: a file with a row has all its bytes and its index (`<storage_key>.index`),
and an upload that breaks off, is too large or is refused leaves neither row nor object. Only a process killed between
the last byte and the commit leaves an object that no row names.

Refused at once, as at OpenAI, is what is not JSONL at all; faults of single lines are stored, and fail the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import Conflict, InvalidFile, RequestError, TooLarge
from batchway.core.events import EventType
from batchway.core.linecheck import Findings, LineCheck
from batchway.core.linefaults import NOT_UTF8
from batchway.db import files
from batchway.db.engine import Database
from batchway.db.outbox import About, tell
from batchway.storage import Storage

T = TypeVar("T")

PIECE = 64 << 10  # bytes checked at a stretch: about a millisecond of the event loop when lines are short
INLINE_LINES = 256  # inline requests encoded at a stretch
KEEP_SECONDS = 30 * 86400  # of a batch input file without a time of its own, as at OpenAI
INDEX_SUFFIX = ".index"
NOT_JSONL = "Invalid file format for Batch API. Must be .jsonl"
TOLD_MODELS = 100


class Gateway(Protocol):
    """What intake needs; `max_file_bytes` bounds one file, `clock` answers unix seconds."""

    @property
    def db(self) -> Database: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def new_id(self) -> Callable[[str], str]: ...
    @property
    def max_file_bytes(self) -> int: ...


class Incoming(msgspec.Struct, kw_only=True):
    """What is coming in. A form may tell `purpose` and `expires_at` behind the bytes: they are read when these end.

    While `purpose` is None the bytes are checked as batch input. `expires_at` is in unix seconds.
    """

    project: str
    key_id: str
    filename: str
    private: bool = False
    purpose: str | None = None
    expires_at: float | None = None


async def receive(gw: Gateway, upload: Incoming, chunks: AsyncIterator[bytes], *, strict: bool = False) -> RowMapping:
    """The row of the new file.

    RequestError: not a batch file, or, when `strict`, InvalidFile with every fault. TooLarge: over `max_file_bytes`.
    """
    if upload.purpose == "batch":
        _check_name(upload.filename)
    file_id = gw.new_id("file-")
    key = f"files/{file_id}"
    async with gw.storage.writer(key) as out:
        check = LineCheck(look=upload.purpose in (None, "batch"))
        async for chunk in chunks:
            for piece in _pieces(chunk):
                if out.size + len(piece) > gw.max_file_bytes:
                    raise TooLarge(f"The file is larger than the {gw.max_file_bytes} bytes allowed.", param="file")
                check.feed(piece)
                await out.write(piece)
                await asyncio.sleep(0)  # a write that only gathers does not let others run
        findings = check.finish()
        _accept(upload, findings, strict=strict)
    return await to_the_end(_store(gw, upload, file_id, key, findings))


async def store_requests(
    gw: Gateway, upload: Incoming, requests: Sequence[dict[str, Any]], *, strict: bool = False
) -> RowMapping:
    """The row of a file made of inline requests, one line each; checked like an upload."""
    if not requests:
        message = "Invalid value for 'requests': it must hold at least one request."
        raise RequestError(message, code="empty_array", param="requests")
    return await receive(gw, upload, _encoded(requests), strict=strict)


async def delete_file(gw: Gateway, row: RowMapping) -> None:
    """The file is gone; Conflict while a batch that has not ended reads it. Deleting it again does no harm."""
    if not await gw.db.write(files.delete_unread, row["id"]):
        message = f"File {row['id']} is read by a batch that has not ended: cancel the batch or wait for its end."
        raise Conflict(message, code="file_in_use", param="id")
    await _discard(gw, row["storage_key"])


async def expire_files(gw: Gateway, now: float, limit: int = 100) -> int:
    """How many of at most `limit` files past their time were deleted; those of live batches wait for their end."""
    deleted = 0
    for row in await gw.db.read(files.due_for_expiry, now, limit):
        if await gw.db.write(files.delete_unread, row["id"]):
            await _discard(gw, row["storage_key"])
            deleted += 1
    return deleted


def _check_name(filename: str) -> None:
    if not filename.lower().endswith(".jsonl"):
        raise RequestError(f"{NOT_JSONL}. Name the file so, with one JSON object a line.")


def _accept(upload: Incoming, findings: Findings, *, strict: bool) -> None:
    """Raises what OpenAI says at once; all else is a matter of validation, unless `strict`."""
    if not findings.bytes:
        raise RequestError("The file is empty.", code="empty_file", param="file")
    if upload.purpose is None:
        message = "Missing required parameter: 'purpose'."
        raise RequestError(message, code="missing_required_parameter", param="purpose")
    if upload.purpose != "batch":
        return
    _check_name(upload.filename)
    if findings.unreadable:
        if findings.faults[0].message == NOT_UTF8:
            raise RequestError("Invalid file for Batch API. Must be utf-8 encoded")
        raise RequestError(f"{NOT_JSONL}. Its first line is not JSON.")
    if not findings.lines:
        raise RequestError("The file holds no lines.", code="empty_file", param="file")
    if strict and findings.fault_count:
        _refuse(findings)


def _refuse(findings: Findings) -> NoReturn:
    first, count = findings.faults[0], findings.fault_count
    faults = "1 fault" if count == 1 else f"{count} faults, the first"
    raise InvalidFile(f"The file has {faults} in line {first.line}: {first.message}", findings.faults)


async def _store(gw: Gateway, upload: Incoming, file_id: str, key: str, findings: Findings) -> RowMapping:
    batch_input = upload.purpose == "batch"
    try:
        if batch_input:
            await gw.storage.put(key + INDEX_SUFFIX, findings.index)
        now = gw.clock()
        values: dict[str, Any] = {
            "id": file_id,
            "project": upload.project,
            "private": upload.private,
            "key_id": upload.key_id,
            "purpose": upload.purpose,
            "filename": upload.filename,
            "bytes": findings.bytes,
            "sha256": findings.sha256,
            "storage_key": key,
            "created_at": now,
            "expires_at": now + KEEP_SECONDS if batch_input and upload.expires_at is None else upload.expires_at,
        }
        if not batch_input:
            return await gw.db.write(_insert, values, ())
        values |= {
            "lines": findings.lines,
            "models": msgspec.to_builtins(findings.models),
            "urls": findings.urls,
            "fault_count": findings.fault_count,
        }
        return await gw.db.write(_insert, values, findings.faults)
    except Exception:
        # A connection lost while committing leaves it open whether the row exists: while that is not known, and when we
        # are cancelled, an object too many is the lesser harm.
        if await gw.db.read(files.find, file_id) is None:
            await _discard(gw, key)
        raise


def _insert(tx: Connection, values: dict[str, Any], faults: Sequence[Any]) -> RowMapping:
    files.insert(tx, values, faults)
    told = ("id", "project", "key_id", "purpose", "filename", "bytes", "sha256", "lines", "models", "fault_count")
    data = {name: values.get(name) for name in told}
    if len(data["models"] or ()) > TOLD_MODELS:  # an event is small, whatever a file names
        data["models"] = None
    about = About(values["id"], values["project"], values["key_id"])
    tell(tx, EventType.FILE_CREATED, about, values["created_at"], data)
    return files.get(tx, values["id"], None)


async def to_the_end(storing: Coroutine[Any, Any, T]) -> T:
    """A caller who leaves now must not part the row from its bytes: the last steps run to their end first."""
    task = asyncio.ensure_future(storing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _discard(gw: Gateway, key: str) -> None:
    await gw.storage.delete(key)
    await gw.storage.delete(key + INDEX_SUFFIX)


def _pieces(chunk: bytes) -> Iterator[bytes]:
    if len(chunk) <= PIECE:
        yield chunk
        return
    for start in range(0, len(chunk), PIECE):
        yield chunk[start : start + PIECE]


async def _encoded(requests: Sequence[dict[str, Any]]) -> AsyncIterator[bytes]:
    encode = msgspec.json.Encoder().encode_lines
    for start in range(0, len(requests), INLINE_LINES):
        yield encode(requests[start : start + INLINE_LINES])
