"""What a batch would use, take and cost, before it spends anything; its high amount is what the batch holds. Pure.

Declared approximations, per route:

- Input tokens are as given, counted or guessed; `input_tokens_method` says which. High: half as many again as guessed
  at intake (docs/prices.md tells the error of a guess).
- Output tokens, low: 16 a line. Likely: what this key's lines had of the model in the last 30 days, else 256 a line.
  Both at most what the lines allow themselves. High: what they allow, and 4,096 for a line without a limit: a model's
  own maximum would hold thirty times that for nothing.
- A model that charges nothing for output, as embeddings do, has none.
- The long-context tier is that of the route's average line; nothing is assumed to be cached, heard or drawn.
- Where the operator has priced seconds, a line keeps the endpoint busy for 1 (low), 5 or as usual (likely), 60 (high).
- A native job likely takes the median time of this provider's latest, at most 9 in 10 of them longer: never beyond the
  window, at whose end the batch expires. An executed one takes its lines at their rate.

An unknown price makes the route's amount, and with it the batch's, null with a reason: it is never left out of a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median, quantiles

import msgspec

from batchway.billing.prices import Price, Prices
from batchway.core.jobs import Route
from batchway.core.money import to_dollars
from batchway.core.usage import Usage
from batchway.wire.batches import AmountRange, BatchEstimate, InputMethod, RouteEstimate, SecondsRange, TokenRange

LOW_OUTPUT = 16  # tokens a line: a word or a label
LIKELY_OUTPUT = 256  # tokens a line: a short answer
HIGH_OUTPUT = 4096  # tokens of a line that sets no limit
BUSY = (1_000, 5_000, 60_000)  # milliseconds a line

METHODS: tuple[InputMethod, ...] = ("counted", "sampled", "guessed")  # the most exact first

Spread = tuple[int, int, int]  # low, likely, high


class Ran(msgspec.Struct, frozen=True):
    """One job that ended well: its lines, and the seconds from its planning to its end."""

    lines: int
    seconds: float


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one route would have to carry.

    `output_limit` sums the output tokens that lines allow themselves; `unlimited` counts the lines that set no limit.
    `input_guess` is what intake guessed where `input_tokens` is better than that. `usual_output` (tokens) and
    `usual_busy` (milliseconds) are what a line of this key usually had here. `ran` are this provider's latest jobs.
    `others` are routes and lanes for the same lines: those with `falls_over` take over when this one refuses.
    """

    route: Route
    kind: str
    priced_as: str
    lines: int
    input_tokens: int
    output_limit: int
    unlimited: int
    input_guess: int | None = None
    method: InputMethod = "guessed"
    usual_output: float | None = None
    usual_busy: float | None = None
    ran: tuple[Ran, ...] = ()
    window: int = 86_400  # seconds
    others: tuple[Demand, ...] = ()
    falls_over: bool = False

    @property
    def input_high(self) -> int:
        """The input tokens that are held for."""
        guess = self.input_tokens if self.input_guess is None else self.input_guess
        return max(self.input_tokens, guess * 3 // 2)


class _Found(msgspec.Struct, frozen=True):
    output: Spread
    amount: Spread | None


def estimate(demands: Sequence[Demand], prices: Prices, at: float) -> BatchEstimate:
    """Tokens, amounts and times of a batch with these demands, at the prices of `at` (unix seconds)."""
    found = [_found(demand, prices, at) for demand in demands]
    others = [(other, _found(other, prices, at)) for demand in demands for other in demand.others]
    routes = [_of_route(demand, of) for demand, of in zip(demands, found, strict=True)]
    amounts = [of.amount for of in found if of.amount is not None]
    complete = len(amounts) == len(found)
    low, likely, high = _sum(of.output for of in found)
    return BatchEstimate(
        lines=sum(demand.lines for demand in demands),
        input_tokens=sum(demand.input_tokens for demand in demands),
        input_tokens_method=METHODS[max((METHODS.index(demand.method) for demand in demands), default=0)],
        output_tokens=TokenRange(low=low, likely=likely, high=high),
        amount_usd=_range((*_sum(amounts)[:2], _at_most(demands, prices, at))) if complete else None,
        reason=None if complete else " ".join(route.reason for route in routes if route.reason),
        seconds=_longest([route.seconds for route in routes]),
        seconds_reason=" ".join(route.seconds_reason for route in routes if route.seconds_reason) or None,
        routes=routes,
        alternatives=[_of_route(other, of) for other, of in others],
    )


def high_amount(demand: Demand, prices: Prices, at: float) -> int | None:
    """Pico-dollars that the lines cost at most on this route; None when its price is unknown."""
    amount = _found(demand, prices, at).amount
    return None if amount is None else amount[2]


def dearest(options: Sequence[Sequence[Demand]], prices: Prices, at: float) -> tuple[int, list[Route]]:
    """(pico-dollars at most, routes without a price): each of `options` is the same lines on every route they may take.

    A batch may end up on the dearest route of each, so that is what it holds.
    """
    amount, unpriced = 0, list[Route]()
    for same_lines in options:
        amounts = [(demand.route, high_amount(demand, prices, at)) for demand in same_lines]
        unpriced += [route for route, high in amounts if high is None]
        amount += max((high for _, high in amounts if high is not None), default=0)
    return amount, unpriced


def _at_most(demands: Sequence[Demand], prices: Prices, at: float) -> int:
    same_lines = [[demand, *(other for other in demand.others if other.falls_over)] for demand in demands]
    return dearest(same_lines, prices, at)[0]


def _found(demand: Demand, prices: Prices, at: float) -> _Found:
    price = prices.of_route(demand.route, demand.kind, demand.priced_as, at)
    output = _output(demand, price)
    return _Found(output, _amounts(demand, price, output) if price else None)


def _output(demand: Demand, price: Price | None) -> Spread:
    if price and price.input and not price.output and not price.millisecond:
        return 0, 0, 0
    limited = demand.lines - demand.unlimited
    high = demand.output_limit + demand.unlimited * HIGH_OUTPUT

    def answered(tokens: float) -> int:
        return min(round(min(demand.output_limit, limited * tokens) + demand.unlimited * tokens), high)

    likely = answered(LIKELY_OUTPUT if demand.usual_output is None else demand.usual_output)
    return min(answered(LOW_OUTPUT), likely), likely, high


def _amounts(demand: Demand, price: Price, outputs: Spread) -> Spread:
    inputs = (demand.input_tokens, demand.input_tokens, demand.input_high)
    usual = BUSY[1] if demand.usual_busy is None else min(demand.usual_busy, BUSY[2])
    busy = (min(BUSY[0], usual), usual, BUSY[2])

    def amount(place: int) -> int:
        average = price.for_length(inputs[place] // max(demand.lines, 1))
        flat = msgspec.structs.replace(average, long=(), millisecond=price.millisecond)  # the sum is no long line
        milliseconds = round(busy[place] * demand.lines)
        usage = Usage(input_tokens=inputs[place], output_tokens=outputs[place], milliseconds=milliseconds)
        return flat.amount(usage)

    return amount(0), amount(1), amount(2)


def _of_route(demand: Demand, found: _Found) -> RouteEstimate:
    route = demand.route
    low, likely, high = found.output
    seconds = _seconds(demand)
    why = f"Nothing is known yet of how long {route.name} takes ({route.lane} lane)."
    return RouteEstimate(
        provider=route.account,
        model=route.model,
        lane=route.lane,
        falls_over=demand.falls_over,
        lines=demand.lines,
        input_tokens=demand.input_tokens,
        input_tokens_method=demand.method,
        output_tokens=TokenRange(low=low, likely=likely, high=high),
        output_tokens_method="declared" if demand.usual_output is None else "history",
        amount_usd=_range(found.amount) if found.amount else None,
        reason=None if found.amount else f"The price of {route.name} ({route.lane} lane) is unknown.",
        seconds=seconds,
        seconds_reason=why if seconds.likely is None else None,
    )


def _seconds(demand: Demand) -> SecondsRange:
    if not demand.ran:
        return SecondsRange(likely=None, high=demand.window)
    if demand.route.lane == "native":
        times = [ran.seconds for ran in demand.ran]
    else:  # small jobs say little of a large one: of those at least a tenth as large, where there are any
        alike = [ran for ran in demand.ran if ran.lines * 10 >= demand.lines] or demand.ran
        times = [ran.seconds * max(1.0, demand.lines / max(ran.lines, 1)) for ran in alike]
    nine_in_ten = quantiles(times, n=10)[-1] if len(times) > 1 else times[0]
    likely, high = (min(round(time), demand.window) for time in (median(times), max(nine_in_ten, median(times))))
    return SecondsRange(likely=likely, high=high)


def _longest(seconds: Sequence[SecondsRange]) -> SecondsRange:
    """The routes work beside one another: the batch takes as long as the slowest."""
    known = [time.likely for time in seconds if time.likely is not None]
    likely = max(known, default=0) if len(known) == len(seconds) else None
    return SecondsRange(likely=likely, high=max((time.high for time in seconds), default=0))


def _sum(spreads: Iterable[Spread]) -> Spread:
    all_of_them = list(spreads)
    return sum(s[0] for s in all_of_them), sum(s[1] for s in all_of_them), sum(s[2] for s in all_of_them)


def _range(amount: Spread) -> AmountRange:
    low, likely, high = (to_dollars(pico) for pico in amount)
    return AmountRange(low=low, likely=likely, high=high)
