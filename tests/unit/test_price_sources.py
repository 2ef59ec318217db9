"""Three sources of prices against each other and against our tables. scripts/compare_prices.py writes what is read."""

from __future__ import annotations

import re
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from batchway.billing.prices import Row, read_table

SAMPLES = Path(__file__).parent / "samples"
SCRIPTS = Path(__file__).parents[2] / "scripts"


def table(name: str) -> list[list[str]]:
    lines = (SAMPLES / name).read_text().splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


FIGURES = table("prices.tsv")
HEAD = (SAMPLES / "prices.tsv").read_text().splitlines()[0]
DAY = date.fromisoformat(HEAD.rsplit(maxsplit=1)[1])


def disagreements(figures: list[list[str]]) -> list[list[str]]:
    return [line for line in figures if len({told for told in line[4:7] if told != "-"}) > 1]


def in_force(kind: str, model: str, lane: str) -> Row | None:
    rows = [row for row in read_table(kind) if (row.model, row.lane) == (model, lane)]
    begun = [row for row in rows if row.valid_from is None or row.valid_from <= DAY]
    return max(begun, key=lambda row: row.valid_from or date.min, default=None)


def test_every_disagreement_of_the_sources_is_reviewed_with_a_reason_and_no_review_is_stale() -> None:
    reviewed = table("price_exceptions.tsv")
    assert [line[:7] for line in reviewed] == disagreements(FIGURES)
    assert all(len(line) == 8 and len(line[7]) > 20 for line in reviewed)


def test_a_disagreement_is_seen_whoever_differs() -> None:
    agreed = ["k", "m", "native", "input", "1", "1", "-"]
    assert disagreements([agreed]) == []
    for changed in (["1", "2", "-"], ["1", "1", "2"], ["-", "1", "2"]):
        assert disagreements([agreed[:4] + changed])


def test_the_tables_say_what_the_sources_agree_on() -> None:
    compared = 0
    for kind, model, lane, part, *told in FIGURES:
        row = in_force(kind, model, lane)
        said = {Decimal(figure) for figure in told if figure != "-"}
        if row is None or len(said) > 1:
            continue
        compared += 1
        assert {getattr(row, part)} == said, (kind, model, lane, part)
    assert compared > 1000


def test_where_two_of_three_agree_a_row_does_not_follow_the_third() -> None:
    for kind, model, lane, part, *told in disagreements(FIGURES):
        row = in_force(kind, model, lane)
        usual = max(told, key=told.count)
        if row is not None and told.count(usual) == 2 and usual != "-":
            assert getattr(row, part) == Decimal(usual), (kind, model, lane, part)


@pytest.fixture(scope="module")
def compare():
    sys.path.append(str(SCRIPTS))
    import compare_prices

    return compare_prices


def test_the_committed_figures_are_those_of_the_installed_package(compare) -> None:
    said = {(kind, model, lane, part): figure for kind, model, lane, part, figure in compare.figures_of_genai(DAY)}
    committed = {tuple(line[:4]): Decimal(line[5]) for line in FIGURES if line[5] != "-"}
    assert len(committed) > 500
    assert not {about for about, figure in committed.items() if said.get(about) != figure}


def test_the_committed_figures_name_the_versions_and_the_day_they_are_of(compare) -> None:
    assert (
        f"# {compare.MAP_NAME}, {compare.GENAI_NAME}, {compare.CATALOG_NAME}; the figures in force on {DAY}"
    ) == HEAD
    assert re.fullmatch(r"litellm (\S+)", compare.MAP_NAME)[1] in (SCRIPTS.parent / "Makefile").read_text()
