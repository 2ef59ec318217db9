"""Every line is known to be good, or the batch fails with line numbers, as at OpenAI.

The lines were read when the file was uploaded; what is left to check needs the batch: its endpoint, its model, the
routes. Only a file that turns out faulty is read once more, to find the line numbers. Nothing was paid yet: the money
was held when the batch was created, and what had no route then is held for now. Nothing goes on without a hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import BatchwayError, NotFound, RequestError
from batchway.core.events import EventType
from batchway.core.linefaults import waivable
from batchway.core.principal import Sight
from batchway.core.states import BatchState
from batchway.core.textlines import LineTooLong, lines
from batchway.db import batches, files, holds
from batchway.db.news import tell_batch
from batchway.db.transitions import move_batch
from batchway.pipeline.admit import Needs, ask, hold
from batchway.pipeline.routing import Stats, plan_routes, policies_of, want_of
from batchway.pipeline.trip import Trip
from batchway.providers.accounts import NoRoute
from batchway.wire.errors import LineFault
from batchway.wire.lines import body_head, input_line

MAX_FAULTS = 10_000
MAX_LINE_BYTES = 64 << 20


async def validate(trip: Trip, batch_id: str) -> None:
    """Leaves the batch failed with every fault, or still validating with its total known and its amount held."""
    batch = await trip.db.read(batches.get, batch_id)
    if batch["prepared_at"] is not None or batch["status"] == BatchState.PAUSED:
        return
    try:
        file = await trip.db.read(files.get, batch["input_file_id"], Sight(batch["project"], batch["key_id"]))
    except NotFound:
        await _fail(trip, batch, [_missing_file(batch)])
        return
    faults = await trip.db.read(files.faults, file["id"])
    if batch["model"]:
        faults = [fault for fault in faults if not waivable(fault)]
    models: Stats = file["models"] or {}
    urls: dict[str, int] = file["urls"] or {}
    plan = await plan_routes(trip, models, want_of(batch), batch["model"], policies_of(batch))
    wrong_urls = any(url != batch["endpoint"] for url in urls)
    if faults or wrong_urls or plan.unroutable:
        found = await _located(trip, batch, file, plan.unroutable)
        await _fail(trip, batch, _most_basic([*found, *faults])[:MAX_FAULTS])
        return
    needs = await _needs(trip, batch)
    try:
        await trip.db.write(_accept, batch_id, file["lines"], needs, trip.clock())
    except RequestError as refusal:
        await _fail(trip, batch, [LineFault(code=refusal.code or "", message=refusal.message)])


async def _needs(trip: Trip, batch: RowMapping) -> Needs | None:
    """What is to be held for the batch; None when that is done, or nothing of it will be sent."""
    if _ending(batch) or await trip.db.read(holds.of_batch, batch["id"]) is not None:
        return None
    needs = await ask(trip, batch)
    if not needs.runs:
        raise BatchwayError(f"the routes of {batch['id']} changed while it was validated: once more")
    return needs


def _accept(tx: Connection, batch_id: str, total: int, needs: Needs | None, now: float) -> None:
    batch = batches.get(tx, batch_id, hold=True)
    batches.note(tx, batch_id, {"total": total})
    if not batch["total"] and not _ending(batch):  # the first time
        tell_batch(tx, EventType.BATCH_VALIDATED, batch_id, now)
    if needs is not None and not _ending(batch):
        hold(tx, batch, needs, now)


def _ending(batch: RowMapping) -> bool:
    return batch["expiring"] or batch["status"] == BatchState.CANCELLING


async def _fail(trip: Trip, batch: RowMapping, faults: list[LineFault]) -> None:
    await trip.db.write(_record_failure, batch, [msgspec.to_builtins(fault) for fault in faults], trip.clock())
    trip.bells.money.set()


def _record_failure(tx: Connection, batch: RowMapping, errors: list[object], now: float) -> None:
    """A batch that was cancelled meanwhile keeps its faults and ends as cancelled, without jobs."""
    values = {"errors": errors, "prepared_at": now}
    if not move_batch(tx, batch["id"], BatchState.VALIDATING, BatchState.FAILED, now, values):
        batches.note(tx, batch["id"], values)
    holds.settle_hold(tx, batch["id"], now)


def _missing_file(batch: RowMapping) -> LineFault:
    return LineFault(
        code="invalid_request",
        message=f"Cannot find file {batch['input_file_id']}, or project {batch['project']} does not have access to it.",
        param="file_id",
    )


async def _located(
    trip: Trip, batch: RowMapping, file: RowMapping, unroutable: Mapping[str, NoRoute]
) -> list[LineFault]:
    """The lines with a foreign url or a model without a route; the file is read a window at a time."""
    found: list[LineFault] = []
    number = 0
    with suppress(LineTooLong):  # intake has that fault; what stands behind it is found once it is mended
        async for window in lines(trip.storage.read(file["storage_key"]), limit=MAX_LINE_BYTES):
            for raw in window:
                number += 1
                fault = _fault_of(raw, number, batch, unroutable)
                if fault and len(found) < MAX_FAULTS:
                    found.append(fault)
    return found


def _most_basic(faults: list[LineFault]) -> list[LineFault]:
    """One fault a line, by line. A url that is not the batch's explains whatever seems wrong with the body."""
    ranked = sorted(faults, key=lambda fault: (fault.line or 0, (fault.param or "").startswith("body")))
    return [next(of_line) for _, of_line in groupby(ranked, key=lambda fault: fault.line)]


def _fault_of(raw: bytes, number: int, batch: RowMapping, unroutable: Mapping[str, NoRoute]) -> LineFault | None:
    try:
        request = input_line.decode(raw)
        model = batch["model"] or body_head.decode(request.body).model
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # intake has this fault already
    if request.url != batch["endpoint"]:
        message = "The URL provided for this request does not match the batch endpoint."
        return LineFault(code="invalid_url", message=message, param="url", line=number)
    if problem := unroutable.get(model or ""):
        return LineFault(code=problem.code, message=problem.message, param="body.model", line=number)
    return None
