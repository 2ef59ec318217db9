"""A gateway of dicts for the SDK's tests: the same routes as the real one, over real HTTP, with faults on request.

`faults` maps "METHOD /path" to answers that are given first: a status, or (status, headers), or "drop" for a connection
that is cut without an answer, or "late" for an answer that is lost after the work was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
import uvicorn
from multipart import MultipartSegment, PushMultipartParser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from batchway import Client

KEY = "sk-tiny"
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
JSONL = json.dumps(LINE).encode() + b"\n"


class TinyGateway:
    """Files and batches of one process. A batch goes on at every look; the second line of ten ends with an error."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, list[bytes]] = {}
        self.done: dict[str, Any] = {}
        self.faults: dict[str, list[Any]] = {}
        self.seen: list[Request] = []
        self.keep_content = True
        self.received = 0
        self.at_a_time = 2
        self.ids = count(1)
        routes = Starlette(
            routes=[
                Route("/v1/files", self.upload, methods=["POST"]),
                Route("/v1/files", self.list_files),
                Route("/v1/files/{id}", self.file, methods=["GET", "DELETE"]),
                Route("/v1/files/{id}/content", self.content),
                Route("/v1/batches", self.create, methods=["POST"]),
                Route("/v1/batches", self.list_batches),
                Route("/v1/batches/estimate", self.estimate, methods=["POST"]),
                Route("/v1/batches/adopt", self.adopt, methods=["POST"]),
                Route("/v1/batches/{id}", self.retrieve),
                Route("/v1/batches/{id}/cancel", self.cancel, methods=["POST"]),
                Route("/v1/batches/{id}/results", self.results),
                Route("/v1/models", self.models),
                Route("/v1/keys", self.keys, methods=["GET", "POST"]),
                Route("/v1/keys/{id}", self.delete_key, methods=["DELETE"]),
            ]
        )
        self.app = _Edge(routes, self)

    def requests(self, method: str, path: str) -> list[Request]:
        return [request for request in self.seen if (request.method, request.url.path) == (method, path)]

    async def upload(self, request: Request) -> Response:
        fields: dict[str, str] = {}
        size, data, name, part = 0, [], "", ""
        parser = PushMultipartParser(_boundary(request))
        self.received = 0
        async for piece in request.stream():
            for found in parser.parse(piece):
                if isinstance(found, MultipartSegment):
                    part, name = found.name, found.filename or name
                elif found and part == "file":
                    self.received += len(found)
                    size += len(found)
                    if self.keep_content:
                        data.append(bytes(found))
                elif found:
                    fields[part] = fields.get(part, "") + found.decode()
        file_id = f"file-{next(self.ids)}"
        self.files[file_id] = {
            "id": file_id, "object": "file", "bytes": size, "created_at": 1, "filename": name, "status": "processed",
            "purpose": fields.pop("purpose"), "form": fields, "provider": request.headers.get("custom-llm-provider"),
            "batchway": {"models": {"m": 3}, "lines": 1},
        }  # fmt: skip
        self.contents[file_id] = b"".join(data)
        return self.once(request, self.files[file_id])

    async def list_files(self, request: Request) -> Response:
        return _page(list(self.files.values()), request)

    async def file(self, request: Request) -> Response:
        found = self.files.get(request.path_params["id"])
        if found is None:
            return refusal(404, "No such file.")
        if request.method == "DELETE":
            del self.files[found["id"]]
            return JSONResponse({"id": found["id"], "object": "file", "deleted": True})
        return JSONResponse(found)

    async def content(self, request: Request) -> Response:
        data = self.contents.get(request.path_params["id"])
        if data is None:
            return refusal(404, "No such file.")
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        cut = self.faults.get("CUT", [])
        end = start + cut.pop(0) if cut else len(data)
        headers = {"content-length": str(len(data) - start), "content-disposition": 'attachment; filename="x"'}

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(start, end, 1 << 16):
                yield data[at : min(at + (1 << 16), end)]

        return StreamingResponse(pieces(), 206 if "range" in request.headers else 200, headers)

    async def create(self, request: Request) -> Response:
        body = await request.json()
        key = request.headers.get("idempotency-key", "")
        if key in self.done:
            return JSONResponse(self.done[key])
        batch_id = f"batch_{next(self.ids)}"
        self.batches[batch_id] = {
            "id": batch_id, "object": "batch", "status": "validating", "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"], "completion_window": body["completion_window"],
            "metadata": body.get("metadata"), "errors": None, "output_file_id": None, "error_file_id": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "sent": body, "from_the_future": {"x": 1},
        }  # fmt: skip
        self.answers[batch_id] = []
        return self.once(request, self.batches[batch_id])

    async def retrieve(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["id"])
        if batch is None:
            return refusal(404, f"No batch found with id '{request.path_params['id']}'.")
        answer = JSONResponse(batch)
        self.advance(batch)
        return answer

    def advance(self, batch: dict[str, Any]) -> None:
        if batch["status"] in ("completed", "failed", "cancelled"):
            return
        lines = [json.loads(line) for line in self.contents[batch["input_file_id"]].splitlines() if line.strip()]
        if any("fail" in line for line in lines):
            batch["status"] = "failed"
            fault = {"code": "invalid_url", "message": "The URL is wrong.", "param": "url", "line": 1}
            batch["errors"] = {"object": "list", "data": [fault]}
            return
        done = self.answers[batch["id"]]
        order = [*lines[1::2], *lines[::2]]  # not the order of the input
        for line in order[len(done) : len(done) + self.at_a_time]:
            done.append(answered(line, bad=lines.index(line) % 10 == 1, cursor=str(len(done) + 1)))
        failed = sum(b'"error": {' in line for line in done)
        batch["request_counts"] = {"total": len(lines), "completed": len(done) - failed, "failed": failed}
        batch["status"] = "completed" if len(done) == len(lines) else "in_progress"
        if batch["status"] == "completed":
            ordered = self._as_sent(batch["id"])
            for name, wanted in (("output", False), ("error", True)):
                chosen = [line for line in ordered if (b'"error": {' in line) is wanted]
                if chosen:
                    file_id = f"file-{name}-{batch['id']}"
                    batch[f"{name}_file_id"] = file_id
                    self.contents[file_id] = b"".join(chosen)

    def _as_sent(self, batch_id: str) -> list[bytes]:
        """The results in input order, where a line's number is its cursor."""
        sent = self.contents[self.batches[batch_id]["input_file_id"]].splitlines()
        found = {result["custom_id"]: result for result in map(json.loads, self.answers[batch_id])}
        names = [json.loads(line)["custom_id"] for line in sent if line.strip()]
        return [json.dumps({**found[name], "cursor": str(at)}).encode() + b"\n" for at, name in enumerate(names, 1)]

    async def results(self, request: Request) -> Response:
        done = self.answers.get(request.path_params["id"])
        if done is None:
            return refusal(404, "No such batch.")
        if request.query_params.get("order") == "input":
            done = self._as_sent(request.path_params["id"])
        data = b"".join(done[int(request.query_params.get("after", "0")) :])
        cut = self.faults.get("CUT", [])
        sent = data[: cut.pop(0)] if cut else data
        return StreamingResponse(iter([sent]), headers={"content-length": str(len(data))})

    async def cancel(self, request: Request) -> Response:
        batch = self.batches[request.path_params["id"]]
        if batch["status"] == "completed":
            return refusal(409, "Cannot cancel a batch with status 'completed'.")
        batch["status"] = "cancelled"
        return JSONResponse(batch)

    async def adopt(self, request: Request) -> Response:
        body = await request.json()
        if body["remote_id"] == "batch_unknown":
            return refusal(404, "The provider knows no such batch.")
        return JSONResponse({"id": "batch_adopted", "object": "batch", "status": "in_progress", **body})

    async def list_batches(self, request: Request) -> Response:
        return _page(list(self.batches.values())[::-1], request)

    async def estimate(self, request: Request) -> Response:
        amount = {"low": "0.1", "likely": "0.2", "high": "0.3"}
        return JSONResponse(
            {"object": "batch.estimate", "lines": 1, "amount_usd": amount, "sent": await request.json()}
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "p"}]})

    async def keys(self, request: Request) -> Response:
        key = {"id": "key_1", "object": "key", "name": "n", "project": "default", "created_at": 1, "key": None}
        if request.method == "POST":
            return JSONResponse({**key, **await request.json(), "key": "sk-bw-secret"})
        return JSONResponse({"object": "list", "data": [key], "has_more": False})

    async def delete_key(self, request: Request) -> Response:
        return JSONResponse({"id": request.path_params["id"], "object": "key", "deleted": True})

    def once(self, request: Request, answer: dict[str, Any]) -> Response:
        self.done[request.headers.get("idempotency-key", "")] = dict(answer)
        return JSONResponse(answer)


class _Edge:
    """Keys and faults, outermost: a cut connection is uvicorn's own transport aborted."""

    def __init__(self, app: Any, gateway: TinyGateway) -> None:
        self.app = app
        self.gateway = gateway

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        self.gateway.seen.append(request)
        if request.headers.get("authorization") != f"Bearer {KEY}":
            refused = refusal(401, "Incorrect API key provided.", code="invalid_api_key")
            await refused(scope, receive, send)
            return
        waiting = self.gateway.faults.get(f"{request.method} {request.url.path}")
        fault = waiting.pop(0) if waiting else None
        if fault == "drop":
            send.__self__.transport.abort()
            return
        if isinstance(fault, float):
            await asyncio.sleep(fault)
        elif fault is not None and fault != "late":
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            await refusal(status, "Not now.", headers=headers)(scope, receive, send)
            return
        if fault == "late":

            async def swallow(message: Any) -> None:
                del message

            await self.app(scope, receive, swallow)
            send.__self__.transport.abort()
            return
        await self.app(scope, receive, send)


def refusal(status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": "p", "code": code}
    return JSONResponse({"error": error}, status, {"x-request-id": "req-1", **(headers or {})})


def answered(line: dict[str, Any], *, bad: bool, cursor: str) -> bytes:
    body = {"choices": [{"message": {"content": f"to {line['custom_id']}"}}], "usage": {"prompt_tokens": 3}}
    answer = {
        "id": "x",
        "custom_id": line["custom_id"],
        "response": None if bad else {"status_code": 200, "request_id": "r", "body": body},
        "error": {"code": "batch_expired", "message": "Too late."} if bad else None,
        "cursor": cursor,
        "amount_usd": "0.00012",
    }
    return json.dumps(answer).encode() + b"\n"


def _boundary(request: Request) -> str:
    return request.headers["content-type"].partition("boundary=")[2]


def _page(found: list[dict[str, Any]], request: Request) -> Response:
    limit, after = int(request.query_params.get("limit", "20")), request.query_params.get("after")
    start = next((at + 1 for at, one in enumerate(found) if one["id"] == after), 0)
    data = found[start : start + limit]
    last = data[-1]["id"] if data else None
    more = len(found) > start + limit
    return JSONResponse(
        {"object": "list", "data": data, "has_more": more, "last_id": last, "asked": dict(request.query_params)}
    )


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The URL of an application on a free port, on a thread of its own."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(5)


@pytest.fixture(scope="module")
def served():
    tiny = TinyGateway()
    with serving(tiny.app) as url:
        yield tiny, url


@pytest.fixture
def gateway(served, monkeypatch):
    tiny, url = served
    for state in (tiny.files, tiny.contents, tiny.batches, tiny.answers, tiny.done, tiny.faults, tiny.seen):
        state.clear()
    tiny.keep_content, tiny.at_a_time = True, 2
    monkeypatch.setenv("BATCHWAY_BASE_URL", url)
    monkeypatch.setenv("BATCHWAY_API_KEY", KEY)
    tiny.url = url
    return tiny


@pytest.fixture
def naps(monkeypatch):
    """The waits between tries, which are not waited for."""
    taken: list[float] = []

    async def nap(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr("batchway.sdk.client.blocking_sleep", nap)
    return taken


def client(gateway: TinyGateway, **settings: Any) -> Client:
    return Client(base_url=gateway.url, api_key=KEY, **settings)
