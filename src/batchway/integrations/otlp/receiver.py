"""Tells a collector or a trace platform, by OTLP over HTTP: spans that are over, each event as a log record, metrics.

One tell is at most a few POSTs of at most `PART` items each, so memory is bounded by the window. Spans repeat with the
same ids, log records with `batchway.event.id`, metrics see `metrics.py`. What a peer refuses in part, by
`partial_success`, is not sent again, as OTLP wants, but logged with its number.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, func, select

from batchway.core.event_data import BatchData, JobData
from batchway.core.events import Event, EventType
from batchway.db.schema import chunks
from batchway.integrations.otlp import attributes as names
from batchway.integrations.otlp import messages, metrics, spans
from batchway.integrations.otlp.content import line_attributes
from batchway.integrations.otlp.logs import log_record
from batchway.integrations.otlp.messages import Export, Message, Resource, Resourced, Scope, Scoped, Span
from batchway.integrations.otlp.places import Place, Signal
from batchway.integrations.posting import post
from batchway.integrations.protocol import LineRecord, Tools

log = logging.getLogger(__name__)

D = TypeVar("D", BatchData, JobData)

PART = 512  # items of one POST
SLICE = 16  # items that are made while nothing else runs: a few milliseconds
MOST_CHUNKS = 100  # spans of one job's chunks
ENDED = (EventType.BATCH_COMPLETED, EventType.BATCH_FAILED, EventType.BATCH_EXPIRED, EventType.BATCH_CANCELLED)
MEDIA = {"http/protobuf": "application/x-protobuf", "http/json": "application/json"}


@dataclass(frozen=True, kw_only=True)
class Manner:
    """What an entry makes of its options."""

    places: Mapping[Signal, Place]
    style: spans.Style
    temporality: metrics.Temporality
    resource: Mapping[str, str]
    content: bool


class OtlpReceiver:
    """See the module."""

    window = 100

    def __init__(self, name: str, manner: Manner, tools: Tools) -> None:
        self._name = name
        self._manner = manner
        self._tools = tools
        self._meter = metrics.Meter(manner.temporality, tools.clock())
        self._resource = Resource(attributes=names.attributes(manner.resource))
        self._scope = Scope(name="batchway")

    @property
    def lines(self) -> bool:
        """Whether it wants line records."""
        return self._manner.style.lines

    async def tell(self, events: Sequence[Event]) -> None:
        """Logs, spans and metrics of these events."""
        style, now = self._manner.style, self._tools.clock()
        await self._send("logs", (log_record(event, now, style) for event in events))
        await self._send("traces", self._spans(events, await self._chunks(events)))
        await self._measure(sample for event in events for sample in _samples(event, style))

    async def tell_lines(self, event: Event, records: Sequence[LineRecord]) -> None:
        """A span of each line, and their tokens."""
        data = _typed(event, JobData)
        if data is None:
            return
        style, content = self._manner.style, self._manner.content
        made = ((line, line_attributes(line, content=content)) for line in records)
        await self._send("traces", (spans.line_span(event, data, line, about, style) for line, about in made))
        tokens = ((line.usage.input_tokens, line.usage.output_tokens) for line in records if line.ok)
        await self._measure(sample for one in tokens for sample in metrics.of_line(data, one, style))

    async def close(self) -> None:
        """Nothing is held back."""

    async def _chunks(self, events: Sequence[Event]) -> dict[str, list[spans.Chunk]]:
        done = [event.data for event in events if event.type is EventType.JOB_ACCOUNTED]
        executed = [str(data.get("id")) for data in done if data.get("lane") == "executed"]
        if not executed or "traces" not in self._manner.places:
            return {}
        return await self._tools.db.read(_chunks_of, executed)

    def _spans(self, events: Sequence[Event], chunks_of: Mapping[str, Sequence[spans.Chunk]]) -> Iterator[Span]:
        style = self._manner.style
        for event in events:
            if event.type in ENDED and (batch := _typed(event, BatchData)):
                yield from spans.batch_spans(event, batch, style)
            elif event.type is EventType.JOB_ACCOUNTED and (job := _typed(event, JobData)):
                yield from spans.job_spans(event, job, chunks_of.get(job.id, ()), style)

    async def _measure(self, samples: Iterable[metrics.Sample]) -> None:
        if "metrics" in self._manner.places:
            made, taken = self._meter.export(samples, self._tools.clock())
            await self._send("metrics", made)
            taken()

    async def _send(self, signal: Signal, items: Iterable[Message]) -> None:
        """Makes, encodes and posts them, a part at a time; now and then the loop does something else."""
        place = self._manner.places.get(signal)
        if place is None:
            return
        encode = messages.encoder(place.protocol)
        part: list[Any] = []
        for count, item in enumerate(items, 1):
            part.append(encode(item))
            if count % SLICE == 0:
                await asyncio.sleep(0)
            if len(part) == PART:
                await self._post(signal, place, part)
                part = []
        if part:
            await self._post(signal, place, part)

    async def _post(self, signal: Signal, place: Place, part: Sequence[Any]) -> None:
        body = bytes(messages.encoder(place.protocol)(_EXPORTS[signal](self._resource, self._scope, part)))
        headers = {**place.headers, "content-type": MEDIA[place.protocol]}
        if place.gzip:
            body = await asyncio.to_thread(gzip.compress, body, 6, mtime=0)
            headers["content-encoding"] = "gzip"
        reply = await post(self._tools.http, self._name, place.url, headers, body, place.timeout)
        if lost := messages.rejected(reply.body, reply.headers.get("content-type", "")):
            log.warning("receiver %s: %d of %d %s were not taken", self._name, lost, len(part), signal)


_EXPORTS: Mapping[Signal, Callable[[Resource, Scope, Sequence[Any]], Export]] = {
    "traces": lambda who, scope, items: Export(
        resource_spans=[Resourced(resource=who, scope_spans=[Scoped(scope=scope, spans=items)])]
    ),
    "metrics": lambda who, scope, items: Export(
        resource_metrics=[Resourced(resource=who, scope_metrics=[Scoped(scope=scope, metrics=items)])]
    ),
    "logs": lambda who, scope, items: Export(
        resource_logs=[Resourced(resource=who, scope_logs=[Scoped(scope=scope, log_records=items)])]
    ),
}


def _samples(event: Event, style: spans.Style) -> Iterator[metrics.Sample]:
    if event.type in ENDED and (batch := _typed(event, BatchData)):
        yield from metrics.of_batch(batch)
    elif event.type is EventType.JOB_ACCOUNTED and (job := _typed(event, JobData)):
        yield from metrics.of_job(job, style)


def _typed(event: Event, kind: type[D]) -> D | None:
    """The event's data; None for those of another version, which are told as a log record only."""
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError:
        return None


def _chunks_of(tx: Connection, job_ids: Sequence[str]) -> dict[str, list[spans.Chunk]]:
    """The first chunks of each of these jobs that ran."""
    place = func.row_number().over(partition_by=chunks.c.job_id, order_by=chunks.c.ordinal).label("place")
    ran = chunks.c.done_at.is_not(None), chunks.c.queued_at.is_not(None)
    inner = select(chunks, place).where(chunks.c.job_id.in_(job_ids), *ran).subquery()
    query = select(inner).where(inner.c.place <= MOST_CHUNKS).order_by(inner.c.job_id, inner.c.ordinal)
    found: dict[str, list[spans.Chunk]] = {}
    for row in tx.execute(query).mappings():
        fields = {name: row[name] for name in ("id", "ordinal", "lines", "answered", "attempts")}
        chunk = spans.Chunk(**fields, started_at=row["queued_at"], ended_at=row["done_at"])
        found.setdefault(row["job_id"], []).append(chunk)
    return found
