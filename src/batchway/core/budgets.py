"""Budgets without a database: whose they are, when their periods begin, what is left of them.

An owner is `gateway`, `project:<name>` or `key:<id>`; a batch is paid by all three, as far as they have a budget. A
period is a UTC day, a UTC month, or all time. Whatever a batch holds or has settled counts in the period in which it
was admitted, also when it ends in a later one: so a period's sum never grows after its end by more than was held in it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import InvalidOperation
from typing import Literal

import msgspec

from batchway.core.money import to_dollars, to_pico

Period = Literal["day", "month", "total"]
PERIODS: tuple[Period, ...] = ("day", "month", "total")
GATEWAY = "gateway"
THRESHOLDS = (50, 80, 100)  # percent of a budget, held and settled together, that are told of
MOST = 4 * 10**18  # pico-dollars of one budget or hold: sums of a few still fit into 64 bits

WORDS = {"day": "a day", "month": "a month", "total": "in all"}


def owner_of_key(key_id: str) -> str:
    """The owner of a key's own budget."""
    return f"key:{key_id}"


def owner_of_project(name: str) -> str:
    """The owner of a project's budget."""
    return f"project:{name}"


def owners(project: str, key_id: str) -> tuple[str, ...]:
    """Who pays for what this key makes, in the order in which their rows are locked."""
    return tuple(sorted((GATEWAY, owner_of_key(key_id), owner_of_project(project))))


def period_start(period: Period, at: float) -> float:
    """When the period that `at` lies in began; unix seconds, 0 for all time."""
    if period == "total":
        return 0.0
    day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day if period == "day" else day.replace(day=1)).timestamp()


def period_end(period: Period, at: float) -> float | None:
    """When the next period begins; None for all time, which has no next."""
    if period == "total":
        return None
    start = datetime.fromtimestamp(period_start(period, at), UTC)
    if period == "day":
        return (start + timedelta(days=1)).timestamp()
    return (start + timedelta(days=32)).replace(day=1).timestamp()


def checked_amount(usd: str) -> int:
    """The pico-dollars of a budget written in dollars; ValueError with a sentence when it is of no use."""
    try:
        amount = to_pico(usd)
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"'{usd}' is no amount of dollars to the pico-dollar, such as '12.50'") from None
    if not 0 <= amount <= MOST:
        raise ValueError(f"a budget is between 0 and {to_dollars(MOST)} dollars")
    return amount


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner may spend in a period that began at `starts_at`, and has; pico-dollars.

    `told` is the highest threshold that was told of in this period.
    """

    owner: str
    amount: int
    period: Period
    starts_at: float
    held: int = 0
    settled: int = 0
    told: int = 0

    @property
    def used(self) -> int:
        """Held and settled together."""
        return self.held + self.settled

    @property
    def remainder(self) -> int:
        """What is left, exactly; below zero when answers took more than was held for them."""
        return self.amount - self.used

    def reached(self) -> tuple[int, ...]:
        """The thresholds that are reached now."""
        return tuple(percent for percent in THRESHOLDS if self.used and self.used * 100 >= percent * self.amount)

    def __str__(self) -> str:
        kind, _, name = self.owner.partition(":")
        whose = f"{kind} {name}" if name else f"the {kind}"
        settled, held, left = (to_dollars(pico) for pico in (self.settled, self.held, self.remainder))
        amount = to_dollars(self.amount)
        return (
            f"the budget of {whose} is ${amount} {WORDS[self.period]}: ${settled} settled, ${held} held, ${left} left"
        )
