"""The outermost layer: each answer gets its request id and duration, each failure its envelope, each request a line.

The log line holds method, path, status, time and request id: never a query, a header or a body.
"""

from __future__ import annotations

import logging
import re
import time
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchway.server import errors
from batchway.wire.surface import PROCESSING_HEADER

access = logging.getLogger("batchway.access")
log = logging.getLogger("batchway.server")

SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
CLIENT_LEFT = 499


class Edge:
    """Wraps the application; the request id is in the scope as `request_id`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(scope, send).run(self.app, receive)
        else:
            await self.app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.send_on = send
        self.begun = time.perf_counter()
        self.status = 0
        self.request_id = _request_id(scope)
        scope["request_id"] = self.request_id.decode()

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        try:
            await app(self.scope, receive, self.send)
        except ClientDisconnect:
            self.status = self.status or CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - the one place where any failure becomes an answer and a log line
            await self.fail(error, receive)
        finally:
            self.tell()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            spent = int((time.perf_counter() - self.begun) * 1000)
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id),
                (PROCESSING_HEADER, b"%d" % spent),
            ]
        await self.send_on(message)

    async def fail(self, error: Exception, receive: Receive) -> None:
        """Answers with the envelope; an answer that has begun is broken off, so its reader sees that more is due."""
        if self.status:
            log.error("the answer to request %s broke off", self.scope["request_id"], exc_info=error)
            raise error
        if not errors.foreseen(error):
            log.error("request %s failed", self.scope["request_id"], exc_info=error)
        await errors.answer(error)(self.scope, receive, self.send)

    def tell(self) -> None:
        if access.isEnabledFor(logging.INFO):
            spent = (time.perf_counter() - self.begun) * 1000
            path = self.scope["path"].encode("unicode_escape").decode()  # no line breaks of a client's in our log
            access.info("%s %s %d %.1fms %s", self.scope["method"], path, self.status, spent, self.scope["request_id"])


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value
    return uuid4().hex.encode()
