"""A multipart body as it streams: small text fields are collected, the one file in it is handed on in pieces.

Fields may stand before and after the file (clients send either). `content` ends when the whole body has been read, so
whoever has consumed it may ask for every field. Nothing is spooled: memory holds one piece.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import msgspec
import multipart
from multipart import MultipartError, MultipartSegment, PushMultipartParser
from starlette.requests import Request

from batchway.core.errors import RequestError, TooLarge
from batchway.server import decoding

S = TypeVar("S", bound=msgspec.Struct)

FORM_OVERHEAD = 1 << 20  # what boundaries, headers and fields may add to the file
FIELD_BYTES = 64 << 10
PARTS = 64

Event = MultipartSegment | bytes | bytearray | None


class Form:
    """The form of one request, whose file stands in the field `name` and may have `limit` bytes."""

    def __init__(self, request: Request, name: str, limit: int) -> None:
        decoding.refuse_length(request, limit + FORM_OVERHEAD)
        self.filename: str | None = None
        self._name = name
        self._limit = limit
        self._fields: dict[str, str] = {}
        self._has_file = False
        self._parser = _parser(request)
        self._events = self._parse(request)

    def fields(self, struct: type[S]) -> S:
        """The fields read so far as `struct`; RequestError names what is missing or wrong."""
        values: dict[str, Any] = {self._name: b""} if self._has_file else {}
        for name, value in self._fields.items():
            decoding.refuse_nul(name, value)
            outer, _, inner = name.partition("[")
            if inner.endswith("]") and inner != "]":
                nested = values.setdefault(outer, {})
                if isinstance(nested, dict):
                    nested[inner[:-1]] = value
            else:
                values[outer] = value
        return decoding.form(struct, values)

    def has(self, field: str) -> bool:
        """True when this field has been read."""
        return field in self._fields

    async def open(self) -> None:
        """Reads up to the file; RequestError when the form has none."""
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.name == self._name:
                    self._has_file = True
                    self.filename = _filename(event)
                    return
                await self._field(event)
        raise RequestError(
            f"Missing required parameter: '{self._name}'.", code="missing_required_parameter", param=self._name
        )

    async def content(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file in pieces; then the fields behind it are read."""
        size = 0
        async for event in self._events:
            if event is None:
                break
            if isinstance(event, bytes | bytearray):
                size += len(event)
                if size > self._limit:
                    raise TooLarge(f"The file is too large: at most {self._limit} bytes.", param=self._name)
                yield bytes(event)
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.name == self._name:
                    raise RequestError(f"Send one '{self._name}' at a time.", param=self._name)
                await self._field(event)

    async def _field(self, segment: MultipartSegment) -> None:
        value = bytearray()
        async for event in self._events:
            if event is None:
                break
            if isinstance(event, bytes | bytearray):
                value += event
                if len(value) > FIELD_BYTES:
                    raise TooLarge(f"A form field is longer than {FIELD_BYTES} bytes.", param=segment.name)
        try:
            self._fields[segment.name or ""] = value.decode()
        except UnicodeDecodeError:
            raise RequestError("A form field is not UTF-8.", param=segment.name) from None

    async def _parse(self, request: Request) -> AsyncGenerator[Event, None]:
        try:
            async for piece in request.stream():
                if piece:
                    for event in self._parser.parse(piece):
                        yield event
            self._parser.close()
        except MultipartError as error:
            raise RequestError(f"The multipart form is malformed: {error}.", code="invalid_multipart") from None


def _parser(request: Request) -> PushMultipartParser:
    kind, options = _header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not options.get("boundary"):
        message = "This request needs a body of the type multipart/form-data with a boundary."
        raise RequestError(message, code="invalid_content_type")
    try:
        return PushMultipartParser(options["boundary"], max_segment_count=PARTS, max_header_size=8192)
    except MultipartError as error:
        raise RequestError(f"The multipart form is malformed: {error}.", code="invalid_multipart") from None


def _header(value: str) -> tuple[str, dict[str, str]]:
    kind, options = cast("tuple[str, dict[str, str]]", multipart.parse_options_header(value))
    return kind, options


def _filename(segment: MultipartSegment) -> str | None:
    if segment.filename is not None:
        return segment.filename
    _, options = _header(dict(segment.headerlist)["Content-Disposition"])
    charset, _, encoded = options.get("filename*", "").partition("''")
    return unquote(encoded, encoding=charset or "utf-8", errors="replace") or None
