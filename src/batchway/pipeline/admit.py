"""Whether a batch may run: within the limits of its key and project, and within every budget that pays for it.

`ask` finds out beforehand, without a transaction, what a batch would need: the input tokens of its file, and the amount
on the dearest of the routes that its lines may take. `within_limits` and `hold` are called in the transaction that lets
the batch in, so of many at once exactly as many come in as there is room for. Not a stage.

A batch whose lines are faulty or lead nowhere asks for nothing: validation says why, and it never runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.billing.estimate import dearest
from batchway.core.budgets import Budget
from batchway.core.errors import Forbidden, NotFound, OverBudget, RequestError, TooMany
from batchway.core.jobs import Route
from batchway.core.money import to_dollars
from batchway.core.principal import Limits, Principal, Sight
from batchway.db import batches, budgets, files, holds
from batchway.pipeline.routing import Columns, Stats, options, plan_routes, policies_of, want_of
from batchway.pipeline.trip import Trip, UnknownPrices

TRY_AGAIN = 10.0  # seconds: batches end all the time


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch would need. `amount` is in pico-dollars, of the lines whose price is known.

    Without `runs` it needs nothing: it cannot run as it is.
    """

    input_tokens: int = 0
    runs: bool = False
    amount: int = 0
    unpriced: tuple[Route, ...] = ()
    refused: UnknownPrices = "budgeted"  # whose unknown prices are


async def ask(trip: Trip, batch: Columns) -> Needs:
    """What a batch with these columns needs now, at today's prices and routes."""
    try:
        sight = Sight(batch["project"], batch["key_id"])
        file = await trip.db.read(files.get, batch["input_file_id"], sight)
    except NotFound:
        return Needs()
    models: Stats = file["models"] or {}
    override = batch["model"]
    input_tokens = sum(stats["input_tokens"] for stats in models.values())
    if _faulty(file, batch):
        return Needs(input_tokens=input_tokens)
    plan = await plan_routes(trip, models, want_of(batch), override, policies_of(batch))
    if plan.unroutable:
        return Needs(input_tokens=input_tokens)
    amount, unpriced = dearest(options(trip, plan, models, override), trip.prices, trip.clock())
    return Needs(
        input_tokens=input_tokens, runs=True, amount=amount, unpriced=tuple(unpriced), refused=trip.unknown_prices
    )


def hold(tx: Connection, batch: Columns, needs: Needs, now: float) -> None:
    """Opens the batch's hold, once; OverBudget, or RequestError when its price has to be known and is not."""
    if not needs.runs or holds.of_batch(tx, batch["id"]) is not None:
        return
    paying, _ = budgets.lock(tx, batch["project"], batch["key_id"], now)
    if needs.unpriced and (needs.refused == "refuse" or (needs.refused == "budgeted" and paying)):
        raise _unpriced(needs.unpriced)
    short = [budget for budget in paying if needs.amount > budget.remainder]
    if short:
        raise _over(needs.amount, min(short, key=lambda budget: budget.remainder))
    holds.open_hold(tx, batch, None if needs.unpriced else needs.amount, now)


def within_limits(tx: Connection, principal: Principal, needs: Needs) -> None:
    """TooMany when the key, or all keys of its project together, have no room for one more such batch."""
    _within(tx, principal.project_limits, ("project", principal.project), needs.input_tokens)
    _within(tx, principal.limits, ("key", principal.key_id), needs.input_tokens)


def check_policies(trip: Trip, principal: Principal, provider: str | None, model: str | None) -> None:
    """Forbidden when the provider or the model that a batch forces on all its lines is one that no line may use."""
    for policy in principal.policies:
        if provider and not any(policy.allows_provider(account.name) for account in trip.accounts.find(provider)):
            message = f"This API key may not use the provider '{provider}': ask the admin of this gateway."
            raise Forbidden(message, code="provider_not_allowed", param="custom_llm_provider")
        if model and not policy.allows_model(model):
            message = f"This API key may not use the model '{model}': ask the admin of this gateway."
            raise Forbidden(message, code="model_not_allowed", param="model")


def _within(tx: Connection, limits: Limits, whose: tuple[Literal["project", "key"], str], input_tokens: int) -> None:
    most_batches, most_tokens = limits.active_batches, limits.enqueued_tokens
    if most_batches is None and most_tokens is None:
        return
    active, tokens = batches.enqueued(tx, *whose)
    name = " ".join(whose)
    if most_batches is not None and active >= most_batches:
        message = f"The {name} has {active} active batches and may have {most_batches}: wait for one to end."
        raise TooMany(message, code="active_batches_exceeded", retry_after=TRY_AGAIN)
    if most_tokens is not None and tokens + input_tokens > most_tokens:
        message = (
            f"This batch has some {input_tokens} input tokens; the {name} may have {most_tokens} enqueued and has "
            f"{tokens}: wait for batches to end, or send fewer lines."
        )
        raise TooMany(message, code="token_limit_exceeded", retry_after=TRY_AGAIN)


def _faulty(file: RowMapping, batch: Columns) -> bool:
    """Whether validation will find faults in the file's own tallies; a batch's model waives that of its lines."""
    models: Stats = file["models"] or {}
    urls: dict[str, int] = file["urls"] or {}
    waived = models.get("", {}).get("lines", 0) if batch["model"] else 0
    return file["fault_count"] > waived or any(url != batch["endpoint"] for url in urls)


def _unpriced(routes: Sequence[Route]) -> RequestError:
    names = ", ".join(sorted({f"{route.name} ({route.lane} lane)" for route in routes}))
    message = (
        f"The price of {names} is unknown, so no budget can be kept: the admin of this gateway can set it under "
        "`prices`, or allow unknown prices by `unknown_prices: allow`."
    )
    return RequestError(message, code="price_unknown", param="input_file_id")


def _over(amount: int, budget: Budget) -> OverBudget:
    message = (
        f"This batch needs at most ${to_dollars(amount)}; {budget}. Ask for a higher budget, send fewer lines, or "
        "limit their output tokens (max_tokens): what is not used is given back."
    )
    return OverBudget(message, owner=budget.owner)
