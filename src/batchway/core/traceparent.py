"""The W3C `traceparent` header (Trace Context, level 1): by which a caller says which trace it is in.

A header that is not well-formed counts as none, as the standard wants: it is never a reason to refuse a request.
"""

from __future__ import annotations

import re

import msgspec

FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceParent(msgspec.Struct, frozen=True):
    """The caller's trace and span, as hex; `flags` has 1 set when the caller records its trace."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the caller's part of the trace is recorded."""
        return bool(self.flags & 1)

    @property
    def header(self) -> str:
        """The header, in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse(header: str | None) -> TraceParent | None:
    """What the header says; later versions may have more at the end, which is not read."""
    found = FORM.fullmatch((header or "").strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    if not int(found[2], 16) or not int(found[3], 16):
        return None
    return TraceParent(found[2], found[3], int(found[4], 16))
