"""What a token costs, by provider kind, model, lane and day, out of our own dated tables (`tables/<kind>.jsonl`).

The invariant: a price is a published figure or None. Nothing is derived at run time, no name is matched by likeness,
and no live price stands in for a missing batch price. A row is never edited: a new figure is a new row with the day it
begins, so what was priced on an earlier day keeps its price. `tables/README.md` says where the figures come from.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from batchway.core.money import to_pico
from batchway.core.usage import Usage

TABLES = Path(__file__).parent / "tables"
DATED = re.compile(r"(.+)[-@](?:\d{4}-\d{2}-\d{2}|\d{8})")  # a snapshot's name: the model's, and a day
TUNED = re.compile(r"(ft:[^:]+):.+")  # ft:<model>:<organisation>:<name>:<id>


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Dollars per million tokens. A part of the input without a figure is billed as input; output without one, free."""

    input: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None


class LongFigures(Figures, frozen=True, kw_only=True, omit_defaults=True):
    """The figures for all tokens of a line that has more input tokens than `above`."""

    above: int


class Row(Figures, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A line of a table.

    It holds from `valid_from` (0:00 UTC) until the model's next row in this lane. A first row without that day is the
    oldest figure on record and answers for all time before the second. `source` names what was read on the day `read`.
    """

    model: str
    lane: Literal["native", "executed"]
    valid_from: date | None = None
    long: tuple[LongFigures, ...] = ()
    source: str
    read: date


class Price(msgspec.Struct, frozen=True, gc=False):
    """Pico-dollars per LLM token. `long` lists what replaces them for lines longer than a number of input tokens."""

    input: int
    cached: int
    cache_write: int
    output: int
    source: str
    long: tuple[tuple[int, Price], ...] = ()  # (more input tokens than this, price), ascending

    def for_length(self, input_tokens: int) -> Price:
        """The price of every token of a line with so many input tokens."""
        price = self
        for above, longer in self.long:
            if input_tokens > above:
                price = longer
        return price

    def amount(self, usage: Usage) -> int:
        """What one line costs, in pico-dollars, exactly; its length chooses the tier."""
        price = self.for_length(usage.input_tokens) if self.long else self
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        if not (cached or written):
            return usage.input_tokens * price.input + usage.output_tokens * price.output
        fresh = max(usage.input_tokens - cached - written, 0)  # 0 when a provider counted its parts apart
        return (
            fresh * price.input
            + cached * price.cached
            + written * price.cache_write
            + usage.output_tokens * price.output
        )


Dated = tuple[Sequence[float], Sequence[Price]]  # when each price begins, ascending, and the prices
Lanes = dict[str, Dated]


def read_table(kind: str) -> Sequence[Row]:
    """The rows of a shipped table; none for a kind that has no table."""
    if kind not in _kinds():
        return []
    return msgspec.json.Decoder(Row).decode_lines((TABLES / f"{kind}.jsonl").read_bytes())


class Prices:
    """Every known price. A table is read when its kind is first asked for, and kept."""

    def __init__(self, rows_of: Callable[[str], Sequence[Row]] = read_table) -> None:
        self._rows_of = rows_of
        self._kinds: dict[str, dict[str, Lanes]] = {}

    def price(self, kind: str, model: str, lane: str, at: float) -> Price | None:
        """The price of `model` in a lane (`native`: the batch price, `executed`: the live one) at a unix time.

        None when it is unknown. A dated snapshot or a fine-tune that has no row in any lane has its model's price (a
        fine-tune: that of the row `ft:<model>`, never of the untuned model).
        """
        table = self._kinds.get(kind)
        if table is None:
            table = self._kinds[kind] = _by_name(self._rows_of(kind))
        lanes = next((table[name] for name in _names(model) if name in table), Lanes())
        starts, prices = lanes.get(lane, ((), ()))
        place = bisect_right(starts, at) - 1
        return prices[place] if place >= 0 else None


def _kinds() -> set[str]:
    return {path.stem for path in TABLES.glob("*.jsonl")}


def _names(model: str) -> Iterator[str]:
    yield model
    if tuned := TUNED.fullmatch(model):
        model = tuned[1]
        yield model
    if dated := DATED.fullmatch(model):
        yield dated[1]


def _by_name(rows: Sequence[Row]) -> dict[str, Lanes]:
    found: dict[str, dict[str, list[Row]]] = {}
    for row in sorted(rows, key=_start):
        found.setdefault(row.model, {}).setdefault(row.lane, []).append(row)
    return {model: {lane: _dated(rows) for lane, rows in lanes.items()} for model, lanes in found.items()}


def _dated(rows: Sequence[Row]) -> Dated:
    return [_start(row) for row in rows], [price_of(row) for row in rows]


def _start(row: Row) -> float:
    if row.valid_from is None:
        return float("-inf")
    return datetime.combine(row.valid_from, time(), UTC).timestamp()


def price_of(row: Row) -> Price:
    """A row in pico-dollars per token; ValueError when a figure is finer than that."""
    source = f"{row.source} ({row.read})"
    longer = tuple((tier.above, _flat(tier, source)) for tier in sorted(row.long, key=lambda tier: tier.above))
    flat = _flat(row, source)
    return msgspec.structs.replace(flat, long=longer) if longer else flat


def _flat(figures: Figures, source: str) -> Price:
    whole = _per_token(figures.input)
    cached = whole if figures.cached is None else _per_token(figures.cached)
    written = whole if figures.cache_write is None else _per_token(figures.cache_write)
    output = 0 if figures.output is None else _per_token(figures.output)
    return Price(whole, cached, written, output, source)


def _per_token(dollars_per_million: Decimal) -> int:
    return to_pico(dollars_per_million.scaleb(-6))
