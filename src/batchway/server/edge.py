"""The outermost layer: each answer gets its request id and duration, each failure its envelope, each request a line.

The log line holds method, path, status and time, and every line of the request its id (`logs.py`): never a query, a
header or a body. What is counted goes by the operation's path as the table has it, never by the client's.
"""

from __future__ import annotations

import logging
import re
import time
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchway import logs, metrics
from batchway.server import errors
from batchway.server.limits import ADDED
from batchway.wire.surface import PROCESSING_HEADER

access = logging.getLogger("batchway.access")
log = logging.getLogger("batchway.server")

SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
CLIENT_LEFT = 499
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Edge:
    """Wraps the application; the request id is in the scope as `request_id`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = _Exchange(scope, receive, send)
            with logs.within(request_id=scope["request_id"]):
                await exchange.run(self.app)
        else:
            await self.app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive_on = receive
        self.send_on = send
        self.begun = time.perf_counter()
        self.status = 0
        self.received = self.sent = 0  # bytes of bodies
        self.request_id = _request_id(scope)
        scope["request_id"] = self.request_id.decode()

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except ClientDisconnect:
            self.status = self.status or CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - the one place where any failure becomes an answer and a log line
            await self.fail(error)
        finally:
            self.tell()

    async def receive(self) -> Message:
        message = await self.receive_on()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            seconds = time.perf_counter() - self.begun
            metrics.HTTP_SECONDS.observe(seconds, self.route)
            spent = int(seconds * 1000)
            message["headers"] = [
                *message.get("headers", ()),
                *self.scope.get(ADDED, ()),
                (b"x-request-id", self.request_id),
                (PROCESSING_HEADER, b"%d" % spent),
            ]
        await self.send_on(message)

    @property
    def route(self) -> str:
        """The path of the operation in the table; `other` before it was found and where there is none."""
        operation = self.scope.get("operation")
        return metrics.OTHER if operation is None else operation.full_path

    async def fail(self, error: Exception) -> None:
        """Answers with the envelope; an answer that has begun is broken off, so its reader sees that more is due."""
        if self.status:
            log.error("the answer broke off", exc_info=error)
            raise error
        if not errors.foreseen(error):
            log.error("the request failed", exc_info=error)
        await errors.answer(error)(self.scope, self.receive, self.send)

    def tell(self) -> None:
        method = self.scope["method"]
        metrics.HTTP_REQUESTS.add(self.route, method if method in METHODS else metrics.OTHER, f"{self.status // 100}xx")
        metrics.HTTP_RECEIVED.add(by=self.received)
        metrics.HTTP_SENT.add(by=self.sent)
        if access.isEnabledFor(logging.INFO):
            spent = round((time.perf_counter() - self.begun) * 1000, 1)
            path = self.scope["path"].encode("unicode_escape").decode()  # no line breaks of a client's in anybody's log
            told = {"method": method, "path": path, "status": self.status, "milliseconds": spent}
            access.info("%s %s %d %.1fms", method, path, self.status, spent, extra={"fields": told})


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value
    return uuid4().hex.encode()
