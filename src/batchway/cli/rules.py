"""Options that keys and projects share: allowed models and providers, limits, budgets; and how these are shown."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from batchway.wire.keys import Budget

F = TypeVar("F", bound=Callable[..., Any])

LIMITS = ("enqueued_tokens", "active_batches", "file_bytes", "uploads_per_day", "requests_per_minute")
BUDGET = re.compile(r"([0-9.]+)/(day|month|total)")
SPAN = re.compile(r"([1-9][0-9]*)([mhd])")
SECONDS = {"m": 60, "h": 3600, "d": 86400}

budget_option = click.option("--budget", metavar="USD/PERIOD", help="Such as 12.50/month; the others: day, total.")


def rule_options(function: F) -> F:
    """What a key or a project may use; `taken` reads them."""
    for option in (
        budget_option,
        click.option("--limit", multiple=True, metavar="NAME=NUMBER", help=f"One of {', '.join(LIMITS)}."),
        click.option("--provider", multiple=True, metavar="ACCOUNT", help="Only these accounts; may be repeated."),
        click.option("--model", multiple=True, metavar="PATTERN", help="Only such models, as 'gpt-4o*'; repeatable."),
    ):
        function = option(function)
    return function


def clear_option(*fields: str) -> Callable[[F], F]:
    """`--clear`: rules to take away."""
    return click.option("--clear", multiple=True, type=click.Choice(fields), help="Take this rule away.")


def taken(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of what was given: of `rule_options`, `clear_option`, and options that have a field's own name."""
    lists = {"model": "models", "provider": "providers", "cidr": "cidrs", "scope": "scopes"}
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        if name == "limit":
            fields["limits"] = _limits(value)
        elif name == "budget":
            fields["budget"] = budget(value)
        elif name == "clear":
            fields |= dict.fromkeys(value)
        else:
            fields[lists.get(name, name)] = list(value) if name in lists else value
    return fields


def budget(text: str) -> dict[str, str]:
    """A budget written `12.50/month`; wrong use when it is none."""
    match = BUDGET.fullmatch(text)
    if match is None:
        raise click.UsageError(f"'{text}' is no budget: write 12.50/day, 12.50/month or 12.50/total.")
    return {"usd": match[1], "period": match[2]}


def moment(text: str) -> int:
    """Unix seconds of `30d`, `12h`, `90m` from now, or of a number of unix seconds; wrong use when it is neither."""
    match = SPAN.fullmatch(text)
    if match is not None:
        return int(time.time()) + int(match[1]) * SECONDS[match[2]]
    if not text.isdecimal():
        raise click.UsageError(f"'{text}' is no time: write <n>m, <n>h or <n>d from now, or unix seconds.")
    return int(text)


def shown(rules: Any) -> list[tuple[str, object]]:
    """The rules of a key or a project as names and values."""
    limits = ", ".join(f"{name} {limit}" for name, limit in rules.limits.to_dict().items() if limit is not None)
    return [
        ("models", ", ".join(rules.models or ()) or None),
        ("providers", ", ".join(rules.providers or ()) or None),
        ("limits", limits or None),
        ("budget", None if rules.budget is None else budget_line(rules.budget)),
    ]


def budget_line(found: Budget) -> str:
    """A budget and what is left of it, in one line."""
    period = "in all" if found.period == "total" else f"a {found.period}"
    return (
        f"${found.usd} {period}: ${found.settled_usd} settled, ${found.held_usd} held, ${found.remaining_usd} remaining"
    )


def _limits(texts: Sequence[str]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in LIMITS or not (number.isdecimal() or number == "none"):
            raise click.UsageError(f"'{text}' must be NAME=NUMBER (or NAME=none), NAME one of {', '.join(LIMITS)}.")
        found[name] = None if number == "none" else int(number)
    return found
