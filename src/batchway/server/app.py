"""The application and its server: routes out of the one table, uvicorn with httptools and uvloop."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Lifespan

from batchway.server import errors
from batchway.server.docs import pages
from batchway.server.edge import Edge
from batchway.server.feed import Feed
from batchway.server.operations import Gateway
from batchway.server.routes import OPERATIONS
from batchway.server.routing import Api, Operation, Table

GRACE_SECONDS = 10
IDLE_SECONDS = 75  # longer than the idle time of usual balancers, so that they and not we close a connection
HEADER_BYTES = 64 << 10


def create_app(
    gateway: Gateway, lifespan: Lifespan[Starlette] | None = None, operations: Iterable[Operation] = OPERATIONS
) -> Starlette:
    """The whole HTTP surface over `gateway`, or the part of it that these operations are."""
    table = Table(_opened(operation, gateway) for operation in operations)
    app = Starlette(
        routes=[Api(table, gateway), *pages(table)],
        middleware=[Middleware(Edge)],
        exception_handlers={HTTPException: _refuse},
        lifespan=lifespan,
    )
    app.state.feed = Feed(gateway.db)
    app.router.redirect_slashes = False  # a slash too many is forgiven without a second trip
    return app


def _opened(operation: Operation, gateway: Gateway) -> Operation:
    """The operation as the settings have it."""
    if operation.name == "metrics" and gateway.settings.metrics_open:
        return replace(operation, open=True, admin=False)
    return operation


async def _refuse(request: Request, error: Exception) -> Response:
    return errors.answer(error)


def server(app: Starlette, host: str, port: int) -> uvicorn.Server:
    """A server that is not started yet: `await serve()`, and set `should_exit` to end it politely."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        loop="auto",  # uvloop where it is installed
        ws="none",
        lifespan="auto",
        interface="asgi3",
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # it would believe X-Forwarded-For from loopback; auth.py knows whom to believe
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        backlog=2048,
    )
    return uvicorn.Server(config)
