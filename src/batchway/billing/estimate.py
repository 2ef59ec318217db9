"""What a batch would use and cost, before it spends anything; its high amount is what the batch holds. Pure.

Declared approximations, per route:

- Input tokens are as given (intake counts four bytes of JSON to a token).
- Output tokens, low: 16 a line. Likely: 256 a line. Both at most what the lines allow themselves. High: what they
  allow, and 4,096 for a line without a limit: a model's own maximum would hold thirty times that for nothing.
- A model that charges nothing for output, as embeddings do, has none.
- The long-context tier is that of the route's average line; nothing is assumed to be cached.

An unknown price makes the route's amount, and with it the batch's, null with a reason: it is never left out of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from batchway.billing.prices import Price, Prices
from batchway.core.jobs import Route
from batchway.core.money import to_dollars, to_pico
from batchway.core.usage import Usage
from batchway.wire.batches import AmountRange, BatchEstimate, RouteEstimate, TokenRange

LOW_OUTPUT = 16  # tokens a line: a word or a label
LIKELY_OUTPUT = 256  # tokens a line: a short answer
HIGH_OUTPUT = 4096  # tokens of a line that sets no limit

Spread = tuple[int, int, int]  # low, likely, high


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one route would have to carry.

    `output_limit` sums the output tokens that lines allow themselves; `unlimited` counts the lines that set no limit.
    """

    route: Route
    kind: str
    lines: int
    input_tokens: int
    output_limit: int
    unlimited: int


def estimate(demands: Sequence[Demand], prices: Prices, at: float) -> BatchEstimate:
    """Tokens and amounts of a batch with these demands, at the prices of `at` (unix seconds)."""
    routes: list[RouteEstimate] = []
    outputs: list[Spread] = []
    amounts: list[Spread | None] = []
    for demand in demands:
        route = demand.route
        price = prices.price(demand.kind, route.model, route.lane, at)
        outputs.append(_output(demand, price))
        amounts.append(_amounts(demand, price, outputs[-1]) if price else None)
        routes.append(_of_route(demand, amounts[-1]))
    known = [amount for amount in amounts if amount is not None]
    complete = len(known) == len(amounts)
    low, likely, high = _sum(outputs)
    return BatchEstimate(
        lines=sum(demand.lines for demand in demands),
        input_tokens=sum(demand.input_tokens for demand in demands),
        output_tokens=TokenRange(low=low, likely=likely, high=high),
        amount_usd=_range(_sum(known)) if complete else None,
        reason=None if complete else " ".join(route.reason for route in routes if route.reason),
        routes=routes,
    )


def high_amount(estimate: BatchEstimate) -> int | None:
    """Pico-dollars to hold; None when a price is unknown."""
    return to_pico(estimate.amount_usd.high) if estimate.amount_usd else None


def _output(demand: Demand, price: Price | None) -> Spread:
    if price and not price.output:
        return 0, 0, 0
    limited = demand.lines - demand.unlimited
    return (
        min(demand.output_limit, limited * LOW_OUTPUT) + demand.unlimited * LOW_OUTPUT,
        min(demand.output_limit, limited * LIKELY_OUTPUT) + demand.unlimited * LIKELY_OUTPUT,
        demand.output_limit + demand.unlimited * HIGH_OUTPUT,
    )


def _amounts(demand: Demand, price: Price, outputs: Spread) -> Spread:
    average = price.for_length(demand.input_tokens // max(demand.lines, 1))
    flat = msgspec.structs.replace(average, long=())  # the sum of all lines is no long line
    low, likely, high = (
        flat.amount(Usage(input_tokens=demand.input_tokens, output_tokens=output)) for output in outputs
    )
    return low, likely, high


def _of_route(demand: Demand, amount: Spread | None) -> RouteEstimate:
    route = demand.route
    unknown = f"The price of {route.name} ({route.lane} lane) is unknown."
    return RouteEstimate(
        provider=route.account,
        model=route.model,
        lane=route.lane,
        lines=demand.lines,
        input_tokens=demand.input_tokens,
        amount_usd=_range(amount) if amount else None,
        reason=None if amount else unknown,
    )


def _sum(spreads: Sequence[Spread]) -> Spread:
    return sum(s[0] for s in spreads), sum(s[1] for s in spreads), sum(s[2] for s in spreads)


def _range(amount: Spread) -> AmountRange:
    low, likely, high = (to_dollars(pico) for pico in amount)
    return AmountRange(low=low, likely=likely, high=high)
