"""Prices of the operator's own: what they mean, and that they go before the tables."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from batchway.billing.own import own_rows
from batchway.billing.prices import Prices
from batchway.core.errors import ConfigError
from batchway.core.jobs import Route
from batchway.core.usage import Usage

TODAY = date(2026, 11, 22)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
MILLION = Usage(input_tokens=10**6, output_tokens=10**6)
DOLLAR = 10**12


def price(settings: dict, model: str = "llama", lane: str = "executed", at: float = NOW, account: str = "local"):
    prices = Prices(own=own_rows(settings, TODAY))
    return prices.of_route(Route(account=account, model=model, lane=lane), "openai", model, at)


def refused(settings: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        own_rows(settings, TODAY)
    return str(caught.value)


def test_a_route_has_the_price_that_the_operator_gives_it() -> None:
    told = {"local/llama": {"input": "0.10", "output": 0.4}}
    assert price(told).amount(MILLION) == DOLLAR // 2
    assert price(told, lane="native").amount(MILLION) == DOLLAR // 2
    assert price(told).source == "prices of the settings (2026-11-22)"
    assert price(told, account="other") is None


def test_it_goes_before_the_tables_and_they_stand_behind_it() -> None:
    told = {"main/gpt-4o": {"lane": "native", "input": 7}}
    assert price(told, "gpt-4o", "native", account="main").input == 7_000_000
    tables = Prices()
    for lane in ("native", "executed"):
        assert price({}, "gpt-4o", lane) == tables.price("openai", "gpt-4o", lane, NOW)
    assert price(told, "gpt-4o", "executed", account="main") == tables.price("openai", "gpt-4o", "executed", NOW)


def test_the_closest_name_wins_whatever_the_order() -> None:
    told = {"local/*": {"input": 1}, "local/meta/*-8B": {"input": 3}, "local/meta/*": {"input": 2}}
    told["local/meta/llama-8B"] = {"input": 4}
    for settings in (told, dict(reversed(told.items()))):
        names = ("gpt-4o", "meta/x", "meta/qwen-8B", "meta/llama-8B")
        assert [price(settings, name).input // 10**6 for name in names] == [1, 2, 3, 4]
    assert price({"local/a.b": {"input": 1}}, "axb") is None, "a dot is a dot"


def test_what_is_priced_nothing_is_free_and_not_unknown() -> None:
    free = price({"local/*": {"input": 0}})
    assert free is not None
    assert free.amount(MILLION) == 0


def test_an_endpoint_may_be_paid_by_the_second_that_it_is_busy() -> None:
    by_time = price({"local/*": {"per_second": "0.0004"}})
    assert by_time.amount(Usage(input_tokens=5, output_tokens=5, milliseconds=2_500)) == DOLLAR // 1000
    both = price({"local/*": {"per_second": "0.0004", "input": "1"}})
    assert both.amount(Usage(input_tokens=10**6, milliseconds=2_500)) == DOLLAR + DOLLAR // 1000


def test_each_lane_and_each_day_may_have_its_own_price() -> None:
    later = date(2027, 1, 1)
    rows = [{"lane": "native", "input": 1}, {"lane": "executed", "input": 2}, {"valid_from": later, "input": 3}]
    told = {"local/llama": rows}
    new_year = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert price(told, lane="native").input == 1_000_000
    assert price(told).input == 2_000_000
    assert price(told, at=new_year - 0.001).input == 2_000_000
    assert {price(told, lane=lane, at=new_year).input for lane in ("native", "executed")} == {3_000_000}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a/b": {"inptu": 1}}, "prices.a/b: unknown field 'inptu'; did you mean 'input'?"),
        ({"a/b": {"zzzz": 1}}, "prices.a/b: unknown field 'zzzz'; it takes input, cached"),
        ({"a/b": {}}, "prices.a/b: say at least one of input"),
        ({"a/b": {"lane": "native"}}, "prices.a/b: say at least one of input"),
        ({"gpt-4o": {"input": 1}}, "prices.gpt-4o: write it '<account>/<model>'"),
        ({"a/": {"input": 1}}, "prices.a/: write it '<account>/<model>'"),
        ({"a/b": [{"input": 1}, {"lane": "native", "input": 2}]}, "prices.a/b: two prices for the same lane and day"),
        ({"a/b": {"input": -1}}, "prices.a/b.input: -1 is not an amount of dollars"),
        ({"a/b": {"output": "nan"}}, "prices.a/b.output: NaN is not an amount of dollars"),
        ({"a/b": {"input": "cheap"}}, "prices.a/b: Invalid decimal"),
        ({"a/b": {"input": 1, "lane": "fast"}}, "prices.a/b: Invalid enum value 'fast'"),
        ({"a/b": {"input": "0.0000001"}}, "prices.a/b: a figure is finer than a pico-dollar a token"),
    ],
)
def test_a_price_that_cannot_be_meant_is_told_with_its_place(settings: dict, message: str) -> None:
    assert refused(settings).startswith(message)
