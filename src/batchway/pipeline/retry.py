"""A new batch of the lines of an ended one that have no good answer: failed, expired or cancelled. Not a stage."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from sqlalchemy import RowMapping

from batchway.core.errors import Conflict, NotFound, RequestError
from batchway.core.principal import Principal
from batchway.core.states import FINAL_BATCH_STATES, BatchState
from batchway.core.textlines import lines
from batchway.db import batches, files, jobs
from batchway.db.idempotency import Idempotency
from batchway.pipeline.create import create
from batchway.pipeline.intake import Incoming, delete_file, receive
from batchway.pipeline.merge import merge
from batchway.pipeline.routing import policies_of
from batchway.pipeline.trip import Trip
from batchway.wire.batches import Batch, BatchCreate

MAX_LINE_BYTES = 64 << 20


async def retry(trip: Trip, principal: Principal, batch_id: str, *, idempotency: Idempotency | None = None) -> Batch:
    """The new batch, with the old one's settings, or the first answer to the same Idempotency-Key.

    An admin's retry belongs to the key, and is paid by the budgets, that the old batch belongs to, under its policies.
    Conflict when the old one still runs or has no line to try again.
    """
    old = await trip.db.read(batches.get, batch_id, principal.sees)
    if old["status"] not in FINAL_BATCH_STATES:
        raise Conflict(f"Batch '{batch_id}' has status '{old['status']}': only an ended batch can be retried.")
    if old["tidied_at"] is not None:
        raise Conflict(f"The results of batch '{batch_id}' are gone, so nobody knows which of its lines failed.")
    if old["status"] == BatchState.FAILED or old["completed"] == old["total"]:
        raise Conflict(f"Batch '{batch_id}' has no line to try again: mend its file and create a new batch.")
    try:
        file = await trip.db.read(files.get, old["input_file_id"], principal.sees)
    except NotFound:
        raise Conflict(f"The input file of batch '{batch_id}' is gone, so its lines cannot be tried again.") from None
    owner = _owner(principal, old)
    incoming = Incoming(
        project=owner.project,
        key_id=owner.key_id,
        private=owner.private,
        filename=f"retry_{file['filename']}",
        purpose="batch",
        expires_at=file["expires_at"],
    )
    rows = await trip.db.read(jobs.of_batch, batch_id)
    stored = await receive(trip, incoming, _unanswered(trip, file, rows))
    wanted = BatchCreate(
        endpoint=old["endpoint"],
        completion_window=old["completion_window"],
        input_file_id=stored["id"],
        metadata=old["metadata"],
        model=old["model"],
        priority=old["priority"],
        extra={**(old["extra"] or {}), "retry_of": batch_id},
    )
    if idempotency is not None:
        idempotency = msgspec.structs.replace(idempotency, asker=principal.key_id)
    try:
        new = await create(trip, owner, wanted, provider=old["provider"], idempotency=idempotency)
    except RequestError:  # there is no room for it
        await delete_file(trip, stored)
        raise
    if new.input_file_id != stored["id"]:  # somebody else with the same key was quicker
        await delete_file(trip, stored)
    return new


def _owner(principal: Principal, old: RowMapping) -> Principal:
    if not principal.admin:
        return principal
    return Principal(key_id=old["key_id"], project=old["project"], private=old["private"], policies=policies_of(old))


async def _unanswered(trip: Trip, file: RowMapping, rows: list[RowMapping]) -> AsyncIterator[bytes]:
    """The input lines whose stored answer is not ok, both streams read side by side in input order."""
    wanted = _failed_numbers(trip, rows)
    following = await anext(wanted, None)
    number = 0
    async for window in lines(trip.storage.read(file["storage_key"]), limit=MAX_LINE_BYTES):
        chosen: list[bytes] = []
        for raw in window:
            number += 1
            if number == following:
                chosen.append(raw + b"\n")
                following = await anext(wanted, None)
        if chosen:
            yield b"".join(chosen)


async def _failed_numbers(trip: Trip, rows: list[RowMapping]) -> AsyncIterator[int]:
    async for window in merge(trip.storage, rows):
        for answer in window:
            if not answer.ok:
                yield answer.number
