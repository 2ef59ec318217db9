"""What a token costs: the operator's own price of a route (`own.py`), else the figure of our own dated tables
(`tables/<kind>.jsonl`) for a provider kind, model, lane and day.

The invariant: a price is a published or configured figure, or None. No name is matched by likeness, and no live price
stands in for a missing batch price, nor a general one for a region with a price of its own. A row is never edited: a
new figure is a new row with the day it begins, so what was priced on an earlier day keeps its price.
`tables/README.md` says where the figures come from, docs/prices.md what is made of them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import msgspec

from batchway.core.jobs import REGIONAL, Route
from batchway.core.money import to_pico
from batchway.core.usage import Usage

TABLES = Path(__file__).parent / "tables"
DATED = re.compile(r"(.+)[-@](?:\d{4}-\d{2}-\d{2}|\d{8})")  # a snapshot's name: the model's, and a day
TUNED = re.compile(rf"((?:{REGIONAL})?ft:[^:]+):.+")  # ft:<model>:<organisation>:<name>:<id>


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Dollars per million tokens; `per_second` is dollars per second that the operator's own endpoint was busy.

    A part of the input without a figure is billed as input, one of the output as output; without that, it is free.
    """

    input: Decimal = Decimal(0)
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    audio_input: Decimal | None = None
    output: Decimal | None = None
    audio_output: Decimal | None = None
    image_output: Decimal | None = None
    per_second: Decimal | None = None


class LongFigures(Figures, frozen=True, kw_only=True, omit_defaults=True):
    """The figures for all tokens of a line that has more input tokens than `above`."""

    above: int


class Row(Figures, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A line of a table.

    It holds from `valid_from` (0:00 UTC) until the model's next row in this lane. A first row without that day is the
    oldest figure on record and answers for all time before the second. `source` names what was read on the day `read`.
    `regional` is what one region's processing multiplies every figure by; without it no surcharge is published.
    """

    model: str
    lane: Literal["native", "executed"]
    valid_from: date | None = None
    long: tuple[LongFigures, ...] = ()
    regional: Decimal | None = None
    source: str
    read: date


class Price(msgspec.Struct, frozen=True, gc=False):
    """Pico-dollars per LLM token. `long` lists what replaces them for lines longer than a number of input tokens.

    `millisecond` is what one busy millisecond of the operator's own endpoint costs beside its tokens.
    """

    input: int
    cached: int
    cache_write: int
    output: int
    source: str
    long: tuple[tuple[int, Price], ...] = ()  # (more input tokens than this, price), ascending
    audio_input: int = 0
    audio_output: int = 0
    image_output: int = 0
    millisecond: int = 0

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
        busy = usage.milliseconds * self.millisecond
        cached, written, heard = usage.cached_tokens, usage.cache_write_tokens, usage.audio_input_tokens
        spoken, drawn = usage.audio_output_tokens, usage.image_output_tokens
        if not (cached or written or heard or spoken or drawn):
            return usage.input_tokens * price.input + usage.output_tokens * price.output + busy
        # What is left is 0 when a provider counted its parts apart.
        fresh = max(usage.input_tokens - cached - written - heard, 0)
        text = max(usage.output_tokens - spoken - drawn, 0)
        return (
            fresh * price.input
            + cached * price.cached
            + written * price.cache_write
            + heard * price.audio_input
            + text * price.output
            + spoken * price.audio_output
            + drawn * price.image_output
            + busy
        )

    def to_json(self) -> dict[str, Any]:
        """The price as plain values, to be stored beside what was accounted at it."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Price:
        """The price that `to_json` was made of."""
        return msgspec.convert(stored, cls)


PARTS = tuple(field.name for field in msgspec.structs.fields(Figures))
F = TypeVar("F", bound=Figures)
Dated = tuple[Sequence[float], Sequence[Price]]  # when each price begins, ascending, and the prices
Lanes = dict[str, Dated]


def read_table(kind: str) -> Sequence[Row]:
    """The rows of a shipped table; none for a kind that has no table."""
    if kind not in _kinds():
        return []
    return msgspec.json.Decoder(Row).decode_lines((TABLES / f"{kind}.jsonl").read_bytes())


class Prices:
    """Every known price. A table is read when its kind is first asked for, and kept.

    `own` holds the operator's rows by account, their models being patterns; see `own.py`.
    """

    def __init__(
        self,
        rows_of: Callable[[str], Sequence[Row]] = read_table,
        own: Mapping[str, Sequence[Row]] = MappingProxyType({}),
    ) -> None:
        self._rows_of = rows_of
        self._kinds: dict[str, dict[str, Lanes]] = {}
        self._own = {account: _by_name(rows) for account, rows in own.items()}

    def of_route(self, route: Route, kind: str, priced_as: str, at: float) -> Price | None:
        """The price of a route at a unix time, whose account is of `kind` and knows its model as `priced_as`.

        The operator's own price goes before that of the tables: the route's, else that of the longest pattern.
        """
        own = self._own.get(route.account, {})
        fitting = (name for name in sorted(own, key=_closeness, reverse=True) if _fits(route.model, name))
        for name in fitting:
            if price := _in_force(own[name], route.lane, at):
                return price
        return self.price(kind, priced_as, route.lane, at)

    def price(self, kind: str, model: str, lane: str, at: float) -> Price | None:
        """The price of `model` in a lane (`native`: the batch price, `executed`: the live one) at a unix time.

        None when it is unknown. A dated snapshot or a fine-tune that has no row in any lane has its model's price (a
        fine-tune: that of the row `ft:<model>`, never of the untuned model).
        """
        table = self._kinds.get(kind)
        if table is None:
            table = self._kinds[kind] = _by_name(self._rows_of(kind))
        lanes = next((table[name] for name in _names(model) if name in table), Lanes())
        return _in_force(lanes, lane, at)


def _kinds() -> set[str]:
    return {path.stem for path in TABLES.glob("*.jsonl")}


def _in_force(lanes: Lanes, lane: str, at: float) -> Price | None:
    starts, prices = lanes.get(lane, ((), ()))
    place = bisect_right(starts, at) - 1
    return prices[place] if place >= 0 else None


def _closeness(pattern: str) -> tuple[bool, int]:
    return "*" not in pattern, len(pattern)


def _fits(model: str, pattern: str) -> bool:
    """Whether a model is meant by a name in which `*` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), model, re.DOTALL) is not None


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
        for named in (row, _in_one_region(row)):
            found.setdefault(named.model, {}).setdefault(named.lane, []).append(named)
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
    def per_token(figure: Decimal | None, without: int) -> int:
        return without if figure is None else to_pico(figure.scaleb(-6))

    whole, output = per_token(figures.input, 0), per_token(figures.output, 0)
    return Price(
        input=whole,
        cached=per_token(figures.cached, whole),
        cache_write=per_token(figures.cache_write, whole),
        output=output,
        source=source,
        audio_input=per_token(figures.audio_input, whole),
        audio_output=per_token(figures.audio_output, output),
        image_output=per_token(figures.image_output, output),
        millisecond=to_pico((figures.per_second or Decimal(0)).scaleb(-3)),
    )


def _in_one_region(row: Row) -> Row:
    """The row of the same model where it is processed in one region."""
    row = msgspec.structs.replace(row, model=REGIONAL + row.model)
    if row.regional is None:
        return row
    longer = tuple(_times(tier, row.regional) for tier in row.long)
    source = f"{row.source}; one region, {row.regional} times"
    return msgspec.structs.replace(_times(row, row.regional), long=longer, source=source)


def _times(figures: F, factor: Decimal) -> F:
    raised = {part: figure * factor for part in PARTS if (figure := getattr(figures, part)) is not None}
    return msgspec.structs.replace(figures, **raised)
