"""The simulator's sync endpoints (chat, completions, embeddings, moderations, responses, models) and `/_sim`.

Invariant: an answer is counted as given when it is sent or lost on the way (`drop`), never when the request was
refused: what `/_sim/requests` counts as `answered` is what a provider would bill.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from batchway.providers.shared.file_simulator.answers import DATED, Json, body_hash, refusal, respond
from batchway.providers.shared.file_simulator.errors import ApiError, filtered, not_found, status_error
from batchway.providers.shared.file_simulator.life import Simulation, look, shown
from batchway.providers.shared.file_simulator.lines import FILTERED, supported, trigger, trigger_fate
from batchway.providers.shared.file_simulator.store import (
    active_batches,
    count_attempt,
    list_batches,
    mark_answered,
    request_totals,
    requests_counted,
)
from batchway.providers.shared.file_simulator.web import (
    BrokenConnection,
    JsonResponse,
    NoAnswer,
    json_object,
    simulation_of,
)
from batchway.providers.shared.simulation import faults_from, parse_faults, seconds_text


def throttled(simulation: Simulation) -> ApiError:
    """A 429 that says when to come back, in real seconds."""
    wait = simulation.settings.retry_after
    headers = {"retry-after": seconds_text(wait), "retry-after-ms": str(int(wait * 1000))}
    return status_error(429, headers)


async def infer(request: Request, endpoint: str) -> Response:
    """`POST` to one of the sync endpoints; the path may name the model in the body's place."""
    simulation = simulation_of(request)
    body = await json_object(request)
    if "deployment" in request.path_params:
        body["model"] = request.path_params["deployment"]
    capacity = simulation.settings.capacity
    if capacity is not None and simulation.in_flight >= capacity:
        raise throttled(simulation)
    simulation.in_flight += 1
    try:
        return await _answer(request, endpoint, body)
    finally:
        simulation.in_flight -= 1


async def _answer(request: Request, endpoint: str, body: Json) -> Response:
    simulation = simulation_of(request)
    key = (str(body.get("model")), body_hash(body), _line_name(request, body))
    attempts = count_attempt(simulation.db, key)
    if simulation.settings.latency:
        await asyncio.sleep(simulation.settings.latency)
    broken = _triggered(simulation, trigger(body) or "", attempts)
    if broken is not None:
        return broken
    refused = refusal(endpoint, body)
    if refused is not None:
        raise refused
    if not supported(body["model"], simulation.settings.models):
        text = f"The model `{body['model']}` does not exist or you do not have access to it."
        raise ApiError(404, text, code="model_not_found")
    if simulation.hits("line", key[1]):
        raise status_error(400)
    try:
        answer = respond(endpoint, body, simulation.dice, simulation.clock.now())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # A shape the answers did not expect is the client's fault.
        raise ApiError(400, "Invalid request body.", code="invalid_value") from error
    mark_answered(simulation.db, key)
    if simulation.hits("drop", simulation.requests):
        return BrokenConnection()
    return JsonResponse(simulation.flavor.answer(endpoint, answer), headers=_RATE_HEADERS)


_RATE_HEADERS = {
    "x-ratelimit-limit-requests": "30000",
    "x-ratelimit-limit-tokens": "150000000",
    "x-ratelimit-remaining-requests": "29999",
    "x-ratelimit-remaining-tokens": "149999000",
    "x-ratelimit-reset-requests": "2ms",
    "x-ratelimit-reset-tokens": "0s",
}


def _line_name(request: Request, body: Json) -> str:
    metadata: Any = body.get("metadata")
    named = cast("Json", metadata).get("batchway_line") if isinstance(metadata, dict) else None
    return request.headers.get("x-batchway-line") or str(named or "")


def _triggered(simulation: Simulation, word: str, attempts: int) -> Response | None:
    """What a request asked to suffer: `429`, `500x2` (the first two attempts), `timeout`, `reset`."""
    name, _, times = word.partition("x") if word[:1].isdigit() else (word, "", "")
    if not name or (times.isdigit() and attempts > int(times)):
        return None
    if name == "timeout":
        return NoAnswer()
    if name == "reset":
        return BrokenConnection()
    status = trigger_fate(name)
    if status == FILTERED:
        raise filtered()
    if status == 429:
        raise throttled(simulation)
    if status >= 400:
        raise status_error(status)
    return None  # what only a batch can do to a line


def _model(name: str, owner: str) -> Json:
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": owner}


async def models(request: Request) -> Response:
    """`GET /models`."""
    simulation = simulation_of(request)
    names = simulation.settings.models or tuple(DATED)
    return JsonResponse({"object": "list", "data": [_model(name, simulation.flavor.name) for name in names]})


async def model(request: Request) -> Response:
    """`GET /models/{name}`."""
    name: str = request.path_params["name"]
    simulation = simulation_of(request)
    if not supported(name, simulation.settings.models):
        raise not_found("Model", name)
    return JsonResponse(_model(name, simulation.flavor.name))


async def overview(request: Request) -> Response:
    """`GET /_sim`: the virtual time, what may go wrong and how often it did."""
    simulation = simulation_of(request)
    drawn = {name: count for name, count in simulation.drawn.items() if count}
    return JsonResponse(
        {
            "simulator": simulation.flavor.name,
            "now": simulation.clock.now(),
            "speed": simulation.clock.speed,
            "requests": simulation.requests,
            "faults": simulation.faults.named(),
            "faults_drawn": drawn,
        }
    )


async def batches(request: Request) -> Response:
    """`GET /_sim/batches`: every batch, oldest first, also those whose creation was answered with a lie."""
    simulation = simulation_of(request)
    found = reversed(list_batches(simulation.db, after=None, limit=-1))
    return JsonResponse({"data": [shown(simulation, look(simulation, batch)) for batch in found]})


async def requests(request: Request) -> Response:
    """`GET /_sim/requests?min=N`: sync requests answered at least N times (default 0), and totals."""
    simulation = simulation_of(request)
    least = request.query_params.get("min", "0")
    counted = requests_counted(simulation.db, int(least) if least.isdigit() else 0)
    return JsonResponse({"totals": request_totals(simulation.db), "data": counted})


async def faults(request: Request) -> Response:
    """`POST /_sim/faults`: replaces all faults, from `{"spec": "line=0.1"}` or `{"line": 0.1}`."""
    simulation = simulation_of(request)
    body = await json_object(request)
    try:
        simulation.faults = parse_faults(body["spec"]) if "spec" in body else faults_from(body)
    except (ValueError, TypeError, AttributeError) as error:
        raise ApiError(400, str(error), code="invalid_value") from error
    return JsonResponse(simulation.faults.named())


async def advance(request: Request) -> Response:
    """`POST /_sim/advance {"seconds": n}`: moves the clock, then answers when every batch is where it then is."""
    simulation = simulation_of(request)
    seconds = (await json_object(request)).get("seconds", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise ApiError(400, "seconds must be a number, 0 or more", param="seconds", code="invalid_value")
    # Work under way belongs to the time before: a scan that ended after the jump would shift the whole batch by it.
    await settle(simulation)
    simulation.clock.advance(seconds)
    simulation.keep_clock()
    await settle(simulation)
    return JsonResponse({"now": simulation.clock.now()})


async def settle(simulation: Simulation) -> None:
    """Looks at every batch until no scan and no writing is under way."""
    while True:
        for batch in active_batches(simulation.db):
            look(simulation, batch)
        if not simulation.background.busy:
            return
        await simulation.background.idle()
