"""A real gateway behind a real uvicorn in a thread of this process: SQLite and files in a temporary folder.

Its roles do not work, so batches stay in `validating`: the server is what is under test.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchway.app import Gateway, build
from batchway.server.app import create_app, server
from batchway.settings import Settings

MASTER = "sk-master-of-the-tests"
PROVIDERS = {"local": {"kind": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "models": ["llama"]}}
MODELS = {"chat": ["local/llama"]}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


@dataclass(frozen=True)
class Served:
    """A running gateway; `gateway` belongs to `loop`."""

    port: int
    gateway: Gateway
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = MASTER, **headers: str) -> Answer:
        """One plain HTTP exchange; a dict goes as JSON, underscores in header names become dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {key}"
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def upload(self, content: bytes, name: str = "in.jsonl", *, key: str = MASTER, **fields: str) -> Answer:
        """A file by a form with the fields before it; `after_` before a field's name puts it behind."""
        path = fields.pop("path", "/v1/files")
        headers = {name: fields.pop(name) for name in list(fields) if name == "Idempotency_Key"}
        before = {field: value for field, value in fields.items() if not field.startswith("after_")}
        behind = {field.removeprefix("after_"): value for field, value in fields.items() if field.startswith("after_")}
        return self.ask("POST", path, form(before, name, content, behind), key=key, Content_Type=FORM, **headers)

    def key(self, project: str) -> str:
        return self.ask("POST", "/v1/keys", {"name": project, "project": project}).json["key"]

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)


BOUNDARY = "tests-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(before: dict[str, str], name: str, content: bytes, behind: dict[str, str], field: str = "file") -> bytes:
    def text(pair: tuple[str, str]) -> bytes:
        return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{pair[0]}"\r\n\r\n{pair[1]}\r\n'.encode()

    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
    parts = [*map(text, before.items()), head + content + b"\r\n", *map(text, behind.items())]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def line(number: int, **body: Any) -> bytes:
    request = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Say {number}."}], **body}
    return json.dumps(
        {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": request}
    ).encode()


def jsonl(count: int) -> bytes:
    return b"\n".join(line(number) for number in range(count)) + b"\n"


@contextmanager
def serving(home: Path, **settings: Any) -> Any:
    """Serves on a free port until the block ends."""
    wanted = Settings(**{"home": str(home), "master_key": MASTER, "providers": PROVIDERS, "models": MODELS, **settings})
    started = threading.Event()
    made: dict[str, Any] = {}

    async def main() -> None:
        gateway = await build(wanted, env={})
        listening = socket.create_server(("127.0.0.1", 0))
        running = server(create_app(gateway), "127.0.0.1", 0)
        made.update(served=Served(listening.getsockname()[1], gateway, asyncio.get_running_loop()), running=running)
        started.set()
        try:
            await running.serve(sockets=[listening])
        finally:
            await gateway.close()
            listening.close()

    def thread() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            made["error"] = error
            started.set()
            raise

    running = threading.Thread(target=thread)
    running.start()
    started.wait(30)
    try:
        yield made["served"]
    finally:
        if "running" in made:
            made["running"].should_exit = True
        running.join(30)
