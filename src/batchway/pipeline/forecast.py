"""What a batch would use, take and cost, before it spends anything: for a stored file or inline lines. Not a stage.

Each model's lines are shown on the route that they would take, and for comparison on the routes that would take over
and in the other lane of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from batchway.billing.estimate import Demand, Ran, estimate
from batchway.core.errors import RequestError
from batchway.core.jobs import Route
from batchway.core.linecheck import LineCheck
from batchway.core.linefaults import waivable
from batchway.core.principal import Principal
from batchway.db import files, history
from batchway.pipeline.create import check_purpose, window_seconds
from batchway.pipeline.routing import Stats, options, plan_routes
from batchway.pipeline.sample import Sample, count, read_sample, sample_of
from batchway.pipeline.trip import Trip
from batchway.providers.accounts import Want
from batchway.wire.batches import BatchEstimate, EstimateCreate

DAY = 86_400
HISTORY = 30  # days
FEW = 20  # lines: fewer say nothing of how long answers are
JOBS = 100  # the latest of a route


async def forecast(trip: Trip, principal: Principal, wanted: EstimateCreate) -> BatchEstimate:
    """The estimate; RequestError when a model has no route, or there is nothing to estimate."""
    models, sample = await _read(trip, principal, wanted)
    want = Want(wanted.endpoint, window_seconds(wanted.completion_window), wanted.custom_llm_provider)
    plan = await plan_routes(trip, models, want, wanted.model, principal.policies)
    for problem in plan.unroutable.values():
        raise RequestError(problem.message, code=problem.code, param="model")
    demands: list[Demand] = []
    for routed, names in zip(options(trip, plan, models, wanted.model), plan.routes.values(), strict=True):
        lines = {name: stats for name, stats in models.items() if wanted.model or name in names}
        first, *others = [
            await _known(trip, principal, demand, want.window, (sample, lines)) for demand in _lanes(trip, routed, want)
        ]
        demands.append(msgspec.structs.replace(first, others=tuple(others)))
    return estimate(demands, trip.prices, trip.clock())


def _lanes(trip: Trip, routed: list[Demand], want: Want) -> Iterator[Demand]:
    """The routes of the same lines, the preferred one first, then those routes in their other lane."""
    for place, demand in enumerate(routed):
        yield msgspec.structs.replace(demand, falls_over=place > 0)
    for demand in routed:
        account, route = trip.accounts.get(demand.route.account), demand.route
        native = account.native is not None and want.endpoint in account.native.limits(route.model).endpoints
        other = "executed" if route.lane == "native" else "native"
        if native if other == "native" else account.endpoint is not None:
            yield msgspec.structs.replace(demand, route=msgspec.structs.replace(route, lane=other))


async def _known(
    trip: Trip, principal: Principal, demand: Demand, window: int, counted: tuple[Sample, Stats]
) -> Demand:
    """The demand with what is known of its tokens, of this key's past and of the route's."""
    sample, lines = counted
    tokens, method = await count(sample, lines, lines, demand.priced_as)
    now = trip.clock()
    today = int(now // DAY)
    usual = await trip.db.read(history.usual, principal.key_id, demand.route, range(today - HISTORY, today + 1))
    ran = await _ran(trip, demand.route, now)
    enough = usual.lines >= FEW
    return msgspec.structs.replace(
        demand,
        input_tokens=tokens,
        input_guess=demand.input_tokens,
        method=method,
        usual_output=usual.output_tokens / usual.lines if enough else None,
        usual_busy=usual.milliseconds / usual.lines if enough and usual.milliseconds else None,
        ran=ran,
        window=window,
    )


async def _ran(trip: Trip, route: Route, now: float) -> tuple[Ran, ...]:
    found = await trip.db.read(history.latest_jobs, route, now - HISTORY * DAY, JOBS)
    return tuple(Ran(lines, seconds) for lines, seconds in found)


async def _read(trip: Trip, principal: Principal, wanted: EstimateCreate) -> tuple[Stats, Sample]:
    """What intake found in the lines, and a sample of them."""
    if wanted.input_file_id is not None and wanted.requests is not None:
        message = "Send either 'input_file_id' or 'requests', not both."
        raise RequestError(message, code="invalid_value", param="requests")
    if wanted.input_file_id is not None:
        file = await trip.db.read(files.get, wanted.input_file_id, principal.sees)
        check_purpose(file)
        return file["models"] or {}, await read_sample(trip.storage, file)
    if not wanted.requests:
        raise RequestError(
            "Missing required parameter: 'input_file_id' or 'requests'.",
            code="missing_required_parameter",
            param="input_file_id",
        )
    check = LineCheck()
    lines = [msgspec.json.encode(request) for request in wanted.requests]
    for line in lines:
        check.feed(line + b"\n")
    findings = check.finish()
    for fault in findings.faults:
        if not (wanted.model and waivable(fault)):
            raise RequestError(f"requests[{(fault.line or 1) - 1}]: {fault.message}", code=fault.code, param="requests")
    return msgspec.to_builtins(findings.models), sample_of(lines)
