"""What `/metrics` tells: what this process counted, and what the database, the engine and the executor say now.

The database is asked at most every `KEPT` seconds, however many ask. The sums of the ledger are kept day by day, so
once the past has been read (once, off the event loop), a look reads two days: today and yesterday, in which a
transaction that is still open may post. So the sums are exact and start at the first entry, in every process alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from batchway import metrics
from batchway.core.money import PICO
from batchway.db import census, receivers
from batchway.db.schema import USAGE_COLUMNS
from batchway.metrics import Labels, Reading, Values
from batchway.pipeline.trip import Trip

KEPT = 5.0  # seconds
DAY = 86400
DAYS_AT_ONCE = 10
TOKENS = tuple(name for name in USAGE_COLUMNS if name.endswith("_tokens"))

Sums = dict[Labels, dict[str, int]]


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """How this process is. `works`: it has a lease, or had. `executor`: (requests under way, the limit) by account."""

    works: bool
    alive: bool
    beat_age: float
    executor: Mapping[str, tuple[int, int]]


class Gauges:
    """One a gateway."""

    def __init__(self, trip: Trip, vitals: Callable[[], Vitals]) -> None:
        self._trip = trip
        self._vitals = vitals
        self._lock = asyncio.Lock()
        self._past: Sums = {}
        self._present: Sums = {}
        self._unread: int | None = None  # the first day that is not in `_past`; None until the ledger has an entry
        self._found: Values = {}
        self._asked_at = float("-inf")

    async def tell(self, accept: str) -> tuple[bytes, str]:
        """(every metric, its content type) for an Accept header."""
        async with self._lock:
            now = self._trip.clock()
            if not 0 <= now - self._asked_at < KEPT:
                await self._read_ledger(int(now // DAY))
                self._found = await self._read(now)
                self._asked_at = now
        values = {**self._found, **_of_process(self._vitals())}
        return await asyncio.to_thread(metrics.render, values, accept)  # milliseconds, where there are many series

    async def _read(self, now: float) -> Values:
        read = self._trip.db.read_apart
        accounts = list(self._trip.accounts.endpoints())
        values = _of_census(await read(census.census, accounts, now))
        values |= _of_budgets(*await read(census.present_budgets, now))
        values |= _of_receivers(await read(receivers.lag, now))
        return values | _of_ledger(self._past, self._present)

    async def _read_ledger(self, today: int) -> None:
        read = self._trip.db.read_apart
        if self._unread is None:
            self._unread = await read(census.first_day)
        if self._unread is None:
            return
        while self._unread < today - 1:
            days = range(self._unread, min(self._unread + DAYS_AT_ONCE, today - 1))
            _add(self._past, await read(census.sums_of_days, days))
            self._unread = days.stop
        self._present = {}
        _add(self._present, await read(census.sums_of_days, range(self._unread, today + 1)), known=self._past)


def _add(sums: Sums, rows: list[dict[str, Any]], known: Sums | None = None) -> None:
    """Adds the rows, those of routes and those of projects. What comes late is `other`, for good."""
    for row in rows:
        labels = tuple(row[name] for name in ("account", "model", "lane", "project") if name in row)
        into = sums.setdefault(_place(labels, sums, known or {}), {})
        for name in ("unknown", "lines", *TOKENS, "amount"):
            into[name] = into.get(name, 0) + int(row[name])


def _place(labels: Labels, sums: Sums, known: Sums) -> Labels:
    if labels in sums or labels in known:
        return labels
    kin = {of for of in (*sums, *known) if len(of) == len(labels)}
    return labels if len(kin) < metrics.MOST else tuple(metrics.OTHER for _ in labels)


def _of_ledger(past: Sums, present: Sums) -> dict[Reading, list[tuple[Labels, float]]]:
    total = {labels: _both(past.get(labels, {}), present.get(labels, {})) for labels in {**past, **present}}
    routes = {labels: sums for labels, sums in total.items() if len(labels) > 1}
    return {
        metrics.TOKENS: [
            ((*labels, name.removesuffix("_tokens")), sums[name])
            for labels, sums in routes.items()
            for name in TOKENS
            if sums[name]
        ],
        metrics.LINES: [(labels, sums["lines"]) for labels, sums in routes.items()],
        metrics.UNPRICED: [(labels, sums["unknown"]) for labels, sums in routes.items()],
        metrics.AMOUNT_DOLLARS: [(labels, sums["amount"] / PICO) for labels, sums in routes.items()],
        metrics.PROJECT_DOLLARS: [(of, sums["amount"] / PICO) for of, sums in total.items() if len(of) == 1],
    }


def _both(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _of_census(found: census.Census) -> dict[Reading, list[tuple[Labels, float]]]:
    return {
        metrics.BATCHES: _labelled(found.batches),
        metrics.JOBS: _labelled(found.jobs),
        metrics.CHUNKS_WAITING: _labelled(found.chunks),
        metrics.OLDEST_SECONDS: _labelled(found.oldest),
        metrics.POLL_DELAY: [((), found.poll_delay)],
        metrics.NEAR_DEADLINE: [((), found.near_deadline)],
        metrics.HOLDS: [((), found.holds)],
        metrics.HELD_DOLLARS: [((), found.held / PICO)],
        metrics.HOLDS_STUCK: [((), found.stuck)],
        metrics.DELIVERIES: _labelled(found.deliveries),
    }


def _of_budgets(found: list[census.Budget], most_used: float) -> dict[Reading, list[tuple[Labels, float]]]:
    dollars: list[tuple[Labels, float]] = []
    used: list[tuple[Labels, float]] = [(("key", ""), most_used)]
    for budget in found:
        scope, _, project = budget.owner.partition(":")
        parts = {"amount": budget.amount, "settled": budget.settled, "held": budget.held, "remaining": budget.remainder}
        dollars += [((scope, project, part), pico / PICO) for part, pico in parts.items()]
        if budget.amount:
            used.append(((scope, project), budget.used / budget.amount))
    return {metrics.BUDGET_DOLLARS: dollars, metrics.BUDGET_USED_RATIO: used}


def _of_receivers(lags: list[receivers.Lag]) -> dict[Reading, list[tuple[Labels, float]]]:
    return {
        metrics.RECEIVER_LAG_EVENTS: [((lag.name,), lag.events) for lag in lags],
        metrics.RECEIVER_LAG_SECONDS: [((lag.name,), lag.seconds) for lag in lags],
        metrics.RECEIVER_FAILURES: [((lag.name,), lag.failures) for lag in lags],
        metrics.DEAD_LETTERS: [((lag.name,), lag.dead) for lag in lags],
    }


def _of_process(vitals: Vitals) -> dict[Reading, list[tuple[Labels, float]]]:
    return {
        metrics.ENGINE_ALIVE: [((), vitals.alive)] if vitals.works else [],
        metrics.ENGINE_BEAT_AGE: [((), vitals.beat_age)] if vitals.works else [],
        metrics.EXECUTOR_IN_FLIGHT: [((name,), pair[0]) for name, pair in vitals.executor.items()],
        metrics.EXECUTOR_LIMIT: [((name,), pair[1]) for name, pair in vitals.executor.items()],
    }


def _labelled(values: Mapping[str, float]) -> list[tuple[Labels, float]]:
    return [((name,), value) for name, value in values.items()]
