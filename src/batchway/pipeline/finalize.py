"""All jobs accounted: the output file, the error file, the last status.

The ids of both files are drawn and committed before the first byte is written, so a repeat after a crash writes the
same objects again; the files' rows, the final counts and the last status are one transaction. Every input line stands
in exactly one of the two, in input order; a file that would be empty does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import reduce
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.states import BatchState, JobState, Outcome
from batchway.core.usage import NO_USAGE, Usage
from batchway.db import batches, files, holds, jobs
from batchway.db.transitions import move_batch
from batchway.pipeline.merge import merge
from batchway.pipeline.trip import Trip
from batchway.storage import Writer

KEEP_SECONDS = 30 * 86400  # OpenAI keeps output files for 30 days unless told otherwise


async def finalize(trip: Trip, batch_id: str) -> None:
    """Ends the batch when its last job is accounted; before that, and after its end, it does nothing."""
    ids = {name: trip.new_id("file-") for name in ("output_file_id", "error_file_id")}
    batch = await trip.db.write(_begin, batch_id, ids, trip.clock())
    if batch is None:
        return
    rows = await trip.db.read(jobs.of_batch, batch_id)
    async with AsyncExitStack() as stack:
        output, errors = [
            _Out(batch[name], await stack.enter_async_context(trip.storage.writer(f"files/{batch[name]}")))
            for name in ids
        ]
        async for window in merge(trip.storage, rows):
            await output.write([answer.line for answer in window if answer.ok])
            await errors.write([answer.line for answer in window if not answer.ok])
    for out in (output, errors):
        if not out.lines:  # before the end is committed: nobody comes back to it
            await trip.storage.delete(f"files/{out.file_id}")
    await trip.db.write(_end, batch_id, {"output": output, "error": errors}, trip.clock())
    trip.bells.work.set()
    trip.bells.money.set()


def _begin(tx: Connection, batch_id: str, ids: Mapping[str, str], now: float) -> RowMapping | None:
    """The batch with its file ids committed; None when it is not time, or somebody else has ended it."""
    batch = batches.get(tx, batch_id, hold=True)  # or two who meet would draw different ids
    ready = all(row["status"] == JobState.ACCOUNTED for row in jobs.of_batch(tx, batch_id))
    if not ready or batch["prepared_at"] is None:
        return None
    status = BatchState(batch["status"])
    if status is BatchState.IN_PROGRESS:
        move_batch(tx, batch_id, status, BatchState.FINALIZING, now)
    elif status not in (BatchState.FINALIZING, BatchState.CANCELLING):
        return None
    if batch["output_file_id"] is None:
        batches.note(tx, batch_id, dict(ids))
    return batches.get(tx, batch_id)


def _end(tx: Connection, batch_id: str, outs: Mapping[str, _Out], now: float) -> None:
    batch = batches.get(tx, batch_id, hold=True)
    status = BatchState(batch["status"])
    if status not in (BatchState.FINALIZING, BatchState.CANCELLING):
        return
    rows = jobs.of_batch(tx, batch_id)
    expired = batch["expiring"] or any(row["outcome"] == Outcome.EXPIRED for row in rows)
    last = BatchState.EXPIRED if expired else BatchState.COMPLETED
    amount, known = batches.amounts(tx, batch_id)
    values: dict[str, Any] = {
        "completed": sum(row["completed"] for row in rows),
        "failed": sum(row["failed"] for row in rows),
        "usage": msgspec.to_builtins(reduce(Usage.__add__, _usages(rows), NO_USAGE)),
        "amount": amount if amount is not None or not known else 0,
        "amount_known": known,
    }
    for name, out in outs.items():
        values[f"{name}_file_id"] = out.file_id if out.lines else None
        if out.lines:
            files.insert(tx, out.row(batch, name, now))
    holds.settle_hold(tx, batch_id, now)  # a batch that ended without a job has an open one
    move_batch(tx, batch_id, status, BatchState.CANCELLED if status is BatchState.CANCELLING else last, now, values)


def _usages(rows: list[RowMapping]) -> list[Usage]:
    return [msgspec.convert(row["usage"], Usage) for row in rows if row["usage"]]


class _Out:
    """One of the two files while it is written: hashed and counted on the way."""

    def __init__(self, file_id: str, writer: Writer) -> None:
        self.file_id = file_id
        self.lines = 0
        self.bytes = 0
        self._sha = hashlib.sha256()
        self._writer = writer

    async def write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        data = b"\n".join(lines) + b"\n"
        self.lines += len(lines)
        self.bytes += len(data)
        self._sha.update(data)
        await self._writer.write(data)

    def row(self, batch: RowMapping, name: str, now: float) -> dict[str, Any]:
        return {
            "id": self.file_id,
            "project": batch["project"],
            "key_id": batch["key_id"],
            "private": batch["private"],
            "purpose": "batch_output",
            "filename": f"{batch['id']}_{name}.jsonl",
            "bytes": self.bytes,
            "sha256": self._sha.hexdigest(),
            "storage_key": f"files/{self.file_id}",
            "created_at": now,
            "expires_at": now + (batch["output_expires_after"] or KEEP_SECONDS),
            "lines": self.lines,
            "batch_id": batch["id"],
        }
