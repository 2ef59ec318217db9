"""The messages of OTLP 1.x that we send, and their two encodings: protobuf and JSON.

Field names and numbers are those of opentelemetry-proto 1.x (read 2026-11-22); `WIRE` says of each field its number and
how it is written. In JSON, ids are hex and 64-bit whole numbers are strings, as the OTLP specification wants, so that
is how they are held: "id" and "long" fields are strings here. Both encodings of a message say the same: a test parses
them with the official package, which is not needed at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from struct import Struct, pack
from typing import Any, ClassVar, Literal

import msgspec

Wire = Mapping[str, tuple[int, str]]
Protocol = Literal["http/protobuf", "http/json"]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf's wire types


class Message(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One message; a field at its default is not sent."""

    WIRE: ClassVar[Wire] = {}


class ArrayValue(Message):
    """Several values."""

    values: Sequence[AnyValue] = ()
    WIRE: ClassVar[Wire] = {"values": (1, "messages")}


class AnyValue(Message):
    """The value of an attribute or the body of a log record; exactly one field is set."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: str | None = None
    double_value: float | None = None
    array_value: ArrayValue | None = None
    WIRE: ClassVar[Wire] = {
        "string_value": (1, "text"),
        "bool_value": (2, "bool"),
        "int_value": (3, "int64"),
        "double_value": (4, "double"),
        "array_value": (5, "message"),
    }


class KeyValue(Message):
    """An attribute."""

    key: str
    value: AnyValue
    WIRE: ClassVar[Wire] = {"key": (1, "text"), "value": (2, "message")}


class Resource(Message):
    """Who speaks."""

    attributes: Sequence[KeyValue] = ()
    WIRE: ClassVar[Wire] = {"attributes": (1, "messages")}


class Scope(Message):
    """What part of it speaks."""

    name: str
    version: str = ""
    WIRE: ClassVar[Wire] = {"name": (1, "text"), "version": (2, "text")}


class SpanEvent(Message):
    """A moment within a span."""

    time_unix_nano: str
    name: str
    WIRE: ClassVar[Wire] = {"time_unix_nano": (1, "fixed64"), "name": (2, "text")}


class Link(Message):
    """A span elsewhere that has to do with this one."""

    trace_id: str
    span_id: str
    flags: int = 0
    WIRE: ClassVar[Wire] = {"trace_id": (1, "hex"), "span_id": (2, "hex"), "flags": (6, "fixed32")}


class Status(Message):
    """How a span ended: code 2 is an error."""

    message: str = ""
    code: int = 0
    WIRE: ClassVar[Wire] = {"message": (2, "text"), "code": (3, "varint")}


class Span(Message):
    """Something that took time. Kinds: 1 internal, 3 client."""

    trace_id: str
    span_id: str
    name: str
    start_time_unix_nano: str
    end_time_unix_nano: str
    parent_span_id: str = ""
    kind: int = 1
    attributes: Sequence[KeyValue] = ()
    events: Sequence[SpanEvent] = ()
    links: Sequence[Link] = ()
    status: Status | None = None
    flags: int = 0
    WIRE: ClassVar[Wire] = {
        "trace_id": (1, "hex"),
        "span_id": (2, "hex"),
        "parent_span_id": (4, "hex"),
        "name": (5, "text"),
        "kind": (6, "varint"),
        "start_time_unix_nano": (7, "fixed64"),
        "end_time_unix_nano": (8, "fixed64"),
        "attributes": (9, "messages"),
        "events": (11, "messages"),
        "links": (13, "messages"),
        "status": (15, "message"),
        "flags": (16, "fixed32"),
    }


class LogRecord(Message):
    """One event as a line of a log."""

    time_unix_nano: str
    observed_time_unix_nano: str
    severity_number: int
    severity_text: str
    body: AnyValue
    attributes: Sequence[KeyValue] = ()
    trace_id: str = ""
    span_id: str = ""
    event_name: str = ""
    WIRE: ClassVar[Wire] = {
        "time_unix_nano": (1, "fixed64"),
        "severity_number": (2, "varint"),
        "severity_text": (3, "text"),
        "body": (5, "message"),
        "attributes": (6, "messages"),
        "trace_id": (9, "hex"),
        "span_id": (10, "hex"),
        "observed_time_unix_nano": (11, "fixed64"),
        "event_name": (12, "text"),
    }


class NumberPoint(Message):
    """One value of a sum."""

    start_time_unix_nano: str
    time_unix_nano: str
    attributes: Sequence[KeyValue] = ()
    as_double: float | None = None
    as_int: str | None = None
    WIRE: ClassVar[Wire] = {
        "start_time_unix_nano": (2, "fixed64"),
        "time_unix_nano": (3, "fixed64"),
        "as_double": (4, "double"),
        "as_int": (6, "sfixed64"),
        "attributes": (7, "messages"),
    }


class HistogramPoint(Message):
    """One distribution of a histogram; `bucket_counts` has one more than `explicit_bounds`."""

    start_time_unix_nano: str
    time_unix_nano: str
    count: str
    attributes: Sequence[KeyValue] = ()
    sum: float | None = None
    bucket_counts: Sequence[str] = ()
    explicit_bounds: Sequence[float] = ()
    min: float | None = None
    max: float | None = None
    WIRE: ClassVar[Wire] = {
        "start_time_unix_nano": (2, "fixed64"),
        "time_unix_nano": (3, "fixed64"),
        "count": (4, "fixed64"),
        "sum": (5, "double"),
        "bucket_counts": (6, "fixed64s"),
        "explicit_bounds": (7, "doubles"),
        "attributes": (9, "messages"),
        "min": (11, "double"),
        "max": (12, "double"),
    }


class Sum(Message):
    """Points that add up. Temporality: 1 delta, 2 cumulative."""

    data_points: Sequence[NumberPoint]
    aggregation_temporality: int
    is_monotonic: bool = False
    WIRE: ClassVar[Wire] = {
        "data_points": (1, "messages"),
        "aggregation_temporality": (2, "varint"),
        "is_monotonic": (3, "bool"),
    }


class Histogram(Message):
    """Points of a distribution."""

    data_points: Sequence[HistogramPoint]
    aggregation_temporality: int
    WIRE: ClassVar[Wire] = {"data_points": (1, "messages"), "aggregation_temporality": (2, "varint")}


class Metric(Message):
    """All points of one instrument."""

    name: str
    description: str
    unit: str
    sum: Sum | None = None
    histogram: Histogram | None = None
    WIRE: ClassVar[Wire] = {
        "name": (1, "text"),
        "description": (2, "text"),
        "unit": (3, "text"),
        "sum": (7, "message"),
        "histogram": (9, "message"),
    }


class Scoped(Message):
    """What one scope has to say: one of the three."""

    scope: Scope
    spans: Sequence[Span] = ()
    metrics: Sequence[Metric] = ()
    log_records: Sequence[LogRecord] = ()
    WIRE: ClassVar[Wire] = {
        "scope": (1, "message"),
        "spans": (2, "messages"),
        "metrics": (2, "messages"),
        "log_records": (2, "messages"),
    }


class Resourced(Message):
    """What one resource has to say: one of the three."""

    resource: Resource
    scope_spans: Sequence[Scoped] = ()
    scope_metrics: Sequence[Scoped] = ()
    scope_logs: Sequence[Scoped] = ()
    WIRE: ClassVar[Wire] = {
        "resource": (1, "message"),
        "scope_spans": (2, "messages"),
        "scope_metrics": (2, "messages"),
        "scope_logs": (2, "messages"),
    }


class Export(Message):
    """The body of a POST: one of the three."""

    resource_spans: Sequence[Resourced] = ()
    resource_metrics: Sequence[Resourced] = ()
    resource_logs: Sequence[Resourced] = ()
    WIRE: ClassVar[Wire] = {
        "resource_spans": (1, "messages"),
        "resource_metrics": (1, "messages"),
        "resource_logs": (1, "messages"),
    }


json = msgspec.json.Encoder().encode


def encoder(protocol: Protocol) -> Callable[[Message], bytes | msgspec.Raw]:
    """What encodes a message; an encoded one may stand in another in its place."""
    return protobuf if protocol == "http/protobuf" else lambda message: msgspec.Raw(json(message))


def protobuf(message: Message) -> bytes:
    """The message in protobuf's binary form."""
    out = bytearray()
    for name, tag, kind, write in _fields(type(message)):
        value = getattr(message, name)
        if value is None or value in ("", ()):
            continue
        if kind == "messages":
            for one in value:
                inner = one if isinstance(one, bytes) else protobuf(one)
                out += tag + _varint(len(inner)) + inner
        elif kind == "message":
            inner = protobuf(value)
            out += tag + _varint(len(inner)) + inner
        else:
            out += tag + write(value)
    return bytes(out)


@cache
def _fields(kind: type[Message]) -> list[tuple[str, bytes, str, Callable[[Any], bytes]]]:
    """(name, tag, how, writer) of each field, in the order of their numbers' table."""
    found: list[tuple[str, bytes, str, Callable[[Any], bytes]]] = []
    for name, (number, how) in kind.WIRE.items():
        wire_type, write = _WRITERS.get(how, (LENGTH, bytes))
        found.append((name, _varint(number << 3 | wire_type), how, write))
    return found


def rejected(body: bytes, media: str) -> int:
    """How many items an answer with status 200 says were not taken (`partial_success`); 0 for an odd answer."""
    if "json" in media:
        try:
            return int(msgspec.json.decode(body, type=_Answer).partial_success.rejected)
        except (msgspec.MsgspecError, ValueError):
            return 0
    partial = _field(body, LENGTH)
    count = _field(partial, VARINT) if isinstance(partial, bytes) else None
    return count if isinstance(count, int) else 0


class _Partial(msgspec.Struct, rename="camel", frozen=True):
    rejected_spans: int | str = 0
    rejected_data_points: int | str = 0
    rejected_log_records: int | str = 0

    @property
    def rejected(self) -> int | str:
        return self.rejected_spans or self.rejected_data_points or self.rejected_log_records


class _Answer(msgspec.Struct, rename="camel"):
    partial_success: _Partial = _Partial()


def _field(body: bytes, wire_type: int) -> bytes | int | None:
    """The first field, when it has number 1 and this type: there is no other in what we read."""
    if not body or body[0] != (1 << 3 | wire_type):
        return None
    number, at = 0, 1
    for shift in range(0, 64, 7):
        if at >= len(body):
            return None
        number |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:
            break
    return number if wire_type == VARINT else body[at : at + number]


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _SMALL[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


_SMALL = [bytes([number]) for number in range(0x80)]

_WRITERS: Mapping[str, tuple[int, Callable[[Any], bytes]]] = {
    "text": (LENGTH, lambda value: _sized(value.encode(errors="replace"))),
    "hex": (LENGTH, lambda value: _sized(bytes.fromhex(value))),
    "bool": (VARINT, _varint),
    "varint": (VARINT, _varint),
    "int64": (VARINT, lambda value: _varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF)),
    "fixed32": (FIXED32, Struct("<I").pack),
    "fixed64": (FIXED64, lambda value: pack("<Q", int(value))),
    "sfixed64": (FIXED64, lambda value: pack("<q", int(value))),
    "double": (FIXED64, Struct("<d").pack),
    "fixed64s": (LENGTH, lambda value: _sized(pack(f"<{len(value)}Q", *map(int, value)))),
    "doubles": (LENGTH, lambda value: _sized(pack(f"<{len(value)}d", *value))),
}
