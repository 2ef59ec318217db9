"""The dialect that bodies already have: only the model's name may need to change.

The raw bytes of a body are kept whenever the name is right, so nothing is decoded that need not be.
"""

from __future__ import annotations

import msgspec

from batchway.core.spans import Line
from batchway.wire.lines import body_head


class _Request(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def body_for(line: Line, model: str) -> bytes:
    """The request body, asking for `model`."""
    body = line.request.body
    if body_head.decode(body).model == model:
        return bytes(body)
    fields = _decode(body)
    fields["model"] = msgspec.Raw(_encode(model))
    return _encode(fields)


def line_for(line: Line, model: str, endpoint: str) -> bytes:
    """The whole input line (no newline), asking for `model` at `endpoint`."""
    request = line.request
    if body_head.decode(request.body).model == model and request.url == endpoint:
        return line.raw
    body = msgspec.Raw(body_for(line, model))
    return _encode(_Request(request.custom_id, request.method, endpoint, body))
