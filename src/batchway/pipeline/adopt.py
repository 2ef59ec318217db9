"""Takes in a batch that was made elsewhere, by its id at the provider: it becomes a batch with one running job.

Its input file is fetched first, so that its answers come back in input order and every line is accounted for. Adopting
the same one again answers the batch that has it. It runs already and will be paid whatever we say, so its hold is
opened without asking the budgets.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, select
from sqlalchemy.exc import IntegrityError

from batchway.billing.estimate import dearest
from batchway.core.errors import NotFound, ProviderError, RequestError
from batchway.core.jobs import JobSpec, Look, Route, Span
from batchway.core.principal import Principal
from batchway.core.states import BatchState, JobState
from batchway.db import batches
from batchway.db.audit import Actor, record
from batchway.db.holds import open_hold
from batchway.db.schema import jobs
from batchway.db.transitions import create_batch, create_jobs, move_batch, move_job
from batchway.pipeline.fields import checked_metadata
from batchway.pipeline.intake import Incoming, delete_file, receive
from batchway.pipeline.routing import demand
from batchway.pipeline.trip import Trip
from batchway.providers.protocol import Account, Adoptable
from batchway.wire.batches import BatchAdopt

WINDOW = 86400
# It becomes a part of a URL's path at the provider, sent with our credentials: no "..", no query, nothing encoded.
REMOTE_ID = re.compile(r"(?!\.+(/|$))[\w.:@=~-]+(/(?!\.+(/|$))[\w.:@=~-]+)*", re.ASCII)
EVERY_LINE = Span(file_key="", start=0, end=0, first_line=1, models=frozenset())


async def adopt(trip: Trip, principal: Principal, wanted: BatchAdopt, *, request_id: str = "") -> str:
    """The id of the batch that carries it from now on; NotFound when the provider has no such job.

    `request_id` is for the audit log.
    """
    metadata = checked_metadata(wanted.metadata)
    account = next((found for found in trip.accounts.find(wanted.provider) if found.native), None)
    if account is None:
        message = f"No provider '{wanted.provider}' with batches of its own is configured."
        raise RequestError(message, code="invalid_value", param="provider")
    if REMOTE_ID.fullmatch(wanted.remote_id) is None:
        message = "Invalid 'remote_id': no provider names a batch so."
        raise RequestError(message, code="invalid_value", param="remote_id")
    known = await _known(trip, principal, account, wanted.remote_id)
    if known is not None:
        return known
    job = _foreign(trip, account, wanted.remote_id)
    look, file = await _fetch(trip, principal, account, job)
    model = next(iter(file["models"]), "unknown")
    job = msgspec.structs.replace(
        job,
        route=Route(account=account.name, model=model),
        endpoint=look.endpoint or next(iter(file["urls"]), "/v1/chat/completions"),
        span=msgspec.structs.replace(EVERY_LINE, file_key=file["storage_key"], end=file["bytes"]),
        lines=file["lines"],
        bytes=file["bytes"],
    )
    try:
        batch = _batch(principal, job, file) | {"metadata": metadata}
        actor = Actor(principal.key_id, request_id)
        await trip.db.write(_store, batch, job, _held(trip, job, file), actor, trip.clock())
    except IntegrityError:  # somebody else adopts the same one: their job has the token
        await delete_file(trip, file)
        known = await _known(trip, principal, account, wanted.remote_id)
        if known is None:
            raise
        return known
    trip.bells.polls.set()
    return job.batch_id


async def _known(trip: Trip, principal: Principal, account: Account, remote_id: str) -> str | None:
    """The batch that has this job already; NotFound when it is somebody else's."""
    batch_id = await trip.db.read(_holder, account.name, remote_id)
    if batch_id is not None:
        await trip.db.read(batches.get, batch_id, principal.sees)
    return batch_id


def _holder(tx: Connection, account: str, remote_id: str) -> str | None:
    query = select(jobs.c.batch_id).where(jobs.c.account == account, jobs.c.remote_id == remote_id)
    return tx.execute(query).scalar()


def _foreign(trip: Trip, account: Account, remote_id: str) -> JobSpec:
    return JobSpec(
        id=trip.new_id("job_"),
        batch_id=trip.new_id("batch_"),
        token=_token(account.name, remote_id),
        route=Route(account=account.name, model=""),
        endpoint="",
        span=EVERY_LINE,
        lines=0,
        bytes=0,
        window=WINDOW,
        deadline=trip.clock() + WINDOW,
        remote_id=remote_id,
    )


def _token(account: str, remote_id: str) -> str:
    """The same for the same remote job, and tokens are unique: of several who adopt it at once one commits."""
    return "adopted-" + sha256(f"{account}\n{remote_id}".encode()).hexdigest()


async def _fetch(trip: Trip, principal: Principal, account: Account, job: JobSpec) -> tuple[Look, RowMapping]:
    provider = account.native
    if not isinstance(provider, Adoptable):
        raise RequestError(f"Batches of '{account.name}' cannot be adopted.", code="invalid_value", param="provider")
    try:
        look = await provider.look(job)
        incoming = Incoming(
            project=principal.project,
            key_id=principal.key_id,
            filename=f"{job.remote_id}.jsonl",
            purpose="batch",
            expires_at=None,
        )
        return look, await receive(trip, incoming, provider.fetch_input(look))
    except ProviderError as error:
        if error.status == 404:
            message = f"'{account.name}' has no batch '{job.remote_id}', or its input file is gone."
            raise NotFound(message, param="remote_id") from None
        raise


def _batch(principal: Principal, job: JobSpec, file: RowMapping) -> dict[str, Any]:
    return {
        "id": job.batch_id,
        "project": principal.project,
        "key_id": principal.key_id,
        "endpoint": job.endpoint,
        "input_file_id": file["id"],
        "input_tokens": sum(stats["input_tokens"] for stats in file["models"].values()),
        "completion_window": "24h",
        "window_seconds": WINDOW,
        "provider": job.route.account,
        "total": job.lines,
        "expires_at": job.deadline,
    }


def _held(trip: Trip, job: JobSpec, file: RowMapping) -> int | None:
    """The most that its lines may amount to, in pico-dollars; None when the price is unknown."""
    every_line = demand(trip, job.route, list(file["models"].values()))
    amount, unpriced = dearest([[every_line]], trip.prices, trip.clock())
    return None if unpriced else amount


def _store(tx: Connection, batch: dict[str, Any], job: JobSpec, held: int | None, actor: Actor, now: float) -> None:
    create_batch(tx, now, batch)
    told = {"provider": job.route.account, "remote_id": job.remote_id}
    record(tx, actor, "batch.adopted", job.batch_id, now, told)
    open_hold(tx, batch, held, now)
    row: dict[str, Any] = {
        "id": job.id,
        "batch_id": job.batch_id,
        "ordinal": 0,
        "token": job.token,
        "account": job.route.account,
        "model": job.route.model,
        "lane": job.route.lane,
        "models": [],
        "endpoint": job.endpoint,
        "file_key": job.span.file_key,
        "span_start": 0,
        "span_end": job.span.end,
        "first_line": 1,
        "lines": job.lines,
        "bytes": job.bytes,
        "window_seconds": WINDOW,
        "deadline": job.deadline,
        "remote_id": job.remote_id,
    }
    create_jobs(tx, now, [row])
    move_batch(tx, job.batch_id, BatchState.VALIDATING, BatchState.IN_PROGRESS, now, {"prepared_at": now})
    move_job(tx, job.id, JobState.PLANNED, JobState.SUBMITTING, now)
    move_job(tx, job.id, JobState.SUBMITTING, JobState.RUNNING, now)
