"""Answers as NDJSON, each output line with its `cursor` and its `amount_usd`. Not a stage.

While the batch runs they come in the order they were stored (the segments, in commit order); after its end every input
line was given exactly once. After the end they can be had in input order too. A cursor is `<segment>.<lines taken of
it>`, or the line's number in input order. The amounts add up to the batch's.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from sqlalchemy import RowMapping

from batchway.billing.prices import Price
from batchway.core.answers import Stored
from batchway.core.errors import Conflict, NotFound, RequestError
from batchway.core.money import to_dollars
from batchway.core.principal import Sight
from batchway.core.states import FINAL_BATCH_STATES
from batchway.core.usage import line_usage
from batchway.db import batches, jobs, segments
from batchway.pipeline.answers import read_answers
from batchway.pipeline.merge import runs
from batchway.pipeline.routing import price_of
from batchway.pipeline.trip import Trip
from batchway.wire.batches import ResultsFilter

STORED_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")
INPUT_CURSOR = re.compile(r"([0-9]{1,18})")
SEGMENTS = 100  # rows at a time


async def results(trip: Trip, sight: Sight | None, batch_id: str, wanted: ResultsFilter) -> AsyncIterator[bytes]:
    """Windows of whole lines. NotFound, Conflict and a bad cursor raise before the first."""
    batch = await trip.db.read(batches.get, batch_id, sight)
    if batch["tidied_at"] is not None:
        raise NotFound(f"The results of batch '{batch_id}' are gone: they were kept as long as its output file.")
    ok = None if wanted.status is None else wanted.status == "completed"
    found = _in_input_order if wanted.order == "input" else _as_stored
    async for job, answers in found(trip, batch, wanted.after):
        price = price_of(trip, job)
        lines = [_line(answer, cursor, price) for cursor, answer in answers if ok in (None, answer.ok)]
        if lines:
            yield b"".join(lines)


Run = tuple[RowMapping, list[tuple[bytes, Stored]]]
"""A job, and some of its answers with their cursors."""


async def _as_stored(trip: Trip, batch: RowMapping, after: str | None) -> AsyncIterator[Run]:
    seq, skip = _parse(STORED_CURSOR, after) if after else (0, 0)
    of_batch = {job["id"]: job for job in await trip.db.read(jobs.of_batch, batch["id"])}
    while rows := await trip.db.read(segments.after, batch["id"], seq - 1, SEGMENTS):
        for row in rows:
            taken = 0
            async for window in read_answers(trip.storage, row["storage_key"]):
                had = max(0, skip - taken) if row["seq"] == seq else 0
                places = enumerate(window[had:], taken + had + 1)
                yield of_batch[row["job_id"]], [(b"%d.%d" % (row["seq"], place), answer) for place, answer in places]
                taken += len(window)
        seq, skip = rows[-1]["seq"] + 1, 0


async def _in_input_order(trip: Trip, batch: RowMapping, after: str | None) -> AsyncIterator[Run]:
    if batch["status"] not in FINAL_BATCH_STATES:
        message = f"Batch '{batch['id']}' has status '{batch['status']}': results in input order come after its end."
        raise Conflict(message, param="order")
    last = _parse(INPUT_CURSOR, after)[0] if after else 0
    async for job, answers in runs(trip.storage, await trip.db.read(jobs.of_batch, batch["id"])):
        yield job, [(b"%d" % answer.number, answer) for answer in answers if answer.number > last]


def _line(answer: Stored, cursor: bytes, price: Price | None) -> bytes:
    amount = b""
    if answer.ok and price:
        amount = b',"amount_usd":"%b"' % to_dollars(price.amount(line_usage(answer.line, answer.milliseconds))).encode()
    return b'%b,"cursor":"%b"%b}\n' % (answer.line.rstrip()[:-1], cursor, amount)


def _parse(form: re.Pattern[str], after: str) -> tuple[int, ...]:
    match = form.fullmatch(after)
    if match is None:
        raise RequestError(f"Invalid cursor: '{after}'.", code="invalid_value", param="after")
    return tuple(map(int, match.groups()))
