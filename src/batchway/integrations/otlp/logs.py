"""Every event as a log record, in the trace of its batch when it is about one."""

from __future__ import annotations

from typing import Any

from batchway.core.events import Event, EventType
from batchway.integrations.otlp import attributes as names
from batchway.integrations.otlp.messages import LogRecord
from batchway.integrations.otlp.spans import Style, place

INFO, WARN, ERROR = (9, "INFO"), (13, "WARN"), (17, "ERROR")

SEVERITIES = {
    EventType.BATCH_FAILED: ERROR,
    EventType.BATCH_EXPIRED: WARN,
    EventType.BATCH_CANCELLED: WARN,
    EventType.BATCH_PAUSED: WARN,
    EventType.BUDGET_THRESHOLD: WARN,
}


def log_record(event: Event, now: float, style: Style) -> LogRecord:
    """The record; its body says what happened to whom, `batchway.data.*` are the event's data."""
    number, word = SEVERITIES.get(event.type, INFO)
    about: dict[str, Any] = {
        "event.name": event.type.value,
        "batchway.event.id": event.id,
        "batchway.event.position": event.position,
        "batchway.event.version": event.version,
        "batchway.subject": event.subject,
        "batchway.project": event.project,
        "batchway.key_id": event.key_id,
        **{f"batchway.data.{key}": value for key, value in event.data.items()},
    }
    record = LogRecord(
        time_unix_nano=names.nanoseconds(event.created_at),
        observed_time_unix_nano=names.nanoseconds(now),
        severity_number=number,
        severity_text=word,
        body=names.any_value(f"{event.type.value} {event.subject}"),
        attributes=names.attributes(about),
        event_name=event.type.value,
    )
    if event.type.startswith(("batch.", "job.")):
        at = place(event.subject, event.data.get("traceparent"), style)
        record.trace_id, record.span_id = at.trace_id, at.root
    return record
