"""Azure's creation of batches and their blobs: `input_blob` is fetched at once, results go to `output_folder`.

Blobs lie at a real blob service (Azurite, or Azure itself), reached as the resource's identity would. Invariant: a
client never sees a batch ended before its blobs are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from batchway.core.errors import Fault, ProviderError
from batchway.http import Http
from batchway.providers.azure.blobs import Access, Blobs
from batchway.providers.azure.simulator_settings import AzureSettings
from batchway.providers.shared.file_simulator import batches
from batchway.providers.shared.file_simulator.answers import Json
from batchway.providers.shared.file_simulator.errors import ApiError, missing, wrong_type
from batchway.providers.shared.file_simulator.life import Simulation, look, waiting
from batchway.providers.shared.file_simulator.lines import decoded, line_fault
from batchway.providers.shared.file_simulator.store import (
    TERMINAL,
    Batch,
    get_batch,
    get_file,
    list_batches,
    remove_file,
    save_batch,
)
from batchway.providers.shared.file_simulator.web import json_object, simulation_of

WINDOW = 1 << 20


async def create(request: Request) -> Response:
    """`POST /batches`, over a file or a blob."""
    simulation = simulation_of(request)
    body = await json_object(request)
    if body.get("input_blob") is None:
        _fail_fast(simulation, body)
        return await batches.create(request)
    batches.check(simulation, body, ("input_blob", "endpoint", "completion_window"))
    if body.get("metadata"):
        raise ApiError(400, "Metadata is not supported with blob storage.", param="metadata", code="invalid_request")
    folder: Any = body.get("output_folder")
    if folder is None:
        raise missing("output_folder")
    url: Any = cast("Json", folder).get("url") if isinstance(folder, dict) else None
    if not isinstance(url, str):
        raise wrong_type("output_folder.url", "a string", url)
    input_id = simulation.flavor.new_id("blob-")
    fault = await _fetch(simulation, body["input_blob"], simulation.path(input_id))
    # From here on nothing waits: two creations at once would take the same ordinal.
    batch = batches.new_batch(simulation, {**body, "input_file_id": input_id})
    batch.extra = {"input_blob": body["input_blob"], "output": f"{url.rstrip('/')}/{uuid4()}", "delivered": False}
    if fault is not None:
        batch.faults = [fault]
        batch.scanned_at = simulation.clock.now()
    return batches.started(request, batch)


async def retrieve(request: Request) -> Response:
    """`GET /batches/{batch_id}`."""
    await _deliver(simulation_of(request), [request.path_params["batch_id"]])
    return await batches.retrieve(request)


async def listing(request: Request) -> Response:
    """`GET /batches`."""
    simulation = simulation_of(request)
    everything = list_batches(simulation.db, after=None, limit=-1)
    await _deliver(simulation, [batch.id for batch in everything if _undelivered(batch)])
    return await batches.listing(request)


ROUTES: list[tuple[str, str, Callable[[Request], Any]]] = [
    ("POST", "/batches", create),
    ("GET", "/batches", listing),
    ("GET", "/batches/{batch_id}", retrieve),
]


def places(batch: Batch, *, ended: bool) -> Json:
    """What a Batch object says of blobs; both results are named, also the one that was not written."""
    if "input_blob" not in batch.extra:
        return {}
    results = {f"{word}_blob": f"{batch.extra['output']}/{name}" if ended else "" for word, name in _NAMES}
    files = {"input_file_id": None, "output_file_id": None, "error_file_id": None}
    return {**files, "input_blob": batch.extra["input_blob"], **results}


_NAMES = (("output", "results.jsonl"), ("error", "errors.jsonl"))


def _settings(simulation: Simulation) -> AzureSettings:
    return cast("AzureSettings", simulation.settings)


def _fail_fast(simulation: Simulation, body: Json) -> None:
    """In some regions a creation above the quota is refused; elsewhere the batch fails later."""
    settings = _settings(simulation)
    file = get_file(simulation.db, str(body.get("input_file_id")))
    if not settings.fail_fast or file is None:
        return
    with simulation.path(file.id).open("rb") as lines:
        first: Json = (decoded(lines.readline()) or {}).get("body") or {}
    model, limit = str(first.get("model")), settings.enqueued_token_limit
    full = limit is not None and waiting(simulation, model) + file.bytes // 4 > limit
    if full or simulation.hits("token_limit", simulation.requests):
        raise ApiError(400, simulation.flavor.too_many_tokens(model, limit or 0), code="token_limit_exceeded")


async def _with_blobs(simulation: Simulation, url: str, work: Callable[[Blobs], Awaitable[None]]) -> None:
    """Runs `work` with the blobs of the account that a URL belongs to."""
    settings, parts = _settings(simulation), urlsplit(url)
    http = Http(user_agent="batchway-simulator", random=SystemRandom())
    access = Access(account_key=settings.storage_key, sas=settings.storage_sas)
    try:
        await work(Blobs(http, f"{parts.scheme}://{parts.netloc}", access, simulation.clock.clock))
    finally:
        await http.close()


async def _fetch(simulation: Simulation, url: str, path: Path) -> Json | None:
    """Brings an input here, or says why a batch that reads it must fail."""

    async def read(blobs: Blobs) -> None:
        size = 0
        with path.open("wb") as target:
            async for chunk in blobs.read(url):
                size += target.write(chunk)
                if size > _settings(simulation).max_blob_bytes:
                    raise ProviderError("the blob is too large", fault=Fault.REJECTED, code="invalid_request")

    try:
        await _with_blobs(simulation, url, read)
    except ProviderError as error:
        code = "invalid_request" if error.code == "invalid_request" else "input_no_permissions"
        return line_fault(code, f"The input blob cannot be read: {error.message}")
    return None


async def _deliver(simulation: Simulation, found: Sequence[str]) -> None:
    """Writes the results of those batches that have ended by now to their blobs."""
    for identity in found:
        batch = get_batch(simulation.db, identity)  # each as it is now: others go on while one is written
        if batch is not None and _undelivered(batch) and look(simulation, batch).status in TERMINAL:
            await _with_blobs(simulation, batch.extra["output"], partial(_write, simulation, batch))
            batch.extra["delivered"] = True
            save_batch(simulation.db, batch)


def _undelivered(batch: Batch) -> bool:
    return batch.extra.get("delivered") is False


async def _write(simulation: Simulation, batch: Batch, blobs: Blobs) -> None:
    for (_, name), file_id in zip(_NAMES, (batch.output_file_id, batch.error_file_id), strict=True):
        if file_id is not None:
            await blobs.write(f"{batch.extra['output']}/{name}", _windows(simulation.path(file_id)))
            remove_file(simulation.db, file_id)


async def _windows(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, WINDOW):
            yield chunk
