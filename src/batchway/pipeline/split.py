"""Lines are grouped by route and cut at each provider's limits into jobs.

The line index tells how many lines and bytes of each model stand in each block, so a million lines are split without
reading the file. All jobs and the step to `in_progress` are one transaction: a batch is split entirely or not at all,
and no line is left without a job.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import BatchwayError
from batchway.core.jobs import Limits, Route
from batchway.core.principal import Sight
from batchway.core.spans import INDEX_SUFFIX, Cut, LineIndex, cut, decode_index
from batchway.core.states import BatchState
from batchway.db import batches, files
from batchway.db.transitions import create_jobs, move_batch
from batchway.pipeline.routing import plan_routes, policies_of, want_of
from batchway.pipeline.trip import Trip


async def split(trip: Trip, batch_id: str) -> None:
    """Leaves a validated batch in progress, its jobs planned; a cancelled one gets its jobs too, to be ended."""
    batch = await trip.db.read(batches.get, batch_id)
    if batch["prepared_at"] is not None:
        return
    file = await trip.db.read(files.get, batch["input_file_id"], Sight(batch["project"], batch["key_id"]))
    index = decode_index(await trip.storage.get(file["storage_key"] + INDEX_SUFFIX))
    plan = await plan_routes(trip, file["models"], want_of(batch), batch["model"], policies_of(batch))
    if plan.unroutable:  # routable when it was validated: validation, which comes first the next time, tells why
        raise BatchwayError(f"the routes of {batch_id} changed since it was validated: once more")
    rows: list[dict[str, Any]] = []
    for routes, names in plan.routes.items():
        models: frozenset[str] = frozenset() if batch["model"] else frozenset(names)
        limits = _narrowest([trip.accounts.provider(route).limits(route.model) for route in routes])
        cuts = _cuts(index, file["storage_key"], models, routes, limits)
        rows += [_job(trip, batch, _turned(routes, turn), part, limits) for turn, part in enumerate(cuts)]
    if sum(row["lines"] for row in rows) != file["lines"]:
        raise BatchwayError(f"the jobs of {batch_id} do not hold all of its lines")
    rows.sort(key=lambda row: row["first_line"])
    for ordinal, row in enumerate(rows):
        row["ordinal"] = ordinal
    await trip.db.write(_store, batch_id, rows, trip.clock())


def _narrowest(limits: list[Limits]) -> Limits:
    """What every route takes, since each may have to take over the others' jobs."""
    lines, size = min(one.lines for one in limits), min(one.bytes for one in limits)
    windows = max(one.windows[0] for one in limits), min(one.windows[1] for one in limits)
    return msgspec.structs.replace(limits[0], lines=lines, bytes=size, windows=windows)


def _turned(routes: tuple[Route, ...], turn: int) -> tuple[Route, ...]:
    """The routes with another one first each time: the jobs of one model are spread over them."""
    first = turn % len(routes)
    return routes[first:] + routes[:first]


def _cuts(index: LineIndex, key: str, models: frozenset[str], routes: tuple[Route, ...], limits: Limits) -> list[Cut]:
    longest = max(len(route.model) for route in routes)
    growth = max((longest - len(name) for name in models), default=longest)
    size = limits.bytes - max(0, growth) * limits.lines  # an alias is rewritten in each line
    return list(cut(index, key, models, lines=limits.lines, size=size))


def _job(trip: Trip, batch: RowMapping, routes: tuple[Route, ...], part: Cut, limits: Limits) -> dict[str, Any]:
    route, *others = routes
    return {
        "id": trip.new_id("job_"),
        "batch_id": batch["id"],
        "token": trip.new_id("bw"),
        "account": route.account,
        "model": route.model,
        "lane": route.lane,
        "models": sorted(part.span.models),
        "alternatives": [[other.account, other.model, other.lane] for other in others],
        "endpoint": batch["endpoint"],
        "file_key": part.span.file_key,
        "span_start": part.span.start,
        "span_end": part.span.end,
        "first_line": part.span.first_line,
        "lines": part.lines,
        "bytes": part.bytes,
        "window_seconds": min(batch["window_seconds"], limits.windows[1]),
        "deadline": batch["expires_at"],
        "priority": batch["priority"],
    }


def _store(tx: Connection, batch_id: str, rows: list[dict[str, Any]], now: float) -> None:
    batch = batches.get(tx, batch_id, hold=True)
    if batch["prepared_at"] is not None:
        return
    create_jobs(tx, now, rows)
    if batch["status"] == BatchState.VALIDATING:
        move_batch(tx, batch_id, BatchState.VALIDATING, BatchState.IN_PROGRESS, now, {"prepared_at": now})
    else:
        batches.note(tx, batch_id, {"prepared_at": now})
