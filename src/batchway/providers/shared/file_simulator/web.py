"""How the simulator reads requests and answers: JSON, checked query values, streamed files, broken connections.

Invariant: every refusal is an `ApiError`, so a client only ever sees the provider's envelope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from batchway.providers.shared.file_simulator.errors import ApiError, out_of_range, wrong_type
from batchway.providers.shared.file_simulator.life import Simulation
from batchway.providers.shared.simulation import abort_connection

_CHUNK = 1 << 20


def simulation_of(request: Request) -> Simulation:
    """The simulation this request belongs to."""
    return request.app.state.simulation


class JsonResponse(Response):
    """A JSON answer by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def error_response(simulation: Simulation, scope: Scope, error: ApiError) -> JsonResponse:
    """The answer that an error is."""
    body = simulation.flavor.error(scope, error)
    return JsonResponse(body, status_code=error.status, headers=error.headers)


async def json_object(request: Request) -> dict[str, Any]:
    """The request's body, which must be a JSON object."""
    try:
        body = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request. The API expects a JSON object.")
    return cast("dict[str, Any]", body)


def page_limit(request: Request, default: int, highest: int) -> int:
    """The query's `limit`, from 1 to `highest`."""
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not text.removeprefix("-").isdigit():
        raise wrong_type("limit", "an integer", text)
    if not 1 <= int(text) <= highest:
        raise out_of_range("limit", int(text), 1, highest)
    return int(text)


def page(shown: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """OpenAI's list of up to `limit` objects; `shown` holds one more when there are more."""
    data = shown[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(shown) > limit,
    }


def expiry_seconds(policy: object, name: str, allowed: tuple[int, int]) -> int | None:
    """Seconds of an `expires_after` policy (anchor `created_at`, seconds within `allowed`), or None without one."""
    if policy is None:
        return None
    if not isinstance(policy, Mapping):
        raise wrong_type(name, "an object", policy)
    fields = cast("Mapping[str, Any]", policy)
    if fields.get("anchor") != "created_at":
        text = f"Invalid value: '{fields.get('anchor')}'. Supported values are: 'created_at'."
        raise ApiError(400, text, param=f"{name}.anchor", code="invalid_value")
    seconds = fields.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise wrong_type(f"{name}.seconds", "an integer", seconds)
    if not allowed[0] <= seconds <= allowed[1]:
        raise out_of_range(f"{name}.seconds", seconds, *allowed)
    return seconds


async def _gone(receive: Receive) -> None:
    """Waits until the client has gone."""
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


async def break_off(scope: Scope, receive: Receive) -> None:
    """Resets the connection of a request."""
    abort_connection(scope)
    # uvicorn would report an unfinished answer as an error, unless the client was gone before.
    await _gone(receive)


class BrokenConnection(Response):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await break_off(scope, receive)


class NoAnswer(Response):
    """No answer, ever: the request hangs until the client gives up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _gone(receive)


class FileContent(Response):
    """The bytes of a stored file, a window at a time; reset after `cut` bytes when that is not None."""

    def __init__(self, path: Path, size: int, cut: int | None) -> None:
        super().__init__(media_type="application/octet-stream", headers={"content-length": str(size)})
        self._path = path
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = self._cut
        with self._path.open("rb") as file:
            while left is None or left > 0:
                chunk = await asyncio.to_thread(file.read, _CHUNK if left is None else min(_CHUNK, left))
                if not chunk:
                    break
                left = None if left is None else left - len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if left is not None:
            await break_off(scope, receive)
            return
        await send({"type": "http.response.body", "body": b""})
