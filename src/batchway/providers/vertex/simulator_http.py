"""How the simulator reads and answers: JSON, Google's error envelopes, streamed objects, broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batchway.providers.shared.simulation import abort_connection
from batchway.providers.vertex.statuses import HTTP_OF

_CHUNK = 1 << 20
_REASONS = {400: "invalid", 401: "authError", 403: "forbidden", 404: "notFound", 429: "rateLimitExceeded"}


class ApiError(Exception):
    """An answer other than 2xx, by Google's name for it, such as `INVALID_ARGUMENT`."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.status = HTTP_OF[name]
        self.message = message

    def response(self, path: str) -> JsonResponse:
        """The answer in the envelope of the API that this path belongs to."""
        error: dict[str, Any] = {"code": self.status, "message": self.message}
        if path.startswith(("/storage/", "/upload/", "/download/")):
            reason = _REASONS.get(self.status, "backendError")
            error["errors"] = [{"domain": "global", "reason": reason, "message": self.message}]
        else:
            error["status"] = self.name
        return JsonResponse({"error": error}, status_code=self.status)


class JsonResponse(Response):
    """A JSON answer by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def table(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON object under this name, or an empty one."""
    found: object = value.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def listed(value: Mapping[str, Any], name: str) -> list[Any]:
    """The JSON array under this name, or an empty one."""
    found: object = value.get(name)
    return cast("list[Any]", found) if isinstance(found, list) else []


async def json_object(request: Request) -> dict[str, Any]:
    """The request's body, which must be a JSON object; an empty one is one."""
    raw = await request.body()
    try:
        body: object = msgspec.json.decode(raw) if raw.strip() else dict[str, Any]()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ApiError("INVALID_ARGUMENT", "Invalid JSON payload received.")
    return cast("dict[str, Any]", body)


async def break_off(scope: Scope, receive: Receive) -> None:
    """Resets the connection of a request."""
    abort_connection(scope)
    # uvicorn would report an unfinished answer as an error, unless the client was gone before.
    while (await receive())["type"] != "http.disconnect":
        pass


class BrokenConnection(Response):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await break_off(scope, receive)


class FileContent(Response):
    """Bytes [start, end) of a file, a window at a time; reset half way when `cut`."""

    def __init__(self, path: Path, start: int, end: int, size: int, *, cut: bool, headers: dict[str, str]) -> None:
        partial = (start, end) != (0, size)
        more = {"content-length": str(end - start), "accept-ranges": "bytes", **headers}
        if partial:
            more["content-range"] = f"bytes {start}-{end - 1}/{size}"
        super().__init__(status_code=206 if partial else 200, media_type="application/octet-stream", headers=more)
        self._path, self._start = path, start
        self._left = (end - start) // 2 if cut else end - start
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if self._cut:
            await break_off(scope, receive)
            return
        await send({"type": "http.response.body", "body": b""})

    async def _chunks(self) -> AsyncIterator[bytes]:
        left = self._left
        with self._path.open("rb") as file:
            file.seek(self._start)
            while left > 0 and (chunk := await asyncio.to_thread(file.read, min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
