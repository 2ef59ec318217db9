"""Costs and usage by day and group, as JSON in OpenAI's shape or as CSV; corrections, for admins.

CSV holds every day that is asked for, read and sent a day at a time. Texts that a spreadsheet would take for a formula
get an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from batchway.core.money import to_dollars
from batchway.db import audit
from batchway.db.costs import DAY
from batchway.pipeline import corrections, costs
from batchway.pipeline.costs import Result
from batchway.server import once
from batchway.server.routing import Call, Operation, encode
from batchway.wire.costs import (
    Amount,
    Correction,
    CorrectionCreate,
    CostBucket,
    CostPage,
    CostQuery,
    CostResult,
    UsageBucket,
    UsagePage,
    UsageResult,
)

FIELDS = {
    "project": "project_id",
    "key_id": "api_key_id",
    "model": "model",
    "account": "provider",
    "lane": "lane",
    "batch_id": "batch_id",
}
"""The name of a column in answers."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
CSV = "text/csv"

T = TypeVar("T")
Days = list[tuple[int, list[Result]]]


async def list_costs(call: Call) -> Response:
    """Amounts by day and group, exact to the ledger; as CSV when `text/csv` is accepted."""
    return await (_as_csv(call, "costs", _cost) if _wants_csv(call) else _as_page(call, _cost_page))


async def list_usage(call: Call) -> Response:
    """Tokens and lines by day and group; as CSV when `text/csv` is accepted."""
    return await (_as_csv(call, "usage", _usage) if _wants_csv(call) else _as_page(call, _usage_page))


async def _as_page(call: Call, to_page: Callable[[Days, str | None], CostPage | UsagePage]) -> Response:
    wanted: CostQuery = call.query
    found = costs.span(wanted, call.gateway.clock(), wanted.limit or costs.BUCKETS)
    following = None if found.following is None else f"page_{found.following}"
    body = await _read(call, found.days, lambda days: encode(to_page(days, following)))
    return Response(body, media_type="application/json")


async def _read(call: Call, days: range, use: Callable[[Days], T]) -> T:
    """What `use` makes of the results of each day. It runs off the event loop: they may be many."""
    wanted: CostQuery = call.query
    wanted.provider = call.provider
    asked = costs.asked_for(wanted, call.principal.sees, days)

    def used(tx: Connection) -> T:
        found = costs.results(tx, asked)
        return use([(day, found.get(day, [])) for day in days])

    return await call.gateway.db.read_apart(used)


def _cost_page(days: Days, following: str | None) -> CostPage:
    data = [
        CostBucket(start_time=day * DAY, end_time=(day + 1) * DAY, results=[_cost(result) for result in results])
        for day, results in days
    ]
    return CostPage(data=data, has_more=following is not None, next_page=following)


def _usage_page(days: Days, following: str | None) -> UsagePage:
    data = [
        UsageBucket(start_time=day * DAY, end_time=(day + 1) * DAY, results=[_usage(result) for result in results])
        for day, results in days
    ]
    return UsagePage(data=data, has_more=following is not None, next_page=following)


def _group(result: Result) -> dict[str, Any]:
    named = {FIELDS[column]: value or None for column, value in result.group.items()}
    return named if result.tags is None else {**named, "tags": result.tags}


def _cost(result: Result) -> CostResult:
    figures = result.figures
    unknown = figures["unknown"]
    value = None if unknown == figures["entries"] else to_dollars(figures["amount"])
    return CostResult(
        amount=Amount(value=value),
        amount_known=unknown == 0,
        entries=figures["entries"],
        unknown_entries=unknown,
        **_group(result),
    )


def _usage(result: Result) -> UsageResult:
    figures = result.figures
    return UsageResult(
        num_model_requests=figures["lines"],
        input_tokens=figures["input_tokens"],
        input_cached_tokens=figures["cached_tokens"],
        input_cache_write_tokens=figures["cache_write_tokens"],
        input_audio_tokens=figures["audio_input_tokens"],
        output_tokens=figures["output_tokens"],
        output_reasoning_tokens=figures["reasoning_tokens"],
        output_audio_tokens=figures["audio_output_tokens"],
        output_image_tokens=figures["image_output_tokens"],
        busy_milliseconds=figures["milliseconds"],
        **_group(result),
    )


# CSV ------------------------------------------------------------------------------------------------------------------


def _wants_csv(call: Call) -> bool:
    return CSV in call.request.headers.get("accept", "")


async def _as_csv(call: Call, name: str, to_wire: Callable[[Result], CostResult | UsageResult]) -> Response:
    wanted: CostQuery = call.query
    days = iter(costs.span(wanted, call.gateway.clock(), wanted.limit).days)
    first = next(days)
    asked = costs.asked_for(wanted, None, range(first, first + 1))
    groups = [*(FIELDS[column] for column in asked.columns), *(costs.TAG + tag for tag in asked.by_tags)]
    head = _csv([["date", *groups, *_figures(to_wire(NOTHING))]])
    rows = await _csv_of(call, first, to_wire)  # a refusal is told before the answer begins

    async def pieces() -> AsyncGenerator[str]:
        yield head + rows
        for day in days:
            if more := await _csv_of(call, day, to_wire):
                yield more

    headers = {"content-disposition": f'attachment; filename="{name}.csv"', "cache-control": "no-store"}
    return StreamingResponse(pieces(), headers=headers, media_type=f"{CSV}; charset=utf-8")


NOTHING = Result({}, None, dict.fromkeys(costs.FIGURES, 0))


async def _csv_of(call: Call, day: int, to_wire: Callable[[Result], CostResult | UsageResult]) -> str:
    date = datetime.fromtimestamp(day * DAY, UTC).date().isoformat()

    def rows(days: Days) -> str:
        return _csv(
            [
                date,
                *_cells(result.group.values()),
                *_cells((result.tags or {}).values()),
                *_figures(to_wire(result)).values(),
            ]
            for _, results in days
            for result in results
        )

    return await _read(call, range(day, day + 1), rows)


def _figures(row: CostResult | UsageResult) -> dict[str, Any]:
    """The cells of a result besides its group."""
    if isinstance(row, UsageResult):
        return {name: getattr(row, name) for name in USAGE_FIGURES}
    value = row.amount.value
    return {"amount_usd": value, "entries": row.entries, "unknown_entries": row.unknown_entries}


USAGE_FIGURES = [name for name in UsageResult.__struct_fields__ if name.endswith(("tokens", "requests", "seconds"))]


def _cells(texts: Any) -> Iterator[str]:
    """Texts of users: nothing that a spreadsheet would run."""
    return (f"'{text}" if text and text.startswith(FORMULA) else text for text in texts)


def _csv(rows: Any) -> str:
    """RFC 4180."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


# Corrections ----------------------------------------------------------------------------------------------------------


async def correct(call: Call) -> Correction:
    """A correction or refund of an ended batch: one more entry of the ledger."""
    return await call.gateway.db.write(_correct, call, call.gateway.clock())


def _correct(tx: Connection, call: Call, now: float) -> Correction:
    made, new = corrections.correct(tx, call.body, now, call.gateway.new_id)
    if new:
        audit.record(tx, call.actor, "cost.corrected", made.batch_id, now, msgspec.to_builtins(made))
    once.keep(tx, call.principal, call.idempotency, made, now)
    return made


OPERATIONS = (
    Operation(
        method="GET", path="/costs", name="listCosts", handler=list_costs, query=CostQuery, answer=CostPage,
        tag="Costs",
    ),
    Operation(
        method="GET", path="/usage", name="listUsage", handler=list_usage, query=CostQuery, answer=UsagePage,
        tag="Costs",
    ),
    Operation(  # where OpenAI's own admin clients ask
        method="GET", path="/organization/costs", name="organizationCosts", handler=list_costs, query=CostQuery,
        answer=CostPage, tag="Costs",
    ),
    Operation(
        method="GET", path="/organization/usage/completions", name="organizationUsage", handler=list_usage,
        query=CostQuery, answer=UsagePage, tag="Costs",
    ),
    Operation(
        method="POST", path="/costs/corrections", name="correctCosts", handler=correct, body=CorrectionCreate,
        answer=Correction, tag="Costs", admin=True, errors=(403, 404, 409, 422), headers=("Idempotency-Key",),
        example={"batch_id": "batch_68f0", "kind": "refund", "amount_usd": "-1.25", "note": "Refunded on invoice 7."},
    ),
)  # fmt: skip
