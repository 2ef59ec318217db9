"""Statements over uploads in parts. An upload is `pending` until exactly one call completes, cancels or expires it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from batchway.core.errors import NotFound
from batchway.core.principal import Sight
from batchway.db.schema import upload_parts, uploads
from batchway.db.sight import visible

PENDING = "pending"


def add(tx: Connection, values: dict[str, Any]) -> None:
    """A new pending upload."""
    tx.execute(insert(uploads).values(status=PENDING, **values))


def get(tx: Connection, upload_id: str, sight: Sight | None = None) -> RowMapping:
    """One upload; NotFound also when `sight` (None: everybody's) does not reach it."""
    query = select(uploads).where(uploads.c.id == upload_id, visible(uploads, sight))
    row = tx.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No upload found with id '{upload_id}'.", param="upload_id")
    return row


def add_part(tx: Connection, values: dict[str, Any]) -> bool:
    """Records a stored part; False when its upload is no longer pending."""
    query = select(uploads.c.id).where(uploads.c.id == values["upload_id"], uploads.c.status == PENDING)
    if tx.execute(query.with_for_update()).one_or_none() is None:
        return False
    tx.execute(insert(upload_parts).values(values))
    return True


def parts(tx: Connection, upload_id: str) -> dict[str, RowMapping]:
    """The parts of an upload by their ids."""
    rows = tx.execute(select(upload_parts).where(upload_parts.c.upload_id == upload_id)).mappings()
    return {row["id"]: row for row in rows}


def end(tx: Connection, upload_id: str, status: str, file_id: str | None = None) -> bool:
    """Ends a pending upload and forgets its parts; False when another call ended it first."""
    ended = tx.execute(
        update(uploads)
        .where(uploads.c.id == upload_id, uploads.c.status == PENDING)
        .values(status=status, file_id=file_id)
    )
    if ended.rowcount != 1:
        return False
    tx.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload_id))
    return True


def expire(tx: Connection, now: float, limit: int) -> Sequence[str]:
    """Expires overdue uploads and answers their ids; their bytes are in the storage folders of `folder`."""
    overdue = select(uploads.c.id).where(uploads.c.status == PENDING, uploads.c.expires_at <= now)
    ids = list(tx.execute(overdue.order_by(uploads.c.expires_at).limit(limit)).scalars())
    return [upload_id for upload_id in ids if end(tx, upload_id, "expired")]


def folder(upload_id: str) -> str:
    """The storage folder that holds the parts of an upload."""
    return f"uploads/{upload_id}"
