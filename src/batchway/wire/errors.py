"""OpenAI's error envelope: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import msgspec


class ErrorBody(msgspec.Struct, kw_only=True):
    """What went wrong and what to do next; `param` names the field at fault, or is null."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(msgspec.Struct, kw_only=True, omit_defaults=False):
    """The body of every answer that is not a success."""

    error: ErrorBody
    faults: list[LineFault] | msgspec.UnsetType = msgspec.UNSET


class LineFault(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One fault of an input file; `line` counts from 1, null when it is about the whole file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
