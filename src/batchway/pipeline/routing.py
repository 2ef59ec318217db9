"""Which routes the models of a file lead to: asked by validation, split and estimates alike."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import RowMapping

from batchway.billing.estimate import Demand
from batchway.billing.prices import Price
from batchway.core.jobs import Route
from batchway.pipeline.trip import Trip
from batchway.providers.accounts import NoRoute, Want

Stats = Mapping[str, Mapping[str, int]]
"""What intake counted for each model of a file: lines, bytes, input_tokens, output_limit, unlimited."""


class Plan(msgspec.Struct):
    """The routes of a file with the names in its lines that lead there, and the names that lead nowhere."""

    routes: dict[tuple[Route, ...], list[str]]  # the first is preferred; the others spread its load and take over
    unroutable: dict[str, NoRoute]


async def plan_routes(trip: Trip, models: Stats, want: Want, override: str | None) -> Plan:
    """Asks the accounts once for each distinct model; `override` sends every line to one model."""
    plan = Plan({}, {})
    for name in [override] if override else filter(None, models):  # "" stands for lines without a model
        try:
            routes = await trip.accounts.routes(name, want)
        except NoRoute as problem:
            plan.unroutable[name] = problem
        else:
            plan.routes.setdefault(routes, []).append(name)
    return plan


def demands(trip: Trip, plan: Plan, models: Stats, override: str | None) -> list[Demand]:
    """What each route would have to carry."""
    return [
        Demand(
            route=route,
            kind=trip.accounts.get(route.account).kind,
            lines=_sum(models, names, override, "lines"),
            input_tokens=_sum(models, names, override, "input_tokens"),
            output_limit=_sum(models, names, override, "output_limit"),
            unlimited=_sum(models, names, override, "unlimited"),
        )
        for (route, *_), names in plan.routes.items()
    ]


def price_of(trip: Trip, job: RowMapping) -> Price | None:
    """What the tokens of an ended job cost, as of its end; None when that is unknown."""
    kind, model = trip.accounts.kind(job["account"]), trip.accounts.priced_as(job["account"], job["model"])
    return trip.prices.price(kind, model, job["lane"], job["ended_at"] or trip.clock())


def want_of(batch: RowMapping) -> Want:
    """What a batch asks of its routes."""
    return Want(batch["endpoint"], batch["window_seconds"], batch["provider"])


def _sum(models: Stats, names: list[str], override: str | None, field: str) -> int:
    return sum(stats[field] for name, stats in models.items() if override or name in names)
