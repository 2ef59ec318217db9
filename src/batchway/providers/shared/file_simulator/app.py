"""A simulator served: the routes that all flavors share, the gate before them, the command that runs it.

Invariant: a request that the gate refuses or breaks has done nothing.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from functools import partial
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

from batchway.providers.shared.file_simulator import batches, files, sync
from batchway.providers.shared.file_simulator.answers import ENDPOINTS
from batchway.providers.shared.file_simulator.errors import ApiError, status_error
from batchway.providers.shared.file_simulator.flavor import Flavor
from batchway.providers.shared.file_simulator.life import Simulation
from batchway.providers.shared.file_simulator.settings import SimulatorSettings
from batchway.providers.shared.file_simulator.web import break_off, error_response, simulation_of
from batchway.providers.shared.simulation import AbortableProtocol, parse_faults


class Gate:
    """What every request of the API passes first: the key, the drawn faults; and the headers every answer carries."""

    def __init__(self, app: ASGIApp, simulation: Simulation) -> None:
        self.app = app
        self.simulation = simulation
        self.roots = tuple(f"{root}/" for root in simulation.flavor.roots)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self.roots):
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
                message["headers"] += simulation.flavor.headers(number, spent)
            await send(message)

        refused = self._refused(scope, number)
        answer = self.app if refused is None else error_response(simulation, scope, refused)
        await answer(scope, receive, send_marked)

    def _refused(self, scope: Scope, number: int) -> ApiError | None:
        simulation = self.simulation
        refused = simulation.flavor.refusal(simulation.settings, scope, simulation.clock.clock())
        if refused is not None:
            return refused
        if simulation.hits("throttled", number):
            return sync.throttled(simulation)
        return status_error(500) if simulation.hits("server_error", number) else None


def create_app(flavor: Flavor, settings: SimulatorSettings, *, clock: Callable[[], float]) -> Starlette:
    """The simulator as an ASGI app; `clock` gives real unix seconds."""
    simulation = Simulation(flavor, settings, clock=clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await simulation.close()

    shared = [route for root in flavor.roots for route in _routes(root)]
    app = Starlette(
        routes=[*flavor.routes(), *shared, *_observation()],
        middleware=[Middleware(Gate, simulation=simulation)],
        exception_handlers={ApiError: _refuse, 404: _no_route, 405: _no_route},
        lifespan=lifespan,
    )
    app.state.simulation = simulation
    return app


def _routes(root: str) -> list[Route]:
    table: list[tuple[str, str, Callable[..., Any]]] = [
        ("POST", "/files", files.upload),
        ("GET", "/files", files.listing),
        ("GET", "/files/{file_id}", files.retrieve),
        ("DELETE", "/files/{file_id}", files.delete),
        ("GET", "/files/{file_id}/content", files.content),
        ("POST", "/batches", batches.create),
        ("GET", "/batches", batches.listing),
        ("GET", "/batches/{batch_id}", batches.retrieve),
        ("POST", "/batches/{batch_id}/cancel", batches.cancelling),
        *(("POST", path.removeprefix("/v1"), partial(sync.infer, endpoint=path)) for path in ENDPOINTS),
        ("GET", "/models", sync.models),
        ("GET", "/models/{name:path}", sync.model),
    ]
    return [Route(root + path, handler, methods=[method]) for method, path, handler in table]


def _observation() -> list[Route]:
    table: list[tuple[str, str, Callable[[Request], Any]]] = [
        ("GET", "", sync.overview),
        ("GET", "/batches", sync.batches),
        ("GET", "/requests", sync.requests),
        ("POST", "/faults", sync.faults),
        ("POST", "/advance", sync.advance),
    ]
    return [Route("/_sim" + path, handler, methods=[method]) for method, path, handler in table]


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return error_response(simulation_of(request), request.scope, error)


async def _no_route(request: Request, error: Exception) -> Response:
    refused = ApiError(404, f"Invalid URL ({request.method} {request.url.path})")
    return error_response(simulation_of(request), request.scope, refused)


def serve(flavor: Flavor, settings: SimulatorSettings) -> None:
    """Serves until it is interrupted; prints one line with the URL once it listens. Port 0 takes a free one."""
    with socket.create_server((settings.host, settings.port), backlog=2048) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        app = create_app(flavor, settings, clock=time.time)
        print(f"{flavor.title} simulator is running on {flavor.url(settings)}", flush=True)  # noqa: T201
        options: Any = {"http": AbortableProtocol, "loop": "uvloop", "log_level": "warning", "access_log": False}
        with suppress(KeyboardInterrupt):  # uvicorn has ended in peace and passes the interrupt on
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listening])


def command(kind: type[Flavor], shape: type[SimulatorSettings], arguments: Sequence[str] | None) -> None:
    """`batchway simulate <name> --port N ...`: one option for each setting of `shape`."""
    about = sys.modules[kind.__module__].__doc__
    parser = argparse.ArgumentParser(prog=f"batchway simulate {kind.name}", description=about)
    types: dict[str, Callable[[str], Any]] = {"faults": parse_faults, "models": _names, "state_dir": Path}
    for setting in fields(shape):
        name = {"faults": "fail"}.get(setting.name, setting.name).replace("_", "-")
        if setting.type == "bool":
            parser.add_argument(f"--{name}", dest=setting.name, action="store_true", default=None)
            continue
        read = types.get(setting.name) or _simple(str(setting.type))
        parser.add_argument(f"--{name}", dest=setting.name, type=read, required=setting.name == "port")
    parser.add_argument("--print-config", action="store_true", help="print the provider entry for a gateway and leave")
    given = vars(parser.parse_args(arguments))
    show = given.pop("print_config")
    settings = shape(**{name: value for name, value in given.items() if value is not None})
    flavor = kind(settings)
    if show:
        sys.stdout.write(msgspec.json.encode(flavor.config(settings)).decode() + "\n")
        return
    serve(flavor, settings)


def _simple(annotation: str) -> Callable[[str], Any]:
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
    return kinds[annotation.removesuffix(" | None")]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
