"""The header by which a caller says which trace it is in."""

from __future__ import annotations

import pytest

from batchway.core.traceparent import parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f" 00-{TRACE}-{SPAN}-00 ", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-later-versions-add", True),
    ],
)
def test_a_well_formed_header_is_read(header: str, sampled: bool) -> None:
    found = parse(header)
    assert found is not None
    assert (found.trace_id, found.span_id, found.sampled) == (TRACE, SPAN, sampled)
    assert parse(found.header) == found


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "x" * 5000,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
    ],
)
def test_any_other_counts_as_none(header: str | None) -> None:
    assert parse(header) is None
