"""How far batches are: one statement for all that are watched."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, func, select

from batchway.db.schema import batches, jobs


class Progress(msgspec.Struct, frozen=True):
    """A batch's status and its lines, counted as they come."""

    status: str
    total: int
    completed: int
    failed: int


def of_batches(tx: Connection, batch_ids: Sequence[str]) -> dict[str, Progress]:
    """The progress of each batch that there is."""
    done = func.coalesce(func.sum(jobs.c.completed), 0), func.coalesce(func.sum(jobs.c.failed), 0)
    of_each = batches.c.id, batches.c.status, batches.c.total
    query = select(*of_each, *done).outerjoin(jobs, jobs.c.batch_id == batches.c.id)
    rows = tx.execute(query.where(batches.c.id.in_(batch_ids)).group_by(*of_each))
    return {
        batch_id: Progress(status, total, int(completed), int(failed))
        for batch_id, status, total, completed, failed in rows
    }
