from __future__ import annotations

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from batchway.core.fingerprints import Fingerprints
from batchway.core.linecheck import Findings, LineCheck
from batchway.core.spans import decode_index
from batchway.wire.lines import input_line

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
good_body = st.fixed_dictionaries(
    {"model": st.sampled_from(["a", "b"]), "messages": st.lists(anything, max_size=3)},
    optional={"max_tokens": st.integers(1, 9), "tools": anything, "stream": st.just(False)},
)
good = st.fixed_dictionaries(
    {
        "custom_id": text.filter(bool),
        "method": st.just("POST"),
        "url": st.just("/v1/chat/completions"),
        "body": good_body,
    }
)
doubtful = st.fixed_dictionaries(
    {},
    optional={
        "custom_id": text | anything,
        "method": st.sampled_from(["POST", "GET", None]),
        "url": st.sampled_from(["/v1/chat/completions", "/v1/embeddings", 1]),
        "body": st.dictionaries(st.sampled_from(["model", "messages", "input", "stream", "n", "max_tokens"]), anything)
        | anything,
    },
)
encoded = (good | doubtful | anything).flatmap(
    lambda value: st.sampled_from([json.dumps(value).encode(), json.dumps(value, ensure_ascii=False).encode()])
)
raw_line = encoded | st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")) | st.just(b"")


def checked(data: bytes, cuts: list[int]) -> Findings:
    check = LineCheck()
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(borders):
        check.feed(data[start:end])
    return check.finish()


@settings(max_examples=300, deadline=None)
@given(st.lists(raw_line, max_size=8), st.lists(st.integers(0, 10_000), max_size=5), st.sampled_from([b"", b"\n"]))
def test_any_bytes_cut_anywhere_give_the_same_findings(lines, cuts, end):
    data = b"\n".join(lines) + end
    assert checked(data, cuts) == checked(data, [])


@settings(max_examples=300, deadline=None)
@given(st.lists(raw_line, max_size=8))
def test_every_line_is_either_tallied_or_faulty_and_clean_ones_can_be_read_again(lines):
    data = b"".join(line + b"\n" for line in lines)
    found = checked(data, [])
    faulty = {fault.line for fault in found.faults}
    used = [number for number, line in enumerate(lines, 1) if line.strip()]
    assert found.lines == (used[-1] if used else 0)
    hard = {fault.line for fault in found.faults if (fault.code, fault.param) != ("invalid_request", "body.model")}
    assert sum(stats.lines for stats in found.models.values()) == found.lines - len(hard - {None})
    assert sum(found.urls.values()) == sum(stats.lines for stats in found.models.values())
    assert len(found.faults) == found.fault_count == len(faulty)
    for number in set(used) - faulty:
        request = input_line.decode(lines[number - 1])
        assert json.loads(bytes(request.body))["model"] in found.models
    blocks = decode_index(found.index).blocks
    assert sum(tally.lines for block in blocks for tally in block.models.values()) == sum(
        stats.lines for stats in found.models.values()
    )
    for block in blocks:
        assert data[: block.offset].count(b"\n") == block.first_line - 1


@settings(max_examples=200, deadline=None)
@given(st.lists(good, min_size=1, max_size=8, unique_by=lambda line: line["custom_id"]), st.booleans())
def test_good_lines_have_no_fault(lines, ascii_only):
    data = "".join(json.dumps(line, ensure_ascii=ascii_only) + "\n" for line in lines).encode()
    found = checked(data, [])
    assert found.faults == []
    assert found.lines == len(lines)


@settings(max_examples=100, deadline=None)
@given(st.lists(text), st.integers(1, 4))
def test_fingerprints_are_a_set(names, fill):
    seen, real = Fingerprints(), set[str]()
    seen._room = fill  # splits begin at once
    for name in names:
        assert seen.add(name) == (name not in real)
        real.add(name)
