from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from batchway.billing.estimate import Demand, estimate, high_amount
from batchway.billing.prices import LongFigures, Prices, Row, price_of
from batchway.core.jobs import Route
from batchway.core.money import to_dollars, to_pico
from batchway.core.usage import NO_USAGE, Usage

figure = st.decimals(min_value=0, max_value=1000, places=6)  # dollars a million tokens, to the pico-dollar a token
PARTS = ("cached", "cache_write", "audio_input", "output", "audio_output", "image_output")
figures = st.fixed_dictionaries({"input": figure}, optional=dict.fromkeys(PARTS, figure))


def row(parts: dict, long: tuple[LongFigures, ...] = ()) -> Row:
    return Row(model="m", lane="native", long=long, source="s", read=date(2026, 11, 22), **parts)


@st.composite
def usage(draw, most: int = 2_000_000) -> Usage:
    tokens = draw(st.integers(0, most))
    cached = draw(st.integers(0, tokens))
    output = draw(st.integers(0, most))
    written = draw(st.integers(0, tokens - cached))
    heard = draw(st.integers(0, tokens - cached - written))
    spoken = draw(st.integers(0, output))
    drawn = draw(st.integers(0, output - spoken))
    return Usage(tokens, cached, written, heard, output, draw(st.integers(0, output)), spoken, drawn)


def exactly(parts: dict, spent: Usage) -> Decimal:
    """The amount in dollars, by decimal arithmetic over the figures as published."""
    fresh = spent.input_tokens - spent.cached_tokens - spent.cache_write_tokens - spent.audio_input_tokens
    text = spent.output_tokens - spent.audio_output_tokens - spent.image_output_tokens
    output = parts.get("output", Decimal(0))
    millions = (
        fresh * parts["input"]
        + spent.cached_tokens * parts.get("cached", parts["input"])
        + spent.cache_write_tokens * parts.get("cache_write", parts["input"])
        + spent.audio_input_tokens * parts.get("audio_input", parts["input"])
        + text * output
        + spent.audio_output_tokens * parts.get("audio_output", output)
        + spent.image_output_tokens * parts.get("image_output", output)
    )
    return millions.scaleb(-6)


@given(figures, usage())
def test_an_amount_is_what_decimal_arithmetic_says_to_the_last_pico_dollar(parts, spent) -> None:
    amount = price_of(row(parts)).amount(spent)
    assert type(amount) is int
    assert amount == to_pico(exactly(parts, spent))


@given(figures, st.lists(usage(), max_size=20))
def test_at_a_flat_price_the_amounts_of_lines_sum_to_the_amount_of_their_sum(parts, lines) -> None:
    price = price_of(row(parts))
    whole = reduce(Usage.__add__, lines, NO_USAGE)
    assert sum(price.amount(line) for line in lines) == price.amount(whole)


@given(figures, figures, st.integers(1, 1_000_000), usage())
def test_a_line_is_priced_by_exactly_one_tier(short, long, above, spent) -> None:
    amount = price_of(row(short, (LongFigures(above=above, **long),))).amount(spent)
    assert amount == to_pico(exactly(long if spent.input_tokens > above else short, spent))


@given(figures, usage(), usage())
def test_more_tokens_never_cost_less(parts, spent, more) -> None:
    price = price_of(row(parts))
    assert price.amount(spent + more) >= price.amount(spent)


@given(st.integers(-(10**24), 10**24))
def test_an_amount_survives_being_written_and_read(pico: int) -> None:
    assert to_pico(to_dollars(pico)) == pico


@given(figures, st.integers(1, 10**6), st.integers(0, 10**9), st.integers(0, 10**9), st.data())
def test_an_estimate_is_ordered_and_its_high_holds_every_answer_within_the_limits(
    parts, lines, tokens, limit, data
) -> None:
    unlimited = data.draw(st.integers(0, lines))
    demand = Demand(
        route=Route(account="a", model="m"),
        kind="k",
        priced_as="m",
        lines=lines,
        input_tokens=tokens,
        output_limit=limit if unlimited < lines else 0,
        unlimited=unlimited,
    )
    found = estimate([demand], Prices(lambda _: [row(parts)]), 0.0)
    assert 0 <= found.output_tokens.low <= found.output_tokens.likely <= found.output_tokens.high
    amounts = [to_pico(text) for text in (found.amount_usd.low, found.amount_usd.likely, found.amount_usd.high)]
    assert amounts == sorted(amounts)
    assert high_amount(demand, Prices(lambda _: [row(parts)]), 0.0) == amounts[2]
    answered = Usage(input_tokens=tokens, output_tokens=demand.output_limit)
    assert price_of(row(parts)).amount(answered) <= amounts[2]
