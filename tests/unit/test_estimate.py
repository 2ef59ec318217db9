from __future__ import annotations

from datetime import date
from decimal import Decimal

import msgspec

from batchway.billing.estimate import HIGH_OUTPUT, LIKELY_OUTPUT, LOW_OUTPUT, Demand, estimate, high_amount
from batchway.billing.prices import LongFigures, Prices, Row
from batchway.core.jobs import Route

AT = 1_790_000_000.0


def row(model: str, lane: str = "native", output: str | None = "4", long: tuple[LongFigures, ...] = ()) -> Row:
    figures = {"input": Decimal(2), "output": Decimal(output) if output else None}
    return Row(model=model, lane=lane, long=long, source="somewhere", read=date(2026, 11, 22), **figures)


LONG = row("long", long=(LongFigures(above=1000, input=Decimal(3), output=Decimal(5)),))
ROWS = [row("m"), row("m", "executed", "8"), row("embed", output=None), LONG]
PRICES = Prices(lambda kind: ROWS if kind == "k" else [])


def demand(model: str = "m", lane: str = "native", **counts: int) -> Demand:
    numbers = {"lines": 10, "input_tokens": 1000, "output_limit": 0, "unlimited": 0} | counts
    return Demand(route=Route(account="acc", model=model, lane=lane), kind="k", **numbers)


def test_limits_bound_the_output_from_above() -> None:
    found = estimate([demand(output_limit=50)], PRICES, AT)
    assert msgspec.structs.astuple(found.output_tokens) == (50, 50, 50)
    found = estimate([demand(output_limit=100_000)], PRICES, AT)
    assert msgspec.structs.astuple(found.output_tokens) == (10 * LOW_OUTPUT, 10 * LIKELY_OUTPUT, 100_000)


def test_a_line_without_a_limit_counts_with_the_declared_default() -> None:
    found = estimate([demand(output_limit=30, unlimited=7)], PRICES, AT)
    assert found.output_tokens.low == 30 + 7 * LOW_OUTPUT
    assert found.output_tokens.likely == 30 + 7 * LIKELY_OUTPUT
    assert found.output_tokens.high == 30 + 7 * HIGH_OUTPUT


def test_amounts_are_decimal_dollars_and_the_high_one_is_held() -> None:
    found = estimate([demand(output_limit=100)], PRICES, AT)
    assert msgspec.structs.astuple(found.amount_usd) == ("0.0024", "0.0024", "0.0024")
    assert high_amount(found) == (1000 * 2 + 100 * 4) * 10**6
    assert found.reason is None


def test_each_lane_is_estimated_at_its_own_price() -> None:
    native = estimate([demand(output_limit=100)], PRICES, AT)
    executed = estimate([demand(lane="executed", output_limit=100)], PRICES, AT)
    assert high_amount(executed) - high_amount(native) == 100 * 4 * 10**6


def test_a_batch_of_several_routes_is_the_sum_of_them() -> None:
    parts = [demand(output_limit=100), demand(lane="executed", unlimited=10), demand("embed", unlimited=10)]
    whole = estimate(parts, PRICES, AT)
    assert whole.lines == 30
    assert whole.input_tokens == 3000
    assert high_amount(whole) == sum(high_amount(estimate([part], PRICES, AT)) for part in parts)
    assert [(route.provider, route.model, route.lane) for route in whole.routes] == [
        ("acc", "m", "native"),
        ("acc", "m", "executed"),
        ("acc", "embed", "native"),
    ]


def test_an_embedding_has_no_output() -> None:
    found = estimate([demand("embed", unlimited=10)], PRICES, AT)
    assert msgspec.structs.astuple(found.output_tokens) == (0, 0, 0)
    assert high_amount(found) == 1000 * 2 * 10**6


def test_one_unknown_price_makes_the_whole_amount_unknown_with_a_reason() -> None:
    found = estimate([demand(output_limit=100), demand("mystery", unlimited=10)], PRICES, AT)
    assert found.amount_usd is None
    assert high_amount(found) is None
    assert found.reason == "The price of acc/mystery (native lane) is unknown."
    assert found.routes[0].amount_usd is not None
    assert found.routes[1].amount_usd is None
    assert found.routes[1].reason == found.reason
    assert found.output_tokens.high == 100 + 10 * HIGH_OUTPUT, "tokens are known where prices are not"


def test_the_average_line_chooses_the_long_context_tier() -> None:
    assert high_amount(estimate([demand("long", input_tokens=10_000)], PRICES, AT)) == 10_000 * 2 * 10**6
    assert high_amount(estimate([demand("long", input_tokens=10_010)], PRICES, AT)) == 10_010 * 3 * 10**6


def test_nothing_costs_nothing() -> None:
    nothing = estimate([], PRICES, AT)
    assert (nothing.lines, high_amount(nothing), nothing.reason) == (0, 0, None)
    assert high_amount(estimate([demand(lines=0, input_tokens=0)], PRICES, AT)) == 0


def test_the_same_demands_at_the_same_time_give_the_same_estimate() -> None:
    assert estimate([demand(unlimited=3)], PRICES, AT) == estimate([demand(unlimited=3)], PRICES, AT)
