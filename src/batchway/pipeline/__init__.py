"""The trip of a batch, in order. Read this first.

A file becomes a batch (`create`); a batch becomes jobs, one for each provider job; every job walks one road; the
answers come back merged in input order. Four short durable functions and one loop carry it:

    prepare(batch)   validate -> split -> dispatch      every line is read, cut into jobs, each job is submitted once
    polling          poll                               each running job is looked at until it ends
    settle(job)      reroute -> collect -> account      its answers become lines in input order, its tokens money
    finish(batch)    finalize                           all jobs accounted: the files, the last status

`create` lets a batch in only where its limits and budgets have room (`admit`), and holds what it can cost at most;
every ending settles that. A batch for which there is no money may wait, paused, and is let go on later (`resume`).
`stop(batch)` ends jobs early, for a batch that is cancelled or whose window has closed; they walk the rest of the same
road. `adopt` takes in a batch that was made elsewhere: it starts at polling.

Each change stores its event in the same transaction; `notify` takes the events to whoever asked, beside the road, so
that nobody who is told can hold a batch up.

What keeps this safe: a stage takes ids only, owns its transactions, makes no network call inside one, and finds in the
database whether its work is done already, so running it again changes nothing. Stages meet only in the database. A
crash anywhere leaves a row that says what is due, and the worker starts the durable function that does it.
"""

from __future__ import annotations

from batchway.pipeline.account import account
from batchway.pipeline.cancel import expire, stop
from batchway.pipeline.collect import collect
from batchway.pipeline.dispatch import dispatch
from batchway.pipeline.finalize import finalize
from batchway.pipeline.poll import poll
from batchway.pipeline.reroute import reroute
from batchway.pipeline.split import split
from batchway.pipeline.trip import Trip
from batchway.pipeline.validate import validate

__all__ = ["expire", "finish", "poll", "prepare", "settle", "stop"]


async def prepare(trip: Trip, batch_id: str) -> None:
    """From a stored file to jobs that run at their providers."""
    await validate(trip, batch_id)
    await split(trip, batch_id)
    await dispatch(trip, batch_id)


async def settle(trip: Trip, job_id: str) -> None:
    """From a job that ended to lines and money; one that was refused whole goes to the next route instead."""
    await reroute(trip, job_id)
    await collect(trip, job_id)
    await account(trip, job_id)


async def finish(trip: Trip, batch_id: str) -> None:
    """From accounted jobs to the output file, the error file and the last status."""
    await finalize(trip, batch_id)
