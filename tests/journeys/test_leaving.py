"""A client that leaves, or a connection to the database that is lost, while the last statement of an upload commits.

Whatever the database says in the end, bytes and rows agree: what is committed has its bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from batchway.app import Gateway, build
from batchway.db import files, uploads
from batchway.server.app import create_app
from batchway.settings import Settings
from tests.journeys.serving import FORM, MASTER, PROVIDERS, form, jsonl

CONTENT = jsonl(3)
UPLOAD = {"filename": "u.jsonl", "purpose": "batch", "bytes": len(CONTENT), "mime_type": "application/jsonl"}


class Lost(Exception):
    """The connection went while the commit was answered."""


class World:
    """A gateway asked without a socket, whose statement `broken` meets an accident after its commit."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.app = create_app(gateway)
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self._write = gateway.db.write

    def lose(self, statement: str) -> None:
        async def write(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            done = await self._write(function, *args, **kwargs)
            if function.__name__ == statement:
                raise Lost
            return done

        self.gateway.db.write = write

    def hold(self, statement: str, *, commits: bool = True) -> None:
        """The statement commits and is answered when `go_on` is set; unless it `commits`, it begins only then."""

        async def write(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if function.__name__ != statement:
                return await self._write(function, *args, **kwargs)
            done = await self._write(function, *args, **kwargs) if commits else None
            self.reached.set()
            await self.go_on.wait()
            return done if commits else await self._write(function, *args, **kwargs)

        self.gateway.db.write = write

    def mend(self) -> None:
        self.gateway.db.write = self._write

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        if isinstance(body, dict):
            body, headers["content_type"] = json.dumps(body).encode(), "application/json"
        sent = {"authorization": f"Bearer {MASTER}", **headers}
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        answers: list[Any] = []

        pieces = iter([body or b""])

        async def receive() -> Any:
            piece = next(pieces, None)
            if piece is None:
                await asyncio.Event().wait()  # the client is silent until it has its answer
            return {"type": "http.request", "body": piece, "more_body": False}

        async def send(message: Any) -> None:
            answers.append(message)

        await self.app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in answers[1:])
        is_json = (b"content-type", b"application/json") in answers[0]["headers"]
        return answers[0]["status"], json.loads(content) if is_json else content

    async def leave(self, *request: Any, **headers: str) -> None:
        """Asks, and is gone when the held statement has committed."""
        asking = asyncio.create_task(self.ask(*request, **headers))
        await asyncio.wait_for(self.reached.wait(), 30)
        asking.cancel()
        self.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asking
        self.mend()

    async def upload(self) -> tuple[str, str]:
        """A pending upload and its one part."""
        _, upload = await self.ask("POST", "/v1/uploads", UPLOAD)
        _, part = await self.ask("POST", f"/v1/uploads/{upload['id']}/parts", PART, content_type=FORM)
        return upload["id"], part["id"]

    async def content(self, file_id: str) -> Any:
        return await self.ask("GET", f"/v1/files/{file_id}/content")


FILE = form({"purpose": "batch"}, "in.jsonl", CONTENT, {})
PART = form({}, "p", CONTENT, {}, "data")


@pytest.fixture
async def world(tmp_path):
    gateway = await build(Settings(home=str(tmp_path), master_key=MASTER, providers=PROVIDERS), env={})
    try:
        yield World(gateway)
    finally:
        await gateway.close()


async def test_a_file_whose_answer_was_stored_keeps_its_bytes_when_the_connection_is_lost(world) -> None:
    world.lose("keep")
    status, file = await world.ask("POST", "/v1/files", FILE, content_type=FORM, idempotency_key="k")
    world.mend()
    assert status == 200
    assert await world.content(file["id"]) == (200, CONTENT)
    assert await world.ask("POST", "/v1/files", FILE, content_type=FORM, idempotency_key="k") == (200, file)


async def test_a_file_whose_answer_was_stored_keeps_its_bytes_when_its_client_leaves(world) -> None:
    world.hold("keep")
    await world.leave("POST", "/v1/files", FILE, content_type=FORM, idempotency_key="k")
    status, file = await world.ask("POST", "/v1/files", FILE, content_type=FORM, idempotency_key="k")
    assert status == 200
    assert await world.content(file["id"]) == (200, CONTENT)


async def test_of_two_files_with_one_key_the_slower_goes_again(world) -> None:
    world.hold("keep", commits=False)
    first = asyncio.create_task(world.ask("POST", "/v1/files", FILE, content_type=FORM, idempotency_key="k"))
    await asyncio.wait_for(world.reached.wait(), 30)
    held, world.gateway.db.write = world.gateway.db.write, world._write
    status, file = await world.ask("POST", "/v1/files", FILE, content_type=FORM, idempotency_key="k")
    world.gateway.db.write = held
    world.go_on.set()
    assert await first == (status, file) == (200, file)
    world.mend()
    rows, _ = await world.gateway.db.read(files.list_page, sight=None, limit=10)
    assert [row["id"] for row in rows] == [file["id"]]
    assert await world.content(file["id"]) == (200, CONTENT)


@pytest.mark.parametrize("accident", ["lost", "left"])
async def test_a_part_with_a_row_keeps_its_bytes(world, accident) -> None:
    _, upload = await world.ask("POST", "/v1/uploads", UPLOAD)
    path = f"/v1/uploads/{upload['id']}"
    if accident == "lost":
        world.lose("_add_part")
        assert (await world.ask("POST", f"{path}/parts", PART, content_type=FORM))[0] == 200
        world.mend()
    else:
        world.hold("_add_part")
        await world.leave("POST", f"{path}/parts", PART, content_type=FORM)
    (part_id,) = await world.gateway.db.read(uploads.parts, upload["id"])
    status, done = await world.ask("POST", f"{path}/complete", {"part_ids": [part_id]})
    assert status == 200
    assert await world.content(done["file"]["id"]) == (200, CONTENT)


@pytest.mark.parametrize("accident", ["lost", "left"])
async def test_a_completed_upload_keeps_its_file_and_loses_its_parts(world, accident) -> None:
    upload_id, part_id = await world.upload()
    request = ("POST", f"/v1/uploads/{upload_id}/complete", {"part_ids": [part_id]})
    if accident == "lost":
        world.lose("_complete")
        status, done = await world.ask(*request)
        world.mend()
        assert (status, done["status"]) == (200, "completed")
    else:
        world.hold("_complete")
        await world.leave(*request)
    _, shown = await world.ask("GET", f"/v1/uploads/{upload_id}")
    assert shown["status"] == "completed"
    assert await world.content(shown["file"]["id"]) == (200, CONTENT)
    assert not await world.gateway.storage.exists(f"{uploads.folder(upload_id)}/{part_id}")


async def test_what_was_refused_leaves_no_bytes(world) -> None:
    upload_id, part_id = await world.upload()
    world.hold("_add_part", commits=False)
    late = asyncio.create_task(world.ask("POST", f"/v1/uploads/{upload_id}/parts", PART, content_type=FORM))
    await asyncio.wait_for(world.reached.wait(), 30)
    held, world.gateway.db.write = world.gateway.db.write, world._write
    await world.ask("POST", f"/v1/uploads/{upload_id}/complete", {"part_ids": [part_id]})
    world.gateway.db.write = held
    world.go_on.set()
    assert (await late)[0] == 409
    world.mend()
    folder = world.gateway.settings.folder / "storage" / uploads.folder(upload_id)
    assert not [path for path in folder.rglob("*") if path.is_file()]
