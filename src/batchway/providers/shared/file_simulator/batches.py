"""The simulator's Batches API: create, retrieve, list, cancel.

Invariant: a created batch is stored before anything is answered, so the lies (`accept_then_500`, `accept_then_reset`)
are lies about a batch that exists and runs.
"""

from __future__ import annotations

from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from batchway.providers.shared.file_simulator.errors import (
    ApiError,
    missing,
    not_found,
    status_error,
    wrong_type,
    wrong_value,
)
from batchway.providers.shared.file_simulator.life import Simulation, cancel, draw_fate, look, shown
from batchway.providers.shared.file_simulator.lines import line_fault
from batchway.providers.shared.file_simulator.store import (
    Batch,
    File,
    created_since,
    get_batch,
    get_file,
    list_batches,
    next_ordinal,
    save_batch,
)
from batchway.providers.shared.file_simulator.web import (
    BrokenConnection,
    JsonResponse,
    error_response,
    expiry_seconds,
    json_object,
    page,
    page_limit,
    simulation_of,
)
from batchway.providers.shared.simulation import seconds_text


async def create(request: Request) -> Response:
    """`POST /batches`."""
    simulation = simulation_of(request)
    body = await json_object(request)
    check(simulation, body, ("input_file_id", "endpoint", "completion_window"))
    file = _input_file(simulation, body["input_file_id"])
    batch = new_batch(simulation, body)
    if file is None:
        lose_input(simulation, batch)
    return started(request, batch)


def started(request: Request, batch: Batch) -> Response:
    """Stores a new batch and answers its creation, or lies about it."""
    simulation = simulation_of(request)
    save_batch(simulation.db, batch)
    if simulation.hits("accept_then_500", batch.ordinal):
        return error_response(simulation, request.scope, status_error(500))
    if simulation.hits("accept_then_reset", batch.ordinal):
        return BrokenConnection()
    status = simulation.flavor.created(request)
    return JsonResponse(_shown(request, look(simulation, batch)), status_code=status)


def _shown(request: Request, batch: Batch) -> dict[str, Any]:
    simulation = simulation_of(request)
    return simulation.flavor.batch(request.scope, batch, shown(simulation, batch))


def check(simulation: Simulation, body: dict[str, Any], names: tuple[str, ...]) -> None:
    """Refuses a creation without these, with other values than are supported, or too soon after others."""
    supported = {"endpoint": simulation.flavor.endpoints, "completion_window": ("24h",)}
    for name in names:
        value = body.get(name)
        if value is None:
            raise missing(name)
        if not isinstance(value, str):
            raise wrong_type(name, "a string", value)
        if name in supported and value not in supported[name]:
            raise wrong_value(name, value, supported[name])
    _check_metadata(body.get("metadata"))
    _output_seconds(simulation, body)
    _check_rate(simulation)


def _output_seconds(simulation: Simulation, body: dict[str, Any]) -> int | None:
    name = "output_expires_after"
    return expiry_seconds(body.get(name), name, simulation.flavor.expiry)


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    pairs = cast("dict[str, Any]", metadata)
    if len(pairs) > 16:
        text = (
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            f"but got an object with {len(pairs)} properties instead."
        )
        raise ApiError(400, text, param="metadata", code="object_above_max_properties")
    for key, value in pairs.items():
        name = f"metadata.{key}"
        if not isinstance(value, str):
            raise wrong_type(name, "a string", value)
        for text, most in ((key, 64), (value, 512)):
            if len(text) > most:
                message = (
                    f"Invalid '{name}': string too long. Expected a string with maximum length {most}, "
                    f"but got a string with length {len(text)} instead."
                )
                raise ApiError(400, message, param=name, code="string_above_max_length")


def _check_rate(simulation: Simulation) -> None:
    most = simulation.settings.max_batches_per_hour
    if not most or created_since(simulation.db, simulation.clock.now() - 3600) < most:
        return
    headers = {"retry-after": seconds_text(60 / simulation.clock.speed)}
    text = f"Rate limit reached: at most {most} batches may be created in an hour. Please try again later."
    raise ApiError(429, text, type="requests", code="rate_limit_exceeded", headers=headers)


def _input_file(simulation: Simulation, identity: str) -> File | None:
    """The file that a batch is to read; ApiError when it cannot be one's input, None when there is none."""
    file = get_file(simulation.db, identity)
    if file is None:
        return None
    if file.purpose != "batch":
        text = f"The file '{file.id}' has purpose '{file.purpose}'; a batch reads files with purpose 'batch'."
        raise ApiError(400, text, param="input_file_id", code="invalid_value")
    status = simulation.flavor.file_status(simulation.settings, file, simulation.clock.now())
    if status != "processed":
        text = f"The file '{file.id}' is not ready: its status is '{status}', and a batch reads files once 'processed'."
        raise ApiError(400, text, param="input_file_id", code="invalid_request")
    return file


def new_batch(simulation: Simulation, body: dict[str, Any]) -> Batch:
    """A batch as it begins, not stored yet."""
    ordinal = next_ordinal(simulation.db)
    now = simulation.clock.now()
    fate = draw_fate(simulation, ordinal)
    return Batch(
        id=simulation.flavor.new_id("batch_"),
        ordinal=ordinal,
        endpoint=body["endpoint"],
        input_file_id=body.get("input_file_id") or "",
        metadata=body.get("metadata"),
        output_seconds=_output_seconds(simulation, body),
        created_at=now,
        expires_at=now + simulation.settings.window_seconds,
        fate=fate,
        overruns=not simulation.flavor.expires and fate.stops_at is None,
    )


def lose_input(simulation: Simulation, batch: Batch) -> None:
    """A batch whose input file is unknown is accepted and fails, as at OpenAI."""
    text = f"Cannot find file {batch.input_file_id}, or organization org-simulator does not have access to it."
    batch.faults = [line_fault("invalid_request", text, "file_id")]
    batch.scanned_at = simulation.clock.now()


def _found(request: Request) -> Batch:
    simulation = simulation_of(request)
    identity: str = request.path_params["batch_id"]
    batch = get_batch(simulation.db, identity)
    if batch is None:
        raise not_found("batch", identity)
    return look(simulation, batch)


async def retrieve(request: Request) -> Response:
    """`GET /batches/{batch_id}`."""
    return JsonResponse(_shown(request, _found(request)))


async def listing(request: Request) -> Response:
    """`GET /batches`."""
    simulation = simulation_of(request)
    limit = page_limit(request, 20, 100)
    after = request.query_params.get("after")
    if after is not None and get_batch(simulation.db, after) is None:
        raise not_found("batch", after)
    batches = list_batches(simulation.db, after=after, limit=limit + 1)
    return JsonResponse(page([_shown(request, look(simulation, batch)) for batch in batches], limit))


async def cancelling(request: Request) -> Response:
    """`POST /batches/{batch_id}/cancel`."""
    simulation = simulation_of(request)
    batch = _found(request)
    # A batch that only waits for its files to be written after its time ran out has expired to its owner.
    status = "expired" if batch.status == "in_progress" and batch.done is not None else batch.status
    if status in ("completed", "failed", "expired"):
        raise ApiError(409, f"Cannot cancel a batch with status '{status}'.")
    if status not in ("cancelling", "cancelled"):
        cancel(simulation, batch)
    return JsonResponse(_shown(request, look(simulation, batch)))
