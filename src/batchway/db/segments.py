"""Statements over segments: the manifest of stored answers, one row a segment.

A segment's bytes are in storage before its row is committed. `seq` counts a batch's segments in commit order: whoever
commits takes the next number from the batch's row, whose lock keeps the numbers in that order.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from batchway import metrics
from batchway.core.jobs import Counts
from batchway.db.schema import batches, segments

# Made once: building a statement costs as much as running it, and these run with every segment.
_NEXT_SEQ = (
    update(batches)
    .where(batches.c.id == bindparam("of"))
    .values(segment_seq=batches.c.segment_seq + 1)
    .returning(batches.c.segment_seq, batches.c.created_at)
)
_INSERT = insert(segments)


class NewSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A stored segment that has no row yet."""

    batch_id: str
    job_id: str
    chunk_id: str | None
    storage_key: str
    bytes: int
    counts: Counts
    numbers: bytes | None  # packed by `pack`


def pack(numbers: Sequence[int]) -> bytes:
    """Line numbers as little-endian u32."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def unpack(packed: bytes) -> tuple[int, ...]:
    """The line numbers of a packed list."""
    return struct.unpack(f"<{len(packed) // 4}I", packed)


def append(tx: Connection, segment: NewSegment) -> int:
    """Adds a row to the manifest and answers its `seq`."""
    seq, created_at = tx.execute(_NEXT_SEQ, {"of": segment.batch_id}).one()
    if seq == 1:
        metrics.BATCH_FIRST_RESULT_SECONDS.observe(max(0.0, time.time() - created_at))
    row = {
        "batch_id": segment.batch_id,
        "seq": seq,
        "job_id": segment.job_id,
        "chunk_id": segment.chunk_id,
        "storage_key": segment.storage_key,
        "bytes": segment.bytes,
        "completed": segment.counts.completed,
        "failed": segment.counts.failed,
        "numbers": segment.numbers,
    }
    tx.execute(_INSERT, row)
    return seq


def answered(tx: Connection, chunk_id: str) -> frozenset[int]:
    """The numbers of the lines of a chunk that have stored answers."""
    packed: Iterable[bytes] = tx.execute(select(segments.c.numbers).where(segments.c.chunk_id == chunk_id)).scalars()
    return frozenset(number for numbers in packed for number in unpack(numbers))


def of_job(tx: Connection, job_id: str) -> list[RowMapping]:
    """The segments of a job in commit order."""
    return list(tx.execute(select(segments).where(segments.c.job_id == job_id).order_by(segments.c.seq)).mappings())


def after(tx: Connection, batch_id: str, seq: int, limit: int) -> list[RowMapping]:
    """The segments of a batch that follow `seq`, in commit order."""
    following = select(segments).where(segments.c.batch_id == batch_id, segments.c.seq > seq)
    return list(tx.execute(following.order_by(segments.c.seq).limit(limit)).mappings())


def counts(tx: Connection, job_id: str) -> Counts:
    """Stored answers of a job."""
    sums = func.coalesce(func.sum(segments.c.completed), 0), func.coalesce(func.sum(segments.c.failed), 0)
    completed, failed = tx.execute(select(*sums).where(segments.c.job_id == job_id)).one()
    return Counts(int(completed), int(failed))


def forget(tx: Connection, job_id: str) -> None:
    """Deletes the manifest of a job."""
    tx.execute(delete(segments).where(segments.c.job_id == job_id))
