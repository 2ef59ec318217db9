"""Every grouping's sums are those of the ledger, to the pico-dollar, on both databases."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchway.db.engine import Database
from batchway.pipeline.costs import results
from tests.properties.cost_recount import batch_rows, correction_rows, fill, post_rows, questions, recount
from tests.stages.world import blank, emptied

SLOW_TO_OPEN = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW_TO_OPEN)
@given(
    made=st.lists(batch_rows, min_size=3, max_size=3),
    posts=st.lists(post_rows, max_size=12),
    corrected=st.lists(correction_rows, max_size=4),
    asked=st.lists(questions, min_size=1, max_size=8),
)
def test_sums_are_those_of_the_ledger_to_the_pico_dollar(request, kind, made, posts, corrected, asked) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "db").write_bytes(blank())
        on_sqlite = kind == "sqlite"
        db = Database(f"sqlite:///{folder}/db" if on_sqlite else emptied(request.getfixturevalue("postgres")))
        try:
            db.write_now(fill, made, posts, corrected)
            for question in asked:
                found = db.write_now(results, question)
                told = {
                    (day, tuple(one.group.values()), tuple((one.tags or {}).values())): list(one.figures.values())
                    for day, several in found.items()
                    for one in several
                }
                assert told == db.write_now(recount, question), question
        finally:
            db.close()
