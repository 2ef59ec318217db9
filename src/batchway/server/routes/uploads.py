"""OpenAI's Uploads API: a file sent in parts. Completing streams the parts through intake like any other file.

An upload ends once: `db/uploads.py` moves it out of `pending`, and whoever loses that race undoes what it made.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import Conflict, NotFound, RequestError, TooLarge
from batchway.db import files, uploads
from batchway.pipeline.intake import Incoming, delete_file, receive, to_the_end
from batchway.server import once
from batchway.server.limits import file_bytes, one_upload
from batchway.server.routes.files import PURPOSES, checked_name, expiry
from batchway.server.routing import Call, Operation
from batchway.server.upload import Form
from batchway.wire.files import ExpiresAfter, Upload, UploadComplete, UploadCreate, UploadPart

PART_BYTES = 64 << 20
OPEN_SECONDS = 3600


class PartForm(msgspec.Struct, kw_only=True):
    """The form of one part."""

    data: bytes


async def create(call: Call) -> Upload:
    """Starts an upload in parts; it is open for an hour."""
    wanted: UploadCreate = call.body
    now = call.gateway.clock()
    _check(wanted, file_bytes(call.principal, call.gateway.max_file_bytes))
    expiry(wanted.expires_after, now)
    row = {
        "id": call.gateway.new_id("upload_"),
        "project": call.principal.project,
        "private": call.principal.private,
        "key_id": call.principal.key_id,
        "filename": checked_name(wanted.filename),
        "purpose": wanted.purpose,
        "mime_type": wanted.mime_type,
        "bytes": wanted.bytes,
        "expires_after": wanted.expires_after.seconds if wanted.expires_after else None,
        "created_at": now,
        "expires_at": now + OPEN_SECONDS,
    }
    async with one_upload(call.gateway.db, call.principal, now):
        return await call.gateway.db.write(_add, row, call)


def _check(wanted: UploadCreate, limit: int) -> None:
    if wanted.purpose not in PURPOSES:
        message = f"Invalid value for 'purpose'. Supported values are: {', '.join(map(repr, PURPOSES))}."
        raise RequestError(message, code="invalid_value", param="purpose")
    if wanted.bytes < 1:
        raise RequestError("Invalid 'bytes': a file has at least 1.", code="integer_below_min_value", param="bytes")
    if wanted.bytes > limit:
        raise TooLarge(f"The file is too large: at most {limit} bytes.", param="bytes")


def _add(tx: Connection, row: dict[str, Any], call: Call) -> Upload:
    uploads.add(tx, row)
    upload = _to_wire(tx, uploads.get(tx, row["id"]), row["created_at"])
    once.keep(tx, call.principal, call.idempotency, upload, row["created_at"])
    return upload


async def add_part(call: Call) -> UploadPart:
    """Stores a part of at most 64 MB; parts may come in parallel and in any order."""
    gateway, now = call.gateway, call.gateway.clock()
    row = await _pending(call)
    form = Form(call.request, "data", PART_BYTES)
    await form.open()
    part = UploadPart(id=gateway.new_id("part_"), created_at=int(now), upload_id=row["id"])
    key = f"{uploads.folder(row['id'])}/{part.id}"
    hashed = hashlib.sha256()
    async with gateway.storage.writer(key) as writer:
        async for piece in form.content():
            hashed.update(piece)
            await writer.write(piece)
    call.idempotency = once.wish(call.request, (b"addUploadPart", row["id"].encode(), hashed.digest()))
    stored = {"id": part.id, "upload_id": row["id"], "bytes": writer.size, "storage_key": key, "created_at": now}
    return await to_the_end(_keep_part(call, stored, part))


async def _keep_part(call: Call, row: dict[str, Any], part: UploadPart) -> UploadPart:
    """The part with its row; without one, by a repeat or a refusal, its bytes go again."""
    db = call.gateway.db
    try:
        if call.idempotency is not None:
            await once.refuse_repeat(db, call.principal, call.idempotency, row["created_at"])
        await db.write(_add_part, row, call, part)
    except Exception:
        # A connection lost while committing leaves it open whether the row exists: then the database is asked.
        if part.id not in await db.read(uploads.parts, row["upload_id"]):
            await call.gateway.storage.delete(row["storage_key"])
            raise
    return part


def _add_part(tx: Connection, row: dict[str, Any], call: Call, part: UploadPart) -> None:
    if not uploads.add_part(tx, row):
        raise Conflict("This upload takes no more parts: it has ended.", param="upload_id")
    once.keep(tx, call.principal, call.idempotency, part, row["created_at"])


async def complete(call: Call) -> Upload:
    """Makes a file of the parts, in the order of `part_ids`."""
    gateway, wanted = call.gateway, call.body
    row = await _pending(call)
    parts = _chosen(row, wanted, await gateway.db.read(uploads.parts, row["id"]))
    now = gateway.clock()
    after = ExpiresAfter(anchor="created_at", seconds=row["expires_after"]) if row["expires_after"] else None
    incoming = Incoming(
        project=row["project"],
        private=row["private"],
        key_id=row["key_id"],
        filename=row["filename"],
        purpose=row["purpose"],
        expires_at=expiry(after, now),
    )
    file = await receive(gateway, incoming, _joined(call, parts, wanted.md5))
    return await to_the_end(_finish(call, row["id"], file))


async def _finish(call: Call, upload_id: str, file: RowMapping) -> Upload:
    """The upload, ended by this file; when another call ended it, the file goes again."""
    gateway = call.gateway
    try:
        upload = await gateway.db.write(_complete, upload_id, file["id"], call)
    except Exception:
        # A connection lost while committing leaves it open whether the upload has this file: then it is asked.
        if (await gateway.db.read(uploads.get, upload_id))["file_id"] != file["id"]:
            await delete_file(gateway, file)
            raise
        upload = await gateway.db.read(_one, upload_id, gateway.clock())
    await gateway.storage.delete_prefix(uploads.folder(upload_id))
    return upload


def _complete(tx: Connection, upload_id: str, file_id: str, call: Call) -> Upload:
    now = call.gateway.clock()
    if not uploads.end(tx, upload_id, "completed", file_id):
        raise Conflict("This upload has ended meanwhile.", param="upload_id")
    upload = _to_wire(tx, uploads.get(tx, upload_id), now)
    once.keep(tx, call.principal, call.idempotency, upload, now)
    return upload


def _chosen(row: RowMapping, wanted: UploadComplete, parts: dict[str, RowMapping]) -> Sequence[RowMapping]:
    unknown = [part_id for part_id in wanted.part_ids if part_id not in parts]
    if unknown:
        raise RequestError(f"This upload has no part '{unknown[0]}'.", code="invalid_value", param="part_ids")
    if len(set(wanted.part_ids)) < len(wanted.part_ids):
        raise RequestError("A part is named twice.", code="invalid_value", param="part_ids")
    chosen = [parts[part_id] for part_id in wanted.part_ids]
    total = sum(part["bytes"] for part in chosen)
    if total != row["bytes"]:
        message = f"The parts hold {total} bytes, but {row['bytes']} were announced."
        raise RequestError(message, code="invalid_value", param="part_ids")
    return chosen


async def _joined(call: Call, parts: Sequence[RowMapping], md5: str | None) -> AsyncGenerator[bytes, None]:
    """The bytes of all parts; raises at the end, before they become a file, when they are not those of `md5`."""
    hashed = hashlib.md5(usedforsecurity=False)
    for part in parts:
        async for piece in call.gateway.storage.read(part["storage_key"], 0, part["bytes"], 256 << 10):
            hashed.update(piece)
            yield piece
    if md5 is not None and md5.lower() != hashed.hexdigest():
        raise RequestError("The parts do not have this MD5.", code="checksum_mismatch", param="md5")


async def cancel(call: Call) -> Upload:
    """Gives an upload up and deletes its parts."""
    gateway, upload_id = call.gateway, call.params["upload_id"]
    row = await gateway.db.read(uploads.get, upload_id, call.principal.sees)
    ended = await gateway.db.write(uploads.end, upload_id, "cancelled")
    if not ended and row["status"] not in (uploads.PENDING, "cancelled"):
        raise Conflict(f"Cannot cancel an upload with status '{row['status']}'.", param="upload_id")
    await gateway.storage.delete_prefix(uploads.folder(upload_id))
    return await gateway.db.read(_one, upload_id, gateway.clock())


async def retrieve(call: Call) -> Upload:
    """One upload."""
    row = await call.gateway.db.read(uploads.get, call.params["upload_id"], call.principal.sees)
    return await call.gateway.db.read(_one, row["id"], call.gateway.clock())


async def _pending(call: Call) -> RowMapping:
    row = await call.gateway.db.read(uploads.get, call.params["upload_id"], call.principal.sees)
    status = _status(row, call.gateway.clock())
    if status != uploads.PENDING:
        raise Conflict(f"This upload is {status}: start a new one.", param="upload_id")
    return row


def _status(row: RowMapping, now: float) -> Any:
    return "expired" if row["status"] == uploads.PENDING and row["expires_at"] <= now else row["status"]


def _one(tx: Connection, upload_id: str, now: float) -> Upload:
    return _to_wire(tx, uploads.get(tx, upload_id), now)


def _to_wire(tx: Connection, row: RowMapping, now: float) -> Upload:
    return Upload(
        id=row["id"],
        bytes=row["bytes"],
        created_at=int(row["created_at"]),
        expires_at=int(row["expires_at"]),
        filename=row["filename"],
        purpose=row["purpose"],
        status=_status(row, now),
        file=_file(tx, row["file_id"]) if row["file_id"] else None,
    )


def _file(tx: Connection, file_id: str) -> Any:
    try:
        return files.to_wire(files.get(tx, file_id, None))
    except NotFound:
        return None  # deleted since


ENDED = (404, 409)

OPERATIONS = (
    Operation(
        method="POST", path="/uploads", name="createUpload", handler=create, body=UploadCreate, answer=Upload,
        tag="Uploads", errors=(413, 422), headers=("Idempotency-Key",),
        example={"filename": "in.jsonl", "purpose": "batch", "bytes": 2048, "mime_type": "application/jsonl"},
    ),
    Operation(
        method="GET", path="/uploads/{upload_id}", name="retrieveUpload", handler=retrieve, answer=Upload,
        tag="Uploads", errors=(404,),
    ),
    Operation(
        method="POST", path="/uploads/{upload_id}/parts", name="addUploadPart", handler=add_part, form=PartForm,
        answer=UploadPart, tag="Uploads", errors=(*ENDED, 413, 422), headers=("Idempotency-Key",),
    ),
    Operation(
        method="POST", path="/uploads/{upload_id}/complete", name="completeUpload", handler=complete,
        body=UploadComplete, answer=Upload, tag="Uploads", errors=(*ENDED, 413, 422), headers=("Idempotency-Key",),
        example={"part_ids": ["part_a", "part_b"]},
    ),
    Operation(
        method="POST", path="/uploads/{upload_id}/cancel", name="cancelUpload", handler=cancel, answer=Upload,
        tag="Uploads", errors=ENDED,
    ),
)  # fmt: skip
