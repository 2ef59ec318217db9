"""Each job is submitted once.

`submitting` is committed, with our token, before the call. Whatever happens then, a crash or a lost answer, the next
run finds the job `submitting` and asks the provider for the token: found means running, not found (a little later, for
a provider may still be working on our call) means planned again. A job of a batch that is ending is never submitted.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import RowMapping

from batchway import logs
from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import JobSpec
from batchway.core.spans import Line, span_lines
from batchway.core.states import BatchState, JobState, Outcome
from batchway.db import batches, jobs
from batchway.db.transitions import move_job
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

SETTLES = 5.0  # seconds after the last sign of a submit before "not found" is believed
LONGEST_WAIT = 300.0


async def dispatch(trip: Trip, batch_id: str) -> None:
    """Submits every job of the batch that is due; one that cannot be is left for later and stops no other."""
    for row in await trip.db.read(jobs.of_batch, batch_id):
        if row["status"] not in (JobState.PLANNED, JobState.SUBMITTING) or row["not_before"] > trip.clock():
            continue
        with logs.within(job_id=row["id"]):
            await _try(trip, row)


async def _try(trip: Trip, row: RowMapping) -> None:
    try:
        await _advance(trip, row)
    except (ProviderError, KeyError) as error:
        log.warning("%s cannot be submitted now: %s", row["id"], error)
        await _put_off(trip, row)
    except Exception:  # a bug in one provider must not keep the jobs of the others back
        log.exception("the submit of %s broke", row["id"])
        await _put_off(trip, row)


async def _put_off(trip: Trip, row: RowMapping) -> None:
    """Leaves the job for later: never so soon that a submit under way would be taken for one that never was."""
    wait = max(SETTLES, min(LONGEST_WAIT, 2.0 ** row["attempts"]))
    await trip.db.write(jobs.note, row["id"], {"not_before": trip.clock() + wait, "attempts": row["attempts"] + 1})


async def _advance(trip: Trip, row: RowMapping) -> None:
    if row["status"] == JobState.SUBMITTING:
        await _resolve(trip, row)
        row = await trip.db.read(jobs.get, row["id"])
    if row["status"] != JobState.PLANNED or row["not_before"] > trip.clock():
        return
    batch = await trip.db.read(batches.get, row["batch_id"])
    if batch["expiring"] or batch["status"] == BatchState.CANCELLING:
        await _drop(trip, row, batch)
    else:
        await _submit(trip, row)


async def _drop(trip: Trip, row: RowMapping, batch: RowMapping) -> None:
    """A job that never left: its lines end as cancelled or expired without being sent."""
    outcome = Outcome.CANCELLED if batch["status"] == BatchState.CANCELLING else Outcome.EXPIRED
    await _move(trip, row, JobState.PLANNED, JobState.ENDED, {"outcome": outcome})


async def _submit(trip: Trip, row: RowMapping) -> None:
    provider = trip.accounts.provider(jobs.spec(row).route)
    if not trip.alive() or not await _move(trip, row, JobState.PLANNED, JobState.SUBMITTING, _keep_attempts(row)):
        return
    job = jobs.spec(await trip.db.read(jobs.get, row["id"]))
    try:
        remote_id = await provider.submit(job, lambda: _lines(trip, job))
    except ProviderError as error:
        await _submit_failed(trip, row, error)
        return
    await _running(trip, row, remote_id)


async def _lines(trip: Trip, job: JobSpec) -> AsyncIterator[list[Line]]:
    """The lines to upload. An upload may take minutes: who lost his lease meanwhile does not get to what is paid."""
    async for window in span_lines(trip.storage.read(job.span.file_key, job.span.start, job.span.end), job.span):
        yield window
    if not trip.alive():
        raise ProviderError("this process lost its lease while it uploaded", fault=Fault.LOST)


async def _submit_failed(trip: Trip, row: RowMapping, error: ProviderError) -> None:
    log.warning("submit of %s failed (%s): %s", row["id"], error.fault, error.message)
    if not trip.alive():
        return  # somebody else may be at work on the row by now, and finds out what became of the submit
    now = trip.clock()
    if error.fault is Fault.LOST:
        await trip.db.write(jobs.note, row["id"], {"not_before": now + SETTLES})
    elif error.retryable:
        wait = error.retry_after or min(LONGEST_WAIT, 2.0 ** row["attempts"])
        values = {"not_before": now + wait, "attempts": row["attempts"] + 1, "message": error.message}
        await _move(trip, row, JobState.SUBMITTING, JobState.PLANNED, values)
    else:
        values = {"outcome": Outcome.REJECTED, "code": error.code or str(error.fault), "message": error.message}
        await _move(trip, row, JobState.SUBMITTING, JobState.ENDED, values)


async def _resolve(trip: Trip, row: RowMapping) -> None:
    """What became of a submit that nobody knows the end of."""
    job = jobs.spec(row)
    remote_id = await trip.accounts.provider(job.route).find(job)
    if remote_id is not None:
        await _running(trip, row, remote_id)
        return
    if not row["not_before"]:  # nobody has waited yet: whoever sent it may have been killed a moment ago
        await trip.db.write(jobs.note, row["id"], {"not_before": trip.clock() + SETTLES})
    else:
        await _move(trip, row, JobState.SUBMITTING, JobState.PLANNED, _keep_attempts(row))


async def _running(trip: Trip, row: RowMapping, remote_id: str) -> None:
    values = {"remote_id": remote_id, "poll_at": trip.clock() + trip.poll_seconds}
    await _move(trip, row, JobState.SUBMITTING, JobState.RUNNING, values)
    trip.bells.polls.set()


async def _move(trip: Trip, row: RowMapping, old: JobState, new: JobState, values: dict[str, Any]) -> bool:
    moved = await trip.db.write(move_job, row["id"], old, new, trip.clock(), values)
    trip.bells.work.set()
    return moved


def _keep_attempts(row: RowMapping) -> dict[str, Any]:
    return {"attempts": row["attempts"]}
