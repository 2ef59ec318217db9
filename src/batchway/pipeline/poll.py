"""Each running job is looked at until it ends.

Not one sleeping workflow a job but a table of due rows, claimed a few hundred at a time; the claim pushes the row
ahead, so two pollers never look twice. The interval follows the age of the job. A look that fails, however it fails,
stops no other and comes again later: a provider's outage never ends a job, unless the provider says, several times in
a row, that it has no such job.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy import Connection, RowMapping

from batchway import logs
from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Look
from batchway.core.states import JobState, Outcome
from batchway.db import jobs
from batchway.db.transitions import move_job
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

CLAIM = 300  # rows at a time
LEASE = 30.0  # seconds for which a claimed row is left alone: what a poller that was killed costs
LOOK = 25.0  # seconds that a look may take, so that it ends within its lease
SLOWEST = 60.0
AT_ONCE = 32
LOST_AFTER = 5  # looks in a row that find no such job
NOT_FOUND = "not_found"  # the remote status while the provider says so


async def poll(trip: Trip) -> int:
    """Looks at every job that is due; answers how many there were."""
    rows = await trip.db.write(jobs.claim_polls, trip.clock(), LEASE, CLAIM)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(row: RowMapping) -> None:
        logs.note(batch_id=row["batch_id"], job_id=row["id"])
        async with gate:
            await _look(trip, row)

    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(one(row))
    return len(rows)


async def _look(trip: Trip, row: RowMapping) -> None:
    job = jobs.spec(row)
    try:
        async with asyncio.timeout(LOOK):
            look = await trip.accounts.provider(job.route).look(job)
    except ProviderError as error:
        await _failed(trip, row, error)
        return
    except TimeoutError:
        await _failed(trip, row, ProviderError(f"no answer within {LOOK:g} seconds", fault=Fault.TRANSIENT))
        return
    except KeyError as error:
        log.warning("%s cannot be looked at: no account %s in the settings", row["id"], error)
        await trip.db.write(jobs.note, row["id"], {"poll_at": trip.clock() + SLOWEST})
        return
    except Exception:  # a task that raises would take the looks beside it along
        log.exception("a look at %s broke", row["id"])
        await trip.db.write(jobs.note, row["id"], {"poll_at": trip.clock() + SLOWEST})
        return
    await trip.db.write(_record, row, look, trip.clock(), _interval(trip, row))
    if look.outcome is not None:
        trip.bells.work.set()


def _record(tx: Connection, row: RowMapping, look: Look, now: float, interval: float) -> None:
    again = {"remote_status": look.status, "poll_at": now + interval, "attempts": 0}
    jobs.report(tx, row["id"], look.counts, again if look.outcome is None else {})
    if look.outcome is None:
        return
    ended = {
        "outcome": look.outcome,
        "remote_status": look.status,
        "code": look.code,
        "message": look.message,
        "results": list(look.results),
    }
    move_job(tx, row["id"], JobState.RUNNING, JobState.ENDED, now, ended)


async def _failed(trip: Trip, row: RowMapping, error: ProviderError) -> None:
    log.warning("a look at %s failed (%s): %s", row["id"], error.fault, error.message)
    now, attempts = trip.clock(), row["attempts"] + 1
    missing, was_missing = error.status == 404, row["remote_status"] == NOT_FOUND
    if missing and not was_missing:
        attempts = 1  # failures of another kind are no word about the job
    if missing and attempts >= LOST_AFTER:
        values = {"outcome": Outcome.FAILED, "code": "job_lost", "message": "The provider no longer has this job."}
        await trip.db.write(move_job, row["id"], JobState.RUNNING, JobState.ENDED, now, values)
        trip.bells.work.set()
        return
    wait = error.retry_after or min(SLOWEST, trip.poll_seconds * 2.0**attempts)
    values: dict[str, Any] = {"poll_at": now + wait, "attempts": attempts}
    if missing or was_missing:
        values["remote_status"] = NOT_FOUND if missing else None
    await trip.db.write(jobs.note, row["id"], values)


def _interval(trip: Trip, row: RowMapping) -> float:
    age = trip.clock() - (row["running_at"] or trip.clock())
    return min(SLOWEST, max(trip.poll_seconds, age / 20))
