#!/usr/bin/env python3
"""Sets three sources of prices against each other: `tests/unit/samples/prices.tsv`, which a test reads.

    python scripts/compare_prices.py build/litellm-1.109.1-*.whl build/metergraph_core-0.7.4-*.whl --date 2026-11-22

A line is a figure that at least two of them know: kind, model, lane, part, then what each says (dollars per million
tokens, `-` where it is silent). The test fails for every disagreement that `price_exceptions.tsv` does not explain.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import make_prices
from price_sources import (
    CATALOG_NAME,
    GENAI_NAME,
    MAP_NAME,
    PARTS,
    check_genai,
    of_catalog,
    of_genai,
    of_map,
    read_catalog,
    read_map,
)

PLACE = Path(__file__).parents[1] / "tests" / "unit" / "samples" / "prices.tsv"
LANES = ("executed", "native")

Figure = tuple[str, str, str, str, Decimal]  # kind, model, lane, part


def figures_of_map(wheel: Path) -> Iterator[Figure]:
    """What the price map says."""
    prices = read_map(wheel)
    for kind, known in make_prices.KINDS.items():
        for name, entry in make_prices.entries_of(known, prices).items():
            for lane in LANES:
                for found in filter(None, (of_map(one, lane) for one in entry)):
                    yield from ((kind, name, lane, part, figure) for part, figure in found.parts.items())


def figures_of_genai(day: date) -> Iterator[Figure]:
    """What genai-prices says of the names that it lists."""
    for kind, known in make_prices.KINDS.items():
        for name in make_prices.listed(known):
            model = make_prices.witness(known, name)
            for lane in LANES:
                found = of_genai(model, lane, day) if model else None
                yield from ((kind, name, lane, part, figure) for part, figure in (found.parts if found else {}).items())


def figures_of_catalog(wheel: Path, day: date) -> Iterator[Figure]:
    """What the catalog says."""
    for kind, name, lane, found in of_catalog(read_catalog(wheel), day):
        yield from ((kind, name, lane, part, figure) for part, figure in found.items())


def main() -> None:
    """Rewrites the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map", type=Path, help="the litellm wheel")
    parser.add_argument("catalog", type=Path, help="the metergraph-core wheel")
    parser.add_argument("--date", type=date.fromisoformat, required=True, help="the day whose figures are compared")
    options = parser.parse_args()
    check_genai()
    said: dict[tuple[str, ...], list[Decimal | None]] = {}
    sources = (
        figures_of_map(options.map),
        figures_of_genai(options.date),
        figures_of_catalog(options.catalog, options.date),
    )
    for place, source in enumerate(sources):
        for *about, figure in source:
            said.setdefault(tuple(map(str, about)), [None] * len(sources))[place] = figure
    order = list(PARTS)
    lines = [f"# {MAP_NAME}, {GENAI_NAME}, {CATALOG_NAME}; the figures in force on {options.date}"]
    for about in sorted(said, key=lambda about: (*about[:3], order.index(about[3]))):
        if sum(figure is not None for figure in said[about]) > 1:
            told = ["-" if figure is None else format(figure.normalize(), "f") for figure in said[about]]
            lines.append("\t".join([*about, *told]))
    PLACE.write_text("\n".join(lines) + "\n")
    sys.stdout.write(f"{PLACE}: {len(lines) - 1} figures\n")


if __name__ == "__main__":
    main()
