"""What keys and projects have in common: limits and budgets between the wire and the database.

Everything here runs in the caller's transaction; a budget's owner is `key:<id>`, `project:<name>` or `gateway`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from batchway.core.budgets import MOST, period_end
from batchway.core.errors import RequestError
from batchway.core.money import to_dollars, to_pico
from batchway.db import budgets
from batchway.wire.keys import Budget, BudgetSet, Limits, LimitsSet

DOLLARS = re.compile(r"[0-9]{1,7}(\.[0-9]{1,12})?")


def set_fields(wanted: msgspec.Struct) -> dict[str, Any]:
    """The fields that were sent, as they go into columns and into the audit log."""
    return msgspec.to_builtins(wanted)


def changed_limits(old: dict[str, int] | None, wanted: LimitsSet | None) -> dict[str, int] | None:
    """The column `limits` after the change: what is not sent stays, null takes a limit away."""
    if wanted is None:
        return None
    merged = {**(old or {}), **set_fields(wanted)}
    return {name: limit for name, limit in merged.items() if limit is not None} or None


def limits_of(stored: dict[str, int] | None) -> Limits:
    """The limits as they are shown."""
    return Limits(**(stored or {}))


def change_budget(tx: Connection, owner: str, wanted: BudgetSet | UnsetType | None, now: float) -> None:
    """Sets or drops the owner's budget; nothing when the request does not speak of it. RequestError names the field."""
    if wanted is None:
        budgets.drop_budget(tx, owner)
    elif wanted is not UNSET:
        budgets.set_budget(tx, owner, _pico(wanted.usd), wanted.period, now)


def budget_shown(tx: Connection, owner: str, now: float) -> Budget | None:
    """The owner's budget and what is left of it."""
    found = budgets.budget_of(tx, owner, now)
    if found is None:
        return None
    end = period_end(found.period, max(now, found.starts_at))
    return Budget(
        usd=to_dollars(found.amount),
        period=found.period,
        starts_at=int(found.starts_at),
        ends_at=None if end is None else int(end),
        held_usd=to_dollars(found.held),
        settled_usd=to_dollars(found.settled),
        remaining_usd=to_dollars(found.remainder),
    )


def _pico(usd: str) -> int:
    pico = to_pico(usd) if DOLLARS.fullmatch(usd) else -1
    if not 0 <= pico <= MOST:
        message = (
            f"Invalid 'budget.usd': expected dollars from 0 to {to_dollars(MOST)} as a decimal string such as '12.50', "
            "with at most 12 decimals."
        )
        raise RequestError(message, code="invalid_value", param="budget.usd")
    return pico
