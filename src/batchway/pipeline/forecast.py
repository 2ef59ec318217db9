"""What a batch would use, before it spends anything: for a stored file or for inline lines. Not a stage."""

from __future__ import annotations

import msgspec

from batchway.billing.estimate import estimate
from batchway.core.errors import RequestError
from batchway.core.linecheck import LineCheck
from batchway.core.linefaults import waivable
from batchway.core.principal import Principal
from batchway.db import files
from batchway.pipeline.create import check_purpose, window_seconds
from batchway.pipeline.routing import Stats, demands, plan_routes
from batchway.pipeline.trip import Trip
from batchway.providers.accounts import Want
from batchway.wire.batches import BatchEstimate, EstimateCreate


async def forecast(trip: Trip, principal: Principal, wanted: EstimateCreate) -> BatchEstimate:
    """The estimate; RequestError when a model has no route, or there is nothing to estimate."""
    models = await _models(trip, principal, wanted)
    want = Want(wanted.endpoint, window_seconds(wanted.completion_window), wanted.custom_llm_provider)
    plan = await plan_routes(trip, models, want, wanted.model)
    for problem in plan.unroutable.values():
        raise RequestError(problem.message, code=problem.code, param="model")
    return estimate(demands(trip, plan, models, wanted.model), trip.prices, trip.clock())


async def _models(trip: Trip, principal: Principal, wanted: EstimateCreate) -> Stats:
    if wanted.input_file_id is not None and wanted.requests is not None:
        message = "Send either 'input_file_id' or 'requests', not both."
        raise RequestError(message, code="invalid_value", param="requests")
    if wanted.input_file_id is not None:
        file = await trip.db.read(files.get, wanted.input_file_id, principal.sees)
        check_purpose(file)
        return file["models"] or {}
    if not wanted.requests:
        raise RequestError(
            "Missing required parameter: 'input_file_id' or 'requests'.",
            code="missing_required_parameter",
            param="input_file_id",
        )
    check = LineCheck()
    for request in wanted.requests:
        check.feed(msgspec.json.encode(request) + b"\n")
    findings = check.finish()
    for fault in findings.faults:
        if not (wanted.model and waivable(fault)):
            raise RequestError(f"requests[{(fault.line or 1) - 1}]: {fault.message}", code=fault.code, param="requests")
    return msgspec.to_builtins(findings.models)
