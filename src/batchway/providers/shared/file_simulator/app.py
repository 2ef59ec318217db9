"""OpenAI's Files, Batches and model endpoints imitated over real HTTP, for tests, demos and users' own CI.

`SIMULATOR.md` in this folder is the manual. The parts: `simulator_files` `simulator_batches` `simulator_sync` (routes),
`simulator_life` (states of a batch by the virtual clock), `simulator_lines` (validation and results),
`simulator_answers` (what a model says), `simulator_store` (what is remembered). Invariant: nothing here shares code
with the gateway's own OpenAI surface, so one cannot hide the other's mistakes.
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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchway.providers.openai import simulator_batches, simulator_files, simulator_sync
from batchway.providers.shared.file_simulator.answers import ENDPOINTS
from batchway.providers.shared.file_simulator.errors import ApiError, status_error
from batchway.providers.shared.file_simulator.web import break_off, error_response
from batchway.providers.shared.file_simulator.life import Simulation
from batchway.providers.shared.file_simulator.settings import SimulatorSettings
from batchway.providers.shared.simulation import FAULTS, AbortableProtocol, parse_faults

__all__ = ["FAULTS", "SimulatorSettings", "config", "create_app", "main", "parse_faults", "serve"]


class Gate:
    """What every `/v1` request passes first: the key, the drawn faults; and the headers every answer carries."""

    def __init__(self, app: ASGIApp, simulation: Simulation) -> None:
        self.app = app
        self.simulation = simulation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        simulation = self.simulation
        simulation.requests += 1
        number = simulation.requests
        if simulation.hits("reset", number):
            await break_off(scope, receive)
            return
        started = time.perf_counter()

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent = int((time.perf_counter() - started) * 1000)
                message["headers"] += [
                    (b"x-request-id", f"req_{number:032x}".encode()),
                    (b"openai-processing-ms", str(spent).encode()),
                    (b"openai-version", b"2020-10-01"),
                ]
            await send(message)

        refused = self._refused(scope, number)
        answer = self.app if refused is None else error_response(refused)
        await answer(scope, receive, send_marked)

    def _refused(self, scope: Scope, number: int) -> ApiError | None:
        if not scope["path"].startswith("/v1/"):
            return None
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
        wanted = self.simulation.settings.api_key
        if not given.lower().startswith("bearer ") or not given[7:].strip():
            return ApiError(401, "You didn't provide an API key. You need to provide it in an Authorization header.")
        if wanted is not None and given[7:].strip() != wanted:
            return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        if self.simulation.hits("throttled", number):
            return simulator_sync.throttled(self.simulation)
        return status_error(500) if self.simulation.hits("server_error", number) else None


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
    files, batches, sync = simulator_files, simulator_batches, simulator_sync
    table: list[tuple[str, str, Callable[[Request], Any]]] = [
        ("POST", "/v1/files", files.upload),
        ("GET", "/v1/files", files.listing),
        ("GET", "/v1/files/{file_id}", files.retrieve),
        ("DELETE", "/v1/files/{file_id}", files.delete),
        ("GET", "/v1/files/{file_id}/content", files.content),
        ("POST", "/v1/batches", batches.create),
        ("GET", "/v1/batches", batches.listing),
        ("GET", "/v1/batches/{batch_id}", batches.retrieve),
        ("POST", "/v1/batches/{batch_id}/cancel", batches.cancelling),
        *(("POST", endpoint, sync.infer) for endpoint in ENDPOINTS),
        ("GET", "/v1/models", sync.models),
        ("GET", "/v1/models/{name:path}", sync.model),
        ("GET", "/_sim", sync.overview),
        ("GET", "/_sim/batches", sync.batches),
        ("GET", "/_sim/requests", sync.requests),
        ("POST", "/_sim/faults", sync.faults),
        ("POST", "/_sim/advance", sync.advance),
    ]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return error_response(error)


async def _no_route(request: Request, error: Exception) -> Response:
    return error_response(ApiError(404, f"Invalid URL ({request.method} {request.url.path})"))


def config(settings: SimulatorSettings) -> dict[str, Any]:
    """The provider entry that points a gateway at this simulator."""
    entry = {"api_key": settings.api_key or "sim", "base_url": f"http://{settings.host}:{settings.port}/v1"}
    return {"openai": entry}


def serve(settings: SimulatorSettings) -> None:
    """Serves until it is interrupted; prints one line with the URL once it listens. Port 0 takes a free one."""
    with socket.create_server((settings.host, settings.port), backlog=2048) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        app = create_app(settings, clock=time.time)
        print(f"OpenAI simulator is running on {config(settings)['openai']['base_url']}", flush=True)  # noqa: T201
        options: Any = {"http": AbortableProtocol, "loop": "uvloop", "log_level": "warning", "access_log": False}
        with suppress(KeyboardInterrupt):  # uvicorn has ended in peace and passes the interrupt on
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listening])


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m batchway.providers.openai.simulator --port N ...`: one option for each setting."""
    parser = argparse.ArgumentParser(prog="python -m batchway.providers.openai.simulator", description=__doc__)
    types: dict[str, Callable[[str], Any]] = {"faults": parse_faults, "models": _names, "state_dir": Path}
    for setting in fields(SimulatorSettings):
        name = {"faults": "fail"}.get(setting.name, setting.name).replace("_", "-")
        if setting.name == "cancelled_lines":
            parser.add_argument(f"--{name}", dest=setting.name, action="store_true", default=None)
            continue
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
