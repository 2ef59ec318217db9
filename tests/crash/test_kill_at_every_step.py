"""kill -9 exactly before and after each commit, each call of a provider, each stored object, each hand-over."""

from __future__ import annotations

import pytest

from tests.crash.steps import discover, faults, first_of_each, mixed_lines, slowest, try_all

SOON = 25.0  # seconds: a start, a submit that is waited for, two looks; no lease of the dead is waited for
LINES = mixed_lines(30)
# One for each promise: submit once, answers once, cost once, one ending.
CRUCIAL = (
    "after db create._store #1",
    "before db split._store #1",
    "before call POST /batches #1",
    "after call POST /batches #1",
    "before call GET /batches/:id #1",
    "after db run._record #1",
    "after storage answers.jsonl #1",
    "after db collect._collected #2",
    "before db account._post #1",
    "after db account._post #3",
    "after db finalize._begin #1",
    "before db finalize._end #1",
    "after db finalize._end #1",
)


def test_every_promise_holds_after_a_death_at_the_crucial_points(tmp_path):
    runs = try_all(tmp_path, CRUCIAL, content=LINES)
    assert faults(runs) == {}
    assert [point for point, run in runs.items() if not run.died] == []
    assert [point for point, run in runs.items() if run.seconds > SOON] == [], slowest(runs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_promise_holds_after_a_death_at_any_point(tmp_path):
    points = first_of_each(discover(tmp_path, content=LINES), times=3)
    runs = try_all(tmp_path, points, content=LINES)
    assert faults(runs) == {}
    unreached = [point for point, run in runs.items() if not run.died]
    assert [point for point in unreached if point.endswith("#1")] == []
    print(f"{len(runs) - len(unreached)} deaths; the slowest: {slowest(runs)}")
