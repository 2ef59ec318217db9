"""Statements over files: rows, pages, faults, and who still reads them. Their bytes are in the storage.

A row stands for a file that is whole: it is written after the bytes and deleted before them. Who begins to read a file
in a transaction of his own asks `get(..., hold=True)`, so that a deletion at the same moment comes before or after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, RowMapping, delete, exists, select, tuple_
from sqlalchemy import insert as insert_into

from batchway.core.errors import NotFound
from batchway.core.principal import Sight
from batchway.core.states import LIVE_BATCH_STATES
from batchway.db.schema import batches, file_faults, files
from batchway.db.sight import visible
from batchway.wire.errors import LineFault
from batchway.wire.files import File, FileDetails

_read_by_a_live_batch = exists().where(
    batches.c.input_file_id == files.c.id, batches.c.status.in_(sorted(LIVE_BATCH_STATES))
)


def insert(tx: Connection, values: dict[str, Any], faults: Sequence[LineFault] = ()) -> None:
    """A new file; `values` are columns of `files`."""
    tx.execute(insert_into(files).values(values))
    if faults:
        tx.execute(insert_into(file_faults).values(file_id=values["id"], faults=msgspec.to_builtins(list(faults))))


def find(tx: Connection, file_id: str) -> RowMapping | None:
    """The row of a file, whoever owns it."""
    return tx.execute(select(files).where(files.c.id == file_id)).mappings().one_or_none()


def get(tx: Connection, file_id: str, sight: Sight | None, *, hold: bool = False) -> RowMapping:
    """The row of a file; NotFound also when `sight` (None: everybody's) does not reach it.

    With `hold` nobody can delete it before the transaction ends.
    """
    query = select(files).where(files.c.id == file_id, visible(files, sight))
    if hold:
        query = query.with_for_update(read=True)
    row = tx.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No such File object: {file_id}", param="id")
    return row


def list_page(
    tx: Connection,
    *,
    sight: Sight | None,
    limit: int,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> tuple[list[RowMapping], bool]:
    """Up to `limit` files that `sight` reaches (None: everybody's) behind the file `after`, and whether more follow.

    Newest first unless `order` is `asc`; NotFound when `after` is no file of theirs.
    """
    place = tuple_(files.c.created_at, files.c.id)
    query = select(files).where(visible(files, sight))
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    if after is not None:
        last = get(tx, after, sight)
        behind = tuple_(last["created_at"], last["id"])
        query = query.where(place > behind if order == "asc" else place < behind)
    columns = (files.c.created_at, files.c.id)
    query = query.order_by(*(column.asc() if order == "asc" else column.desc() for column in columns))
    rows = list(tx.execute(query.limit(limit + 1)).mappings())
    return rows[:limit], len(rows) > limit


def faults(tx: Connection, file_id: str) -> list[LineFault]:
    """The faults found at upload, the first 10,000 by line."""
    found = tx.execute(select(file_faults.c.faults).where(file_faults.c.file_id == file_id)).scalar()
    return msgspec.convert(found or [], list[LineFault])


def reads_live(tx: Connection, file_id: str) -> bool:
    """True while a batch that has not ended reads the file."""
    return bool(tx.execute(select(files.c.id).where(files.c.id == file_id, _read_by_a_live_batch)).first())


def delete_unread(tx: Connection, file_id: str) -> bool:
    """Deletes the row and its faults unless a live batch reads the file; False when one does."""
    tx.execute(select(files.c.id).where(files.c.id == file_id).with_for_update())  # waits for those who hold it
    if reads_live(tx, file_id):
        return False
    tx.execute(delete(file_faults).where(file_faults.c.file_id == file_id))
    tx.execute(delete(files).where(files.c.id == file_id))
    return True


def due_for_expiry(tx: Connection, now: float, limit: int) -> list[RowMapping]:
    """Files past their time that no live batch reads, the longest overdue first."""
    rows = tx.execute(
        select(files).where(files.c.expires_at <= now, ~_read_by_a_live_batch).order_by(files.c.expires_at).limit(limit)
    )
    return list(rows.mappings())


def to_wire(row: RowMapping, faults: Sequence[LineFault] | None = None) -> File:
    """OpenAI's File object, with our findings when it is batch input."""
    return File(
        id=row["id"],
        bytes=row["bytes"],
        created_at=int(row["created_at"]),
        filename=row["filename"],
        purpose=row["purpose"],
        expires_at=None if row["expires_at"] is None else int(row["expires_at"]),
        batchway=_details(row, faults or ()) if row["purpose"] == "batch" else None,
    )


def _details(row: RowMapping, faults: Sequence[LineFault]) -> FileDetails:
    models: dict[str, dict[str, int]] = row["models"] or {}
    return FileDetails(
        sha256=row["sha256"],
        lines=row["lines"],
        models={name: stats["lines"] for name, stats in models.items() if name},
        estimated_input_tokens=sum(stats["input_tokens"] for stats in models.values()),
        fault_count=row["fault_count"],
        faults=list(faults),
    )
