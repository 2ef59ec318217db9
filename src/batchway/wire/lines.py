"""The lines of input and output files, typed for speed: bodies stay raw JSON and are never decoded here.

A success is `error == null` and a status in 200..299; everything else goes to the error file.
"""

from __future__ import annotations

import msgspec


class BodyHead(msgspec.Struct, gc=False):
    """What a body must be known by to be routed; the rest is skipped, not checked."""

    model: str | None = None


class InputLine(msgspec.Struct, gc=False):
    """One request of an input file; `body` is the raw JSON of the request."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class LineResponse(msgspec.Struct, kw_only=True):
    """The HTTP answer that one line got."""

    status_code: int
    request_id: str = ""
    body: msgspec.Raw


class LineError(msgspec.Struct, kw_only=True):
    """Why a line was not executed, such as `batch_expired` or `batch_cancelled`."""

    code: str
    message: str


class OutputLine(msgspec.Struct, kw_only=True):
    """One line of an output or error file."""

    id: str
    custom_id: str
    response: LineResponse | None = None
    error: LineError | None = None

    @property
    def ok(self) -> bool:
        """True when this line belongs to the output file."""
        return self.error is None and self.response is not None and 200 <= self.response.status_code < 300


input_line = msgspec.json.Decoder(InputLine)
body_head = msgspec.json.Decoder(BodyHead)
output_line = msgspec.json.Decoder(OutputLine)
encode = msgspec.json.Encoder().encode


def error_line(line_id: str, custom_id: str, code: str, message: str) -> bytes:
    """The JSON of a line that was not executed, without a newline."""
    return encode(OutputLine(id=line_id, custom_id=custom_id, error=LineError(code=code, message=message)))
