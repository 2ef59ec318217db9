"""OTLP bodies read as a backend reads them: protobuf by the official package, JSON by its specification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conformance.receiving import Asked

REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
ITEMS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
IDS = ("traceId", "spanId", "parentSpanId")


def parsed(asked: Asked) -> dict[str, Any]:
    """A body in the form of OTLP's JSON, whichever way it was sent."""
    signal = asked.path.rpartition("/")[2]
    if asked.headers["content-type"] == "application/json":
        return json.loads(asked.body)
    message = REQUESTS[signal].FromString(asked.body)
    assert not _unknown(message)
    found = MessageToDict(message, use_integers_for_enums=True)
    _hex_ids(found)
    return found


def items(asked: list[Asked], signal: str) -> Iterator[dict[str, Any]]:
    """Every span, metric or log record, with its attributes as a plain mapping."""
    outer, inner, name = ITEMS[signal]
    for one in asked:
        if not one.path.endswith(f"/v1/{signal}"):
            continue
        for resource in parsed(one)[outer]:
            for scope in resource[inner]:
                for item in scope[name]:
                    yield item | {"attributes": plain(item.get("attributes", []))}


def plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in attributes}


def _value(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    if kind == "intValue":
        return int(held)
    return [_value(one) for one in held.get("values", [])] if kind == "arrayValue" else held


def _unknown(message: Any) -> list[Any]:
    from google.protobuf.unknown_fields import UnknownFieldSet

    return list(UnknownFieldSet(message))


def _hex_ids(found: Any) -> None:
    import base64

    if isinstance(found, list):
        for one in found:
            _hex_ids(one)
    if isinstance(found, dict):
        for key, value in found.items():
            if key in IDS:
                found[key] = base64.b64decode(value).hex()
            else:
                _hex_ids(value)
