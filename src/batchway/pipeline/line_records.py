"""A job's answered lines for receivers that want each of them, in bounded parts. Not a stage.

The collected answers and the job's input lines are both in input order, so they are read side by side, a window of each
at a time. What a record shows of the bodies is the project's choice: all (`none` is taken away), `hash`, or nothing
(`drop`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing

import msgspec
from sqlalchemy import RowMapping

from batchway.billing.prices import Price
from batchway.core.answers import Stored, unpack
from batchway.core.events import Event
from batchway.core.jobs import Span
from batchway.core.spans import Line, span_lines
from batchway.core.textlines import lines
from batchway.core.usage import NO_USAGE, line_usage
from batchway.db import jobs, receivers
from batchway.integrations.protocol import LineRecord
from batchway.pipeline.answers import MAX_ANSWER_BYTES
from batchway.pipeline.routing import price_of
from batchway.pipeline.trip import Trip
from batchway.storage import StorageMissing
from batchway.wire.lines import encode, output_line

log = logging.getLogger(__name__)

PART_LINES = 500
WINDOW = 1 << 18  # bytes of the input read at a time
PART_BYTES = 4 << 20  # of bodies; a single line may be longer

Redact = Callable[[msgspec.Raw | None], msgspec.Raw | None]


async def parts(trip: Trip, event: Event, skip: int) -> AsyncGenerator[list[LineRecord], None]:
    """The records of the job that this `job.accounted` event is about, but for the first `skip`.

    None when the answers are gone, as they are some time after the batch's end.
    """
    row = await trip.db.read(jobs.get, event.data["id"])
    if not row["answers_key"]:
        return
    redact = REDACTIONS[await trip.db.read(receivers.redaction, event.project)]
    make = _Maker(event, row, price_of(trip, row), redact)
    part: list[LineRecord] = []
    held = 0
    try:
        async with aclosing(_side_by_side(trip, row)) as both:
            async for line, answer in both:
                if skip:
                    skip -= 1
                    continue
                record, size = make.record(line, answer)
                if part and (len(part) >= PART_LINES or held + size > PART_BYTES):
                    yield part
                    part, held = [], 0
                part.append(record)
                held += size
    except StorageMissing:
        log.warning("the lines of %s are gone: they were kept as long as its batch's output", row["id"])
    if part:
        yield part


class _Maker:
    """Makes the records of one job."""

    def __init__(self, event: Event, row: RowMapping, price: Price | None, redact: Redact) -> None:
        self._event, self._row, self._price, self._redact = event, row, price, redact

    def record(self, line: Line, answer: Stored) -> tuple[LineRecord, int]:
        """The record, and the bytes of the bodies in it."""
        status, response = _response(answer.line)
        request, response = self._redact(line.request.body), self._redact(response)
        usage = NO_USAGE
        if answer.ok:
            usage = line_usage(answer.line, answer.milliseconds)
        made = LineRecord(
            batch_id=self._row["batch_id"],
            job_id=self._row["id"],
            number=answer.number,
            custom_id=line.request.custom_id,
            project=self._event.project,
            key_id=self._event.key_id,
            provider=self._row["account"],
            model=self._row["model"],
            ok=answer.ok,
            status=status,
            usage=usage,
            amount=(self._price.amount(usage) if self._price else None) if answer.ok else 0,
            request=request,
            response=response,
            ended_at=self._row["ended_at"],
        )
        return made, len(request or b"") + len(response or b"")


def _response(raw: bytes) -> tuple[int | None, msgspec.Raw]:
    """(HTTP status, body) of an output line; its error where there is no body, all of it where its form is odd."""
    try:
        line = output_line.decode(raw)
    except msgspec.ValidationError:
        return None, msgspec.Raw(raw)
    if line.response is not None:
        return line.response.status_code, line.response.body
    return None, msgspec.Raw(encode(line.error))


async def _side_by_side(trip: Trip, row: RowMapping) -> AsyncGenerator[tuple[Line, Stored], None]:
    """Each answered line of a job; lines without an answer are passed over."""
    span, read = jobs.spec(row).span, trip.storage.read
    async with (
        aclosing(read(span.file_key, span.start, span.end, chunk=WINDOW)) as input_data,
        aclosing(read(row["answers_key"], chunk=WINDOW)) as answer_data,
    ):
        requests = _lines(input_data, span)
        request = await anext(requests, None)
        async for window in lines(answer_data, limit=MAX_ANSWER_BYTES):
            for answer in map(unpack, window):
                while request is not None and request.number < answer.number:
                    request = await anext(requests, None)
                if request is None:
                    return
                if request.number == answer.number:
                    yield request, answer
            await asyncio.sleep(0)  # a window is a few milliseconds of work: let the others in


async def _lines(data: AsyncIterator[bytes], span: Span) -> AsyncIterator[Line]:
    async for window in span_lines(data, span):
        for line in window:
            yield line


def _hash(body: msgspec.Raw | None) -> msgspec.Raw | None:
    return None if body is None else msgspec.Raw(b'{"sha256":"%b"}' % hashlib.sha256(body).hexdigest().encode())


def _drop(body: msgspec.Raw | None) -> msgspec.Raw | None:
    del body


def _show(body: msgspec.Raw | None) -> msgspec.Raw | None:
    return body


REDACTIONS: Mapping[str, Redact] = {"none": _show, "hash": _hash, "drop": _drop}
