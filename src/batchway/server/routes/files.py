"""Files: uploads stream through intake, contents out of the storage; what is another project's is not there."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from typing import Annotated, Literal, get_args

import msgspec
from sqlalchemy import Connection, RowMapping
from starlette.responses import Response

from batchway.core.errors import RequestError
from batchway.core.principal import Sight
from batchway.db import files
from batchway.pipeline.intake import Incoming, delete_file, receive, to_the_end
from batchway.server import once
from batchway.server.download import Stored, respond
from batchway.server.limits import file_bytes, one_upload
from batchway.server.pagination import FileQuery, UploadQuery
from batchway.server.routing import Call, Operation
from batchway.server.upload import Form
from batchway.wire.files import ExpiresAfter, File, FileDeleted, FileList

Purpose = Literal["batch", "assistants", "fine-tune", "vision", "user_data", "evals"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
KEPT_SECONDS = (3600, 2592000)
LONGEST_NAME = 512


class FileForm(msgspec.Struct, kw_only=True):
    """The form of an upload; `expires_after` is sent as `expires_after[anchor]` and `expires_after[seconds]`."""

    file: bytes
    purpose: Purpose
    expires_after: ExpiresAfter | None = None
    target_model_names: Annotated[str, msgspec.Meta(description="Accepted, without effect.")] | None = None
    custom_llm_provider: Annotated[str, msgspec.Meta(description="Accepted, without effect.")] | None = None


class EarlyFields(msgspec.Struct, kw_only=True):
    """The fields that stand before the file: any may still come behind it."""

    purpose: Purpose | None = None
    expires_after: ExpiresAfter | None = None


async def create(call: Call) -> File:
    """Stores a file as it streams in; a batch file is checked line by line."""
    query: UploadQuery = call.query
    form = Form(call.request, "file", file_bytes(call.principal, call.gateway.max_file_bytes))
    async with one_upload(call.gateway.db, call.principal, call.gateway.clock()):
        row = await _receive(call, form, strict=query.validate == "strict")
        return await to_the_end(_keep(call, row))


async def _receive(call: Call, form: Form, *, strict: bool) -> RowMapping:
    await form.open()
    early = form.fields(EarlyFields)
    incoming = Incoming(
        project=call.principal.project,
        private=call.principal.private,
        key_id=call.principal.key_id,
        filename=checked_name(form.filename),
        purpose=early.purpose,
        expires_at=expiry(early.expires_after, call.gateway.clock()),
    )
    return await receive(call.gateway, incoming, _content(call, form, incoming), strict=strict)


async def _content(call: Call, form: Form, incoming: Incoming) -> AsyncGenerator[bytes, None]:
    """The bytes of the file. At their end the fields behind it are read, and a repeated request is turned away."""
    hashed = hashlib.sha256() if once.HEADER in call.request.headers else None
    async for piece in form.content():
        if hashed is not None:
            hashed.update(piece)
        yield piece
    fields = form.fields(FileForm)
    incoming.purpose = fields.purpose
    incoming.expires_at = expiry(fields.expires_after, call.gateway.clock())
    if hashed is not None:
        seconds = fields.expires_after.seconds if fields.expires_after else 0
        said = f"createFile {fields.purpose} {seconds} {incoming.filename}"
        call.idempotency = once.wish(call.request, (said.encode(), hashed.digest()))
    if call.idempotency is not None:
        await once.refuse_repeat(call.gateway.db, call.principal, call.idempotency, call.gateway.clock())


async def _keep(call: Call, row: RowMapping) -> File:
    """The answer, stored for repeats; when a concurrent request with the same key was quicker, this file goes again."""
    db, now = call.gateway.db, call.gateway.clock()
    file = await db.read(_with_faults, row)
    if call.idempotency is None:
        return file
    try:
        await db.write(once.keep, call.principal, call.idempotency, file, now)
    except Exception:
        # A connection lost while committing leaves it open whether others are answered with this file: while that is
        # not known, a file too many is the lesser harm.
        if not await once.is_kept(db, call.principal, call.idempotency, file, now):
            await delete_file(call.gateway, row)
            raise
    return file


def expiry(wanted: ExpiresAfter | None, now: float) -> float | None:
    """When a file made now goes, if the client says so; RequestError for a time out of bounds."""
    if wanted is None:
        return None
    low, high = KEPT_SECONDS
    if not low <= wanted.seconds <= high:
        message = f"Invalid 'expires_after.seconds': expected {low} to {high}, but got {wanted.seconds} instead."
        raise RequestError(message, code="invalid_value", param="expires_after.seconds")
    return now + wanted.seconds


def checked_name(filename: str | None) -> str:
    """The user's own file name, if it is one line of text."""
    name = filename or "file"
    if len(name) > LONGEST_NAME or not name.isprintable():
        message = f"Invalid file name: at most {LONGEST_NAME} printable characters are allowed."
        raise RequestError(message, code="invalid_value", param="filename")
    return name


async def list_files(call: Call) -> FileList:
    """Files, newest first."""
    query: FileQuery = call.query
    rows, more = await call.gateway.db.read(
        files.list_page,
        sight=call.principal.sees,
        limit=query.limit,
        after=query.after,
        order=query.order,
        purpose=query.purpose,
    )
    data = [files.to_wire(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FileList(data=data, first_id=first, last_id=last, has_more=more)


async def retrieve(call: Call) -> File:
    """One file, with every fault that was found in it."""
    return await call.gateway.db.read(_one, call.params["file_id"], call.principal.sees)


async def delete(call: Call) -> FileDeleted:
    """Deletes a file, unless a batch that has not ended reads it."""
    row = await _mine(call)
    await delete_file(call.gateway, row)
    return FileDeleted(id=row["id"])


async def content(call: Call) -> Response:
    """The bytes: streamed, by range, compressed (zstd, gzip) when asked."""
    row = await _mine(call)
    file = Stored(row["storage_key"], row["bytes"], row["sha256"], row["filename"])
    return respond(call.request, call.gateway.storage, file)


async def _mine(call: Call) -> RowMapping:
    return await call.gateway.db.read(files.get, call.params["file_id"], call.principal.sees)


def _one(tx: Connection, file_id: str, sight: Sight | None) -> File:
    return _with_faults(tx, files.get(tx, file_id, sight))


def _with_faults(tx: Connection, row: RowMapping) -> File:
    return files.to_wire(row, files.faults(tx, row["id"]) if row["fault_count"] else ())


OPERATIONS = (
    Operation(
        method="POST", path="/files", name="createFile", handler=create, query=UploadQuery, form=FileForm, answer=File,
        tag="Files", errors=(413, 422), headers=("Idempotency-Key",),
        example={"purpose": "batch", "file": "{...one JSON object a line...}"},
    ),
    Operation(
        method="GET", path="/files", name="listFiles", handler=list_files, query=FileQuery, answer=FileList,
        tag="Files", errors=(404,),
    ),
    Operation(
        method="GET", path="/files/{file_id}", name="retrieveFile", handler=retrieve, answer=File, tag="Files",
        errors=(404,),
    ),
    Operation(
        method="DELETE", path="/files/{file_id}", name="deleteFile", handler=delete, answer=FileDeleted, tag="Files",
        errors=(404, 409),
    ),
    Operation(
        method="GET", path="/files/{file_id}/content", name="downloadFile", handler=content,
        media="application/octet-stream", tag="Files", errors=(404, 416), headers=("Range", "If-None-Match"),
    ),
)  # fmt: skip
