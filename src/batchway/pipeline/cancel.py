"""Ends the jobs of a batch early, for a cancelled or an expired one; they walk the rest of the same road.

`cancel` and `expire` only write what is wanted, in one transaction; `stop` is the durable function that tells the
providers. What was answered until then is kept, counted and paid.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, update

from batchway.core.errors import Conflict, ProviderError
from batchway.core.principal import Sight
from batchway.core.states import LIVE_BATCH_STATES, BatchState, JobState
from batchway.db import batches, jobs
from batchway.db.schema import jobs as jobs_table
from batchway.db.transitions import move_batch
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

ASK_AGAIN = 30.0  # seconds


async def cancel(trip: Trip, batch_id: str, sight: Sight | None) -> None:
    """Wants the batch cancelled; Conflict when it has ended otherwise. Repeating it changes nothing."""
    await trip.db.write(_want_cancelled, batch_id, sight, trip.clock())
    trip.bells.work.set()


def _want_cancelled(tx: Connection, batch_id: str, sight: Sight | None, now: float) -> None:
    batch = batches.get(tx, batch_id, sight, hold=True)  # a step at the same moment must not make this one void
    status = BatchState(batch["status"])
    if status in (BatchState.CANCELLING, BatchState.CANCELLED):
        return
    if status not in LIVE_BATCH_STATES:
        raise Conflict(f"Cannot cancel a batch with status '{status}'.")
    move_batch(tx, batch_id, status, BatchState.CANCELLING, now, {"pause": None})
    _hurry(tx, batch_id)


async def expire(trip: Trip, batch_id: str) -> None:
    """Its window has closed: the batch will end as expired, with what was answered."""
    await trip.db.write(_want_expired, batch_id, trip.clock())
    trip.bells.work.set()


def _want_expired(tx: Connection, batch_id: str, now: float) -> None:
    batch = batches.get(tx, batch_id, hold=True)
    batches.note(tx, batch_id, {"expiring": True, "not_before": 0})
    if batch["status"] == BatchState.PAUSED:  # it goes on to its end, where nothing of it is sent
        move_batch(tx, batch_id, BatchState.PAUSED, BatchState.VALIDATING, now, {"pause": None})
    _hurry(tx, batch_id)


def _hurry(tx: Connection, batch_id: str) -> None:
    """Planned jobs need not wait for their next try to be dropped."""
    planned = (jobs_table.c.batch_id == batch_id, jobs_table.c.status == JobState.PLANNED)
    tx.execute(update(jobs_table).where(*planned).values(not_before=0))


async def stop(trip: Trip, batch_id: str) -> None:
    """Asks the provider of each running job to stop; a refusal leaves the others alone and is tried again."""
    for row in await trip.db.read(jobs.of_batch, batch_id):
        if row["status"] != JobState.RUNNING or row["cancel_at"] is not None:
            continue
        job = jobs.spec(row)
        try:
            await trip.accounts.provider(job.route).cancel(job)
        except (ProviderError, KeyError) as error:
            log.warning("%s could not be asked to stop: %s", row["id"], error)
            await trip.db.write(batches.postpone, [batch_id], trip.clock() + ASK_AGAIN)
            continue
        except Exception:  # a job that breaks must not keep the next ones running, and paid
            log.exception("asking %s to stop broke", row["id"])
            await trip.db.write(batches.postpone, [batch_id], trip.clock() + ASK_AGAIN)
            continue
        await trip.db.write(jobs.note, row["id"], {"cancel_at": trip.clock(), "poll_at": trip.clock()})
        trip.bells.polls.set()
