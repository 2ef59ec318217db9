"""Vertex AI's batchPredictionJobs and Cloud Storage imitated over real HTTP, for tests, demos and users' own CI.

`SIMULATOR.md` in this folder is the manual. The parts: `simulator_jobs` `simulator_storage` `simulator_tokens`
(routes), `simulator_life` (states of a job by the virtual clock), `simulator_rows` (input and output),
`simulator_models` (what a model says), `simulator_objects` (what lies in buckets). Invariant: nothing here shares code
with the gateway's own side of the API but the names of Google's error codes, so one cannot hide the other's mistakes.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from batchway.providers.shared.simulation import AbortableProtocol, parse_faults
from batchway.providers.vertex import simulator_jobs, simulator_storage, simulator_tokens
from batchway.providers.vertex.simulator_http import ApiError, break_off
from batchway.providers.vertex.simulator_life import Simulation
from batchway.providers.vertex.simulator_settings import SimulatorSettings

__all__ = ["SimulatorSettings", "config", "create_app", "main", "serve"]

GUARDED = ("/v1/", "/v1beta1/", "/storage/", "/upload/", "/download/")


class Gate:
    """What every call of the two APIs passes first: the token and the drawn faults."""

    def __init__(self, app: ASGIApp, simulation: Simulation) -> None:
        self.app = app
        self.simulation = simulation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED):
            await self.app(scope, receive, send)
            return
        simulation = self.simulation
        simulation.requests += 1
        number = simulation.requests
        if simulation.hits("reset", number):
            await break_off(scope, receive)
            return
        refused = self._refused(scope, number)
        answer = self.app if refused is None else refused.response(scope["path"])
        await answer(scope, receive, send)

    def _refused(self, scope: Scope, number: int) -> ApiError | None:
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
        token = given[7:].strip() if given.lower().startswith("bearer ") else ""
        wanted, issued = self.simulation.settings.access_token, self.simulation.tokens
        if not token or not (wanted is None or token == wanted or issued.get(token, 0) > self.simulation.clock.clock()):
            return ApiError("UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if self.simulation.hits("throttled", number):
            return ApiError("RESOURCE_EXHAUSTED", "Quota exceeded for this project.")
        return (
            ApiError("INTERNAL", "Internal error encountered.")
            if self.simulation.hits("server_error", number)
            else None
        )


def create_app(settings: SimulatorSettings, *, clock: Callable[[], float]) -> Starlette:
    """The simulator as an ASGI app; `clock` gives real unix seconds."""
    simulation = Simulation(settings, clock=clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await simulation.close()

    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(Gate, simulation=simulation)],
        exception_handlers={ApiError: _refuse, 404: _no_route, 405: _no_route},
        lifespan=lifespan,
    )
    app.state.simulation = simulation
    return app


def _routes() -> list[Route]:
    jobs, storage, tokens = simulator_jobs, simulator_storage, simulator_tokens
    parent = "/{version:str}/projects/{project}/locations/{location}/batchPredictionJobs"
    objects = "/storage/v1/b/{bucket}/o"
    table: list[tuple[str, str, Callable[[Request], Any]]] = [
        ("POST", parent, jobs.create),
        ("GET", parent, jobs.listing),
        ("POST", parent + "/{job}:cancel", jobs.act),
        ("GET", parent + "/{job}", jobs.retrieve),
        ("DELETE", parent + "/{job}", jobs.delete),
        *((method, f"/upload{objects}", storage.upload) for method in ("POST", "PUT", "DELETE")),
        ("GET", "/storage/v1/b/{bucket}", storage.bucket),
        ("GET", objects, storage.listing),
        ("GET", objects + "/{name:path}", storage.retrieve),
        ("GET", f"/download{objects}" + "/{name:path}", storage.retrieve),
        ("DELETE", objects + "/{name:path}", storage.delete),
        ("POST", "/token", tokens.exchange),
        ("GET", "/", tokens.metadata),
        ("GET", "/computeMetadata/{rest:path}", tokens.metadata),
        ("GET", "/_sim", jobs.overview),
        ("GET", "/_sim/jobs", jobs.jobs),
        ("POST", "/_sim/faults", jobs.faults),
        ("POST", "/_sim/advance", jobs.advance),
        ("POST", "/_sim/revoke", jobs.revoke),
    ]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return error.response(request.url.path)


async def _no_route(request: Request, error: Exception) -> Response:
    return ApiError("NOT_FOUND", f"The requested URL {request.url.path} was not found.").response(request.url.path)


def config(settings: SimulatorSettings) -> dict[str, Any]:
    """The provider entry that points a gateway at this simulator."""
    here = f"http://{settings.host}:{settings.port}"
    entry = {
        "project": settings.project,
        "location": settings.location,
        "bucket": settings.bucket,
        "access_token": settings.access_token or "sim",
        "base_url": here,
        "storage_url": settings.storage_url or here,
    }
    return {"vertex": entry}


def serve(settings: SimulatorSettings) -> None:
    """Serves until it is interrupted; prints one line with the URL once it listens. Port 0 takes a free one."""
    with socket.create_server((settings.host, settings.port), backlog=2048) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        app = create_app(settings, clock=time.time)
        print(f"Vertex AI simulator is running on {config(settings)['vertex']['base_url']}", flush=True)  # noqa: T201
        options: Any = {"http": AbortableProtocol, "loop": "uvloop", "log_level": "warning", "access_log": False}
        with suppress(KeyboardInterrupt):  # uvicorn has ended in peace and passes the interrupt on
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listening])


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m batchway.providers.vertex.simulator --port N ...`: one option for each setting."""
    parser = argparse.ArgumentParser(prog="python -m batchway.providers.vertex.simulator", description=__doc__)
    types: dict[str, Callable[[str], Any]] = {"faults": parse_faults, "models": _names, "state_dir": Path}
    for setting in fields(SimulatorSettings):
        name = {"faults": "fail"}.get(setting.name, setting.name).replace("_", "-")
        kind = types.get(setting.name) or _simple(str(setting.type))
        parser.add_argument(f"--{name}", dest=setting.name, type=kind, required=setting.name == "port")
    parser.add_argument("--print-config", action="store_true", help="print the provider entry for a gateway and leave")
    given = vars(parser.parse_args(arguments))
    show = given.pop("print_config")
    settings = SimulatorSettings(**{name: value for name, value in given.items() if value is not None})
    if show:
        sys.stdout.write(msgspec.json.encode(config(settings)).decode() + "\n")
        return
    serve(settings)


def _simple(annotation: str) -> Callable[[str], Any]:
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
    return kinds[annotation.removesuffix(" | None")]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    main()
