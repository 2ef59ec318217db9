from __future__ import annotations

from datetime import date
from decimal import Decimal

import msgspec
import pytest

from batchway.billing.estimate import (
    HIGH_OUTPUT,
    LIKELY_OUTPUT,
    LOW_OUTPUT,
    Demand,
    Ran,
    dearest,
    estimate,
    high_amount,
)
from batchway.billing.own import own_rows
from batchway.billing.prices import LongFigures, Prices, Row
from batchway.core.jobs import Route
from batchway.core.money import to_pico
from batchway.wire.batches import BatchEstimate

AT = 1_790_000_000.0


def row(model: str, lane: str = "native", output: str | None = "4", long: tuple[LongFigures, ...] = ()) -> Row:
    figures = {"input": Decimal(2), "output": Decimal(output) if output else None}
    return Row(model=model, lane=lane, long=long, source="somewhere", read=date(2026, 11, 22), **figures)


LONG = row("long", long=(LongFigures(above=1000, input=Decimal(3), output=Decimal(5)),))
ROWS = [row("m"), row("m", "executed", "8"), row("embed", output=None), LONG]
PRICES = Prices(lambda kind: ROWS if kind == "k" else [])


def demand(model: str = "m", lane: str = "native", **more) -> Demand:
    numbers = {"lines": 10, "input_tokens": 1000, "output_limit": 0, "unlimited": 0} | more
    return Demand(route=Route(account="acc", model=model, lane=lane), kind="k", priced_as=model, **numbers)


def of(*demands: Demand, prices: Prices = PRICES) -> BatchEstimate:
    return estimate(demands, prices, AT)


def held(*demands: Demand, prices: Prices = PRICES) -> int | None:
    amount = of(*demands, prices=prices).amount_usd
    return to_pico(amount.high) if amount else None


# Output tokens --------------------------------------------------------------------------------------------------------


def test_limits_bound_the_output_from_above() -> None:
    assert msgspec.structs.astuple(of(demand(output_limit=50)).output_tokens) == (50, 50, 50)
    found = of(demand(output_limit=100_000))
    assert msgspec.structs.astuple(found.output_tokens) == (10 * LOW_OUTPUT, 10 * LIKELY_OUTPUT, 100_000)


def test_a_line_without_a_limit_counts_with_the_declared_default() -> None:
    found = of(demand(output_limit=30, unlimited=7))
    assert found.output_tokens.low == 30 + 7 * LOW_OUTPUT
    assert found.output_tokens.likely == 30 + 7 * LIKELY_OUTPUT
    assert found.output_tokens.high == 30 + 7 * HIGH_OUTPUT
    assert found.routes[0].output_tokens_method == "declared"


def test_what_a_key_usually_gets_is_likelier_than_the_default() -> None:
    found = of(demand(output_limit=1000, unlimited=5, usual_output=42.0))
    assert found.output_tokens.likely == 10 * 42
    assert found.output_tokens.high == 1000 + 5 * HIGH_OUTPUT, "what is held does not hang on the past"
    assert found.routes[0].output_tokens_method == "history"


@pytest.mark.parametrize("usual", [0.0, 3.0, 1e9])
def test_whatever_was_usual_low_likely_and_high_stay_in_order(usual: float) -> None:
    tokens = of(demand(output_limit=500, unlimited=5, usual_output=usual)).output_tokens
    assert tokens.low <= tokens.likely <= tokens.high == 500 + 5 * HIGH_OUTPUT


def test_an_embedding_has_no_output() -> None:
    found = of(demand("embed", unlimited=10))
    assert msgspec.structs.astuple(found.output_tokens) == (0, 0, 0)
    assert held(demand("embed", unlimited=10)) == 1500 * 2 * 10**6


# Input tokens ---------------------------------------------------------------------------------------------------------


def test_half_as_many_tokens_again_as_guessed_are_held_for() -> None:
    found = of(demand(output_limit=100))
    assert msgspec.structs.astuple(found.amount_usd) == ("0.0024", "0.0024", "0.0034")
    assert held(demand(output_limit=100)) == (1500 * 2 + 100 * 4) * 10**6


def test_what_is_held_for_is_the_same_whether_tokens_were_guessed_or_counted() -> None:
    counted = demand(input_tokens=900, input_guess=1000, method="counted")
    assert held(counted) == held(demand())
    assert of(counted).input_tokens == 900
    assert held(demand(input_tokens=2000, input_guess=1000, method="sampled")) == 2000 * 2 * 10**6, "but not too little"


def test_a_batch_tells_how_the_least_exact_of_its_tokens_were_found() -> None:
    methods = ("counted", "sampled", "guessed")
    for place, method in enumerate(methods):
        found = of(*(demand(method=one) for one in methods[: place + 1]))
        assert found.input_tokens_method == method
        assert [route.input_tokens_method for route in found.routes] == list(methods[: place + 1])


def test_the_average_line_chooses_the_long_context_tier() -> None:
    short, long = demand("long", input_tokens=6_660), demand("long", input_tokens=6_700)
    assert held(short) == 9_990 * 2 * 10**6
    assert held(long) == 10_050 * 3 * 10**6
    assert to_pico(of(long).amount_usd.likely) == 6_700 * 2 * 10**6


# Amounts --------------------------------------------------------------------------------------------------------------


def test_each_lane_is_estimated_at_its_own_price() -> None:
    difference = held(demand(lane="executed", output_limit=100)) - held(demand(output_limit=100))
    assert difference == 100 * 4 * 10**6


def test_a_batch_of_several_routes_is_the_sum_of_them() -> None:
    parts = [demand(output_limit=100), demand(lane="executed", unlimited=10), demand("embed", unlimited=10)]
    whole = of(*parts)
    assert (whole.lines, whole.input_tokens) == (30, 3000)
    assert held(*parts) == sum(held(part) for part in parts) == sum(high_amount(part, PRICES, AT) for part in parts)
    assert [(route.provider, route.model, route.lane) for route in whole.routes] == [
        ("acc", "m", "native"),
        ("acc", "m", "executed"),
        ("acc", "embed", "native"),
    ]


def test_one_unknown_price_makes_the_whole_amount_unknown_with_a_reason() -> None:
    parts = [demand(output_limit=100), demand("mystery", unlimited=10)]
    found = of(*parts)
    assert found.amount_usd is None
    assert found.reason == "The price of acc/mystery (native lane) is unknown."
    assert found.routes[0].amount_usd is not None
    assert found.routes[1].amount_usd is None
    assert found.routes[1].reason == found.reason
    assert found.output_tokens.high == 100 + 10 * HIGH_OUTPUT, "tokens are known where prices are not"


def test_the_dearest_route_that_may_take_the_lines_is_held_for() -> None:
    falling = demand(lane="executed", output_limit=100, falls_over=True)
    compared = demand(lane="executed", output_limit=100)
    alone = demand(output_limit=100)
    assert held(demand(output_limit=100, others=(falling,))) == held(falling)
    assert held(demand(output_limit=100, others=(compared,))) == held(alone)
    assert dearest([[alone, falling]], PRICES, AT) == (held(falling), [])
    found = of(demand(output_limit=100, others=(falling, compared)))
    assert found.amount_usd.likely == of(alone).amount_usd.likely
    assert [(route.lane, route.falls_over) for route in found.alternatives] == [("executed", True), ("executed", False)]


def test_an_endpoint_paid_by_the_second_is_estimated_by_how_long_lines_take() -> None:
    own = own_rows({"acc/m": {"per_second": "0.001"}}, date(2026, 11, 22))
    prices = Prices(lambda _: [], own)
    found = of(demand(output_limit=10), prices=prices)
    assert msgspec.structs.astuple(found.amount_usd) == ("0.01", "0.05", "0.6")
    usual = of(demand(output_limit=10, usual_busy=250.0), prices=prices)
    assert msgspec.structs.astuple(usual.amount_usd) == ("0.0025", "0.0025", "0.6")
    assert found.output_tokens.high == 10


def test_what_costs_nothing_is_free_and_not_unknown() -> None:
    prices = Prices(lambda _: [], own_rows({"acc/*": {"input": 0}}, date(2026, 11, 22)))
    found = of(demand(output_limit=10), prices=prices)
    assert (found.amount_usd.high, found.reason) == ("0", None)
    assert found.output_tokens.high == 10


def test_nothing_costs_nothing() -> None:
    nothing = of()
    assert (nothing.lines, held(), nothing.reason, nothing.input_tokens_method) == (0, 0, None, "counted")
    assert held(demand(lines=0, input_tokens=0)) == 0


def test_the_same_demands_at_the_same_time_give_the_same_estimate() -> None:
    assert of(demand(unlimited=3)) == of(demand(unlimited=3))


# Time -----------------------------------------------------------------------------------------------------------------


def seconds(*demands: Demand) -> tuple[int | None, int]:
    found = of(*demands)
    assert (found.seconds.likely is None) == bool(found.seconds_reason)
    return found.seconds.likely, found.seconds.high


def test_of_a_provider_without_a_past_only_the_window_is_known() -> None:
    assert seconds(demand(window=3600)) == (None, 3600)
    assert "acc/m" in of(demand()).seconds_reason


def test_a_native_job_takes_what_the_latest_took_however_many_lines_it_has() -> None:
    ran = tuple(Ran(lines, time) for lines, time in zip([1, 10, 100, 1000, 10] * 2, range(100, 1100, 100), strict=True))
    assert seconds(demand(ran=ran)) == seconds(demand(ran=ran, lines=50_000)) == (550, 990)


def test_an_executed_job_takes_its_lines_at_their_rate() -> None:
    ran = (Ran(100, 50.0), Ran(100, 50.0), Ran(1, 9.0))
    assert seconds(demand(lane="executed", lines=1000, ran=ran)) == (500, 500)
    assert seconds(demand(lane="executed", lines=1, ran=(Ran(100, 50.0),))) == (50, 50), "queues do not shrink"


def test_no_job_takes_longer_than_its_window() -> None:
    assert seconds(demand(ran=(Ran(10, 9e9),), window=86_400)) == (86_400, 86_400)


def test_a_batch_takes_as_long_as_its_slowest_route() -> None:
    quick, slow = demand(ran=(Ran(10, 60.0),)), demand("embed", ran=(Ran(10, 600.0),))
    assert seconds(quick, slow) == (600, 600)
    assert seconds(quick, slow, demand("long")) == (None, 86_400)
