"""The operator's own prices, as `prices` of the settings tells them: rows like those of the tables, by account.

    prices:
      local/llama: {input: "0.10", output: "0.40"}                      # dollars per million tokens, in both lanes
      local/*: {per_second: "0.0004"}                                   # of what the endpoint is busy with lines
      main/gpt-4o: [{lane: native, input: 1, output: 4}, {lane: executed, input: 2, output: 8}]

The invariant: an entry either says what each of its lanes costs, or is a ConfigError that names the place and the
nearest good name. What is priced 0 costs 0: that is not unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Literal, get_args

import msgspec

from batchway.billing.prices import PARTS, Figures, Row, price_of
from batchway.core.errors import ConfigError

Lane = Literal["native", "executed"]
SOURCE = "prices of the settings"


class OwnPrice(Figures, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a route costs. Without `lane`, in both lanes; from `valid_from` (0:00 UTC) on, without it since ever."""

    lane: Lane | None = None
    valid_from: date | None = None


FIELDS = [field.name for field in msgspec.structs.fields(OwnPrice)]


def own_rows(prices: Mapping[str, dict[str, Any] | list[dict[str, Any]]], today: date) -> dict[str, list[Row]]:
    """The rows of every account, as read `today`; ConfigError when an entry cannot be meant."""
    rows: dict[str, list[Row]] = {}
    for route, told in prices.items():
        account, slash, model = route.partition("/")
        if not (account and slash and model):
            raise ConfigError(f"prices.{route}: write it '<account>/<model>', such as 'local/llama' or 'local/*'")
        entries = told if isinstance(told, list) else [told]
        of_route = [row for entry in entries for row in _rows(f"prices.{route}", model, entry, today)]
        places = [(row.lane, row.valid_from) for row in of_route]
        if len(set(places)) < len(places):
            raise ConfigError(f"prices.{route}: two prices for the same lane and day; add 'lane' or 'valid_from'")
        rows.setdefault(account, []).extend(of_route)
    return rows


def _rows(place: str, model: str, entry: dict[str, Any], today: date) -> Sequence[Row]:
    own = _read(place, entry)
    lanes: tuple[Lane, ...] = (own.lane,) if own.lane else get_args(Lane)
    figures = {part: getattr(own, part) for part in PARTS}
    rows = [
        Row(model=model, lane=lane, valid_from=own.valid_from, source=SOURCE, read=today, **figures) for lane in lanes
    ]
    try:
        price_of(rows[0])
    except ValueError:
        raise ConfigError(f"{place}: a figure is finer than a pico-dollar a token") from None
    return rows


def _read(place: str, entry: dict[str, Any]) -> OwnPrice:
    for field in entry:
        if field not in FIELDS:
            near = difflib.get_close_matches(str(field), FIELDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(FIELDS)}"
            raise ConfigError(f"{place}: unknown field '{field}'; {hint}")
    if not entry.keys() & {*PARTS}:
        raise ConfigError(f"{place}: say at least one of {', '.join(PARTS)} (0 for what costs nothing)")
    try:
        # str: YAML's 0.1 as the decimal that was written.
        exact = {name: str(value) if isinstance(value, float) else value for name, value in entry.items()}
        own = msgspec.convert(exact, OwnPrice, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {error}") from None
    for part in PARTS:
        figure: Decimal | None = getattr(own, part)
        if figure is not None and not (figure.is_finite() and figure >= 0):
            raise ConfigError(f"{place}.{part}: {figure} is not an amount of dollars")
    return own
