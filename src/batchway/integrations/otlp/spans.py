"""Spans of a batch, made from its events: a trace from its creation to its end.

    batch /v1/chat/completions                  told when the batch ended; every state it reached is an event of it
    |- validate
    |- queue        of each job, until it is sent
    |- chat MODEL   of each job, until the provider is done: the GenAI operation, with tokens and amount
    |  |- chunk     of an executed job
    |  '- chat MODEL   of each line, when the entry says `lines: true`; then these have the tokens and the amount
    |- collect, account    of each job

Tokens and amounts stand as `gen_ai.usage.*` on one level only, since platforms add them up over all spans.

A batch is a trace of its own, linked to the caller's (`traceparent` of the create): batches outlive the trace that made
them by hours, and whether that one was sampled must not decide about ours. With `join_caller` the batch becomes a child
in the caller's trace instead, when the caller's is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchway.core.event_data import BatchData, JobData
from batchway.core.events import Event
from batchway.core.traceparent import TraceParent, parse
from batchway.integrations.otlp import attributes as names
from batchway.integrations.otlp.messages import Link, Span, SpanEvent, Status
from batchway.integrations.protocol import LineRecord

INTERNAL, CLIENT = 1, 3
ERROR = 2
SAMPLED = 1


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of an executed job. Times in unix seconds."""

    id: str
    ordinal: int
    lines: int
    answered: int
    attempts: int
    started_at: float
    ended_at: float


@dataclass(frozen=True, kw_only=True)
class Style:
    """How spans are made: see the options of the same names.

    `renamed` are attributes that a platform wants under a name of its own too, `constants` those of every span.
    """

    join_caller: bool = False
    lines: bool = False
    providers: Mapping[str, str] = field(default_factory=dict[str, str])
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    constants: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def provider(self, account: str) -> str:
        """`gen_ai.provider.name` of an account."""
        return self.providers.get(account, account)


@dataclass(frozen=True)
class Place:
    """Where a batch's spans belong."""

    trace_id: str
    root: str
    parent: str = ""
    links: Sequence[Link] = ()


def place(batch_id: str, traceparent: str | None, style: Style) -> Place:
    """The trace of a batch, and its root."""
    caller: TraceParent | None = parse(traceparent)
    root = names.span_id(batch_id, "batch")
    if caller is None:
        return Place(names.trace_id(batch_id), root)
    if style.join_caller and caller.sampled:
        return Place(caller.trace_id, root, caller.span_id)
    link = Link(trace_id=caller.trace_id, span_id=caller.span_id, flags=caller.flags)
    return Place(names.trace_id(batch_id), root, "", (link,))


def batch_spans(event: Event, data: BatchData, style: Style) -> list[Span]:
    """Those of a batch that has ended."""
    at = place(data.id, data.traceparent, style)
    start, end = data.times.get("created", event.created_at), event.created_at
    common = _common(event, data.metadata)
    about = {
        "batchway.span": "batch",
        "batchway.batch.name": f"batch {data.endpoint}",
        **common,
        "batchway.batch.endpoint": data.endpoint,
        "batchway.batch.status": data.status,
        "batchway.batch.retry_of": data.retry_of,
        "batchway.models": data.models,
        "batchway.providers": data.providers,
        "batchway.lines.total": data.total,
        "batchway.lines.completed": data.completed,
        "batchway.lines.failed": data.failed,
        **names.usage(data.usage, "batchway.usage"),
        **_amount(data),
        "error.type": _error_type(data),
    }
    root = _span(at, at.root, f"batch {data.endpoint}", (start, end), (about, style))
    root.parent_span_id = at.parent
    root.links = at.links
    reached = sorted(data.times.items(), key=lambda pair: pair[1])
    root.events = [SpanEvent(name=f"batch.{state}", time_unix_nano=names.nanoseconds(when)) for state, when in reached]
    if about["error.type"]:
        root.status = Status(code=ERROR, message=f"the batch is {data.status}")
    checked = (start, data.times.get("in_progress", end))
    validate = _span(at, names.span_id(data.id, "validate"), "validate", checked, ({**common}, style))
    return [validate, root]


def job_spans(event: Event, data: JobData, chunks: Sequence[Chunk], style: Style) -> list[Span]:
    """Those of a job that is accounted, and of its chunks."""
    at = place(data.batch_id, data.traceparent, style)
    times, common = data.times, {**_common(event, data.metadata), "batchway.job.id": data.id}
    own = names.span_id(data.id, "job")
    spans = [
        _span(at, names.span_id(data.id, name), name, (times[start], times[end]), (common, style))
        for name, start, end in (
            ("queue", "planned", "submitting"),
            ("collect", "ended", "collected"),
            ("account", "collected", "accounted"),
        )
        if start in times and end in times
    ]
    sent = times.get("submitting", times.get("planned", event.created_at))
    about = {
        "batchway.span": "job",
        **common,
        **_operation(data.endpoint, data.provider, data.model, style),
        "batchway.job.lane": data.lane,
        "batchway.job.outcome": data.outcome,
        "batchway.job.remote_id": data.remote_id,
        "batchway.lines.total": data.lines,
        "batchway.lines.completed": data.completed,
        "batchway.lines.failed": data.failed,
        **names.usage(data.usage, "batchway.usage" if style.lines else "gen_ai.usage"),
        **_amount(data),
        "gen_ai.usage.cost": None if style.lines or data.amount_usd is None else float(data.amount_usd),
        "error.type": None if data.outcome == "succeeded" else data.code or data.outcome,
    }
    job = _span(at, own, _title(data), (sent, times.get("ended", event.created_at)), (about, style))
    job.kind = CLIENT
    if about["error.type"]:
        job.status = Status(code=ERROR, message=f"the job {data.outcome}")
    inside = Place(at.trace_id, own)
    return [*spans, job, *(_chunk_span(inside, one, (common, style)) for one in chunks)]


def line_span(event: Event, data: JobData, line: LineRecord, said: Mapping[str, Any], style: Style) -> Span:
    """One answered line of a job, of which `said` are the attributes.

    When a line was sent is not stored: its span has the time of its end only.
    """
    at = place(data.batch_id, data.traceparent, style)
    inside = Place(at.trace_id, names.span_id(data.id, "job"))
    about = {
        "batchway.span": "line",
        **_common(event, data.metadata),
        "batchway.job.id": data.id,
        **_operation(data.endpoint, data.provider, data.model, style),
        **said,
    }
    own = names.span_id(data.id, "line", line.number)
    span = _span(inside, own, _title(data), (line.ended_at, line.ended_at), (about, style))
    span.kind = CLIENT
    if not line.ok:
        span.status = Status(code=ERROR)
    return span


def _chunk_span(at: Place, chunk: Chunk, made: tuple[Mapping[str, Any], Style]) -> Span:
    common, style = made
    about = {
        **common,
        "batchway.chunk.id": chunk.id,
        "batchway.chunk.ordinal": chunk.ordinal,
        "batchway.chunk.attempts": chunk.attempts,
        "batchway.lines.total": chunk.lines,
        "batchway.lines.answered": chunk.answered,
    }
    took = (chunk.started_at, chunk.ended_at)
    return _span(at, names.span_id(chunk.id, "chunk"), "chunk", took, (about, style))


def _span(at: Place, own: str, name: str, took: tuple[float, float], made: tuple[Mapping[str, Any], Style]) -> Span:
    values, style = made
    start, end = took
    return Span(
        trace_id=at.trace_id,
        span_id=own,
        parent_span_id="" if own == at.root else at.root,
        name=name,
        kind=INTERNAL,
        start_time_unix_nano=names.nanoseconds(start),
        end_time_unix_nano=names.nanoseconds(max(start, end)),
        attributes=names.attributes({**_renamed(values, style.renamed), **style.constants}),
        flags=SAMPLED,
    )


def _renamed(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The values, and those that a platform wants under a name of its own; `x.*` renames every one under x."""
    more: dict[str, Any] = {}
    for ours, theirs in renamed.items():
        if ours in values:
            more[theirs] = values[ours]
        elif ours.endswith(".*"):
            stem = ours[:-1]
            more |= {theirs[:-1] + key.removeprefix(stem): values[key] for key in values if key.startswith(stem)}
    return {**values, **more}


def _common(event: Event, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        "batchway.event.id": event.id,
        "batchway.batch.id": event.subject,
        "batchway.project": event.project,
        "batchway.key_id": event.key_id,
        **names.tags(metadata),
    }


def _operation(endpoint: str, account: str, model: str, style: Style) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": names.operation(endpoint),
        "gen_ai.provider.name": style.provider(account),
        "gen_ai.request.model": model,
        "batchway.provider": account,
    }


def _title(data: JobData) -> str:
    return f"{names.operation(data.endpoint)} {data.model}"


def _amount(data: BatchData | JobData) -> dict[str, Any]:
    return {"batchway.amount_usd": data.amount_usd, "batchway.amount_status": data.amount_status}


def _error_type(data: BatchData) -> str | None:
    if data.status not in ("failed", "expired"):
        return None
    first = (data.errors or [{}])[0]
    return str(first.get("code") or data.status)
