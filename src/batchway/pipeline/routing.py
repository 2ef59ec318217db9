"""Which routes the models of a file lead to: asked by admission, validation, split and estimates alike. Not a stage.

What a key's or its project's policy does not allow is no route: such a line is refused as one that leads nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import RowMapping

from batchway.billing.estimate import Demand
from batchway.billing.prices import Price, Prices
from batchway.core.jobs import Route
from batchway.core.principal import Policy
from batchway.core.usage import line_usage
from batchway.executor.purse import Meter, MeterOf
from batchway.pipeline.trip import Trip
from batchway.providers.accounts import Accounts, NoRoute, Want

Columns = RowMapping | Mapping[str, Any]
"""A batch: its row, or what will be one."""

Stats = Mapping[str, Mapping[str, int]]
"""What intake counted for each model of a file: lines, bytes, input_tokens, output_limit, unlimited."""


class Plan(msgspec.Struct):
    """The routes of a file with the names in its lines that lead there, and the names that lead nowhere."""

    routes: dict[tuple[Route, ...], list[str]]  # the first is preferred; the others spread its load and take over
    unroutable: dict[str, NoRoute]


async def plan_routes(
    trip: Trip, models: Stats, want: Want, override: str | None, policies: Sequence[Policy] = ()
) -> Plan:
    """Asks the accounts once for each distinct model; `override` sends every line to one model."""
    plan = Plan({}, {})
    for name in [override] if override else filter(None, models):  # "" stands for lines without a model
        try:
            routes = await _routes(trip, name, want, policies)
        except NoRoute as problem:
            plan.unroutable[name] = problem
        else:
            plan.routes.setdefault(routes, []).append(name)
    return plan


async def _routes(trip: Trip, name: str, want: Want, policies: Sequence[Policy]) -> tuple[Route, ...]:
    """Where lines with this model may go; NoRoute when nowhere, or when a policy is against it."""
    if not all(policy.allows_model(name) for policy in policies):
        message = f"This API key may not use the model '{name}': ask the admin of this gateway, or name another model."
        raise NoRoute("model_not_allowed", message)
    routes = await trip.accounts.routes(name, want)
    allowed = tuple(route for route in routes if all(policy.allows_provider(route.account) for policy in policies))
    if not allowed:
        providers = ", ".join(sorted({route.account for route in routes}))
        message = f"This API key may not use the providers of the model '{name}' ({providers})."
        raise NoRoute("provider_not_allowed", message)
    return allowed


def policies_of(batch: Columns) -> tuple[Policy, ...]:
    """The policies that stood when the batch was created."""
    return msgspec.convert(batch["policies"] or (), tuple[Policy, ...])


def options(trip: Trip, plan: Plan, models: Stats, override: str | None) -> list[list[Demand]]:
    """The same lines on each of the routes that they may take in the end."""
    return [
        [demand(trip, route, _of(models, names, override)) for route in routes] for routes, names in plan.routes.items()
    ]


def demand(trip: Trip, route: Route, stats: Sequence[Mapping[str, int]]) -> Demand:
    """What one route would have to carry of models with these counts."""
    return Demand(
        route=route,
        kind=trip.accounts.kind(route.account),
        priced_as=trip.accounts.priced_as(route.account, route.model),
        lines=_sum(stats, "lines"),
        input_tokens=_sum(stats, "input_tokens"),
        output_limit=_sum(stats, "output_limit"),
        unlimited=_sum(stats, "unlimited"),
    )


def price_of(trip: Trip, job: RowMapping) -> Price | None:
    """What the tokens of an ended job cost: what it was accounted at, else as of its end; None when that is unknown."""
    if job["price"] is not None:
        return Price.from_json(job["price"])
    if job["accounted_at"] is not None and job["amount"] is None:
        return None  # a price that became known later changes nothing
    kind, model = trip.accounts.kind(job["account"]), trip.accounts.priced_as(job["account"], job["model"])
    route = Route(account=job["account"], model=job["model"], lane=job["lane"])
    return trip.prices.of_route(route, kind, model, job["ended_at"] or trip.clock())


def meters(prices: Prices, accounts: Accounts, clock: Callable[[], float]) -> MeterOf:
    """What tells the executor the amount of an answer at today's price, by account and model."""

    def meter_of(account: str, model: str) -> Meter | None:
        route = Route(account=account, model=model, lane="executed")
        price = prices.of_route(route, accounts.kind(account), accounts.priced_as(account, model), clock())
        return price and (lambda answer: price.amount(line_usage(answer.line, answer.milliseconds)))

    return meter_of


def want_of(batch: Columns) -> Want:
    """What a batch asks of its routes."""
    return Want(batch["endpoint"], batch["window_seconds"], batch["provider"])


def _of(models: Stats, names: Collection[str], override: str | None) -> list[Mapping[str, int]]:
    return [stats for name, stats in models.items() if override or name in names]


def _sum(stats: Sequence[Mapping[str, int]], field: str) -> int:
    return sum(one[field] for one in stats)
