"""Planning: a job becomes chunks of its file's blocks, all in one transaction, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchway.core.jobs import JobSpec
from batchway.core.spans import LineIndex, cut, decode_index, within
from batchway.db import chunks
from batchway.db.engine import Database
from batchway.executor.tuning import Tuning
from batchway.storage import Storage


async def plan(db: Database, storage: Storage, tuning: Tuning, job: JobSpec) -> bool:
    """Writes the chunks of a job; False when it has them already."""
    if await db.read(chunks.exist, job.id):
        return False
    index = decode_index(await storage.get(f"{job.span.file_key}.index"))
    return await db.write(chunks.add, job.id, list(_rows(index, job, tuning)))


def _rows(index: LineIndex, job: JobSpec, tuning: Tuning) -> Iterator[dict[str, Any]]:
    span = job.span
    cuts = cut(
        within(index, span.start, span.end),
        span.file_key,
        span.models,
        lines=tuning.chunk_lines,
        size=tuning.chunk_bytes,
    )
    for ordinal, piece in enumerate(cuts):
        yield {
            "id": f"{job.id}.{ordinal}",
            "job_id": job.id,
            "ordinal": ordinal,
            "account": job.route.account,
            "deadline": job.deadline,
            "priority": job.priority,
            "span_start": piece.span.start,
            "span_end": piece.span.end,
            "first_line": piece.span.first_line,
            "lines": piece.lines,
        }
