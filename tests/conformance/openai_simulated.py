"""A served OpenAI simulator and the fixtures that start one, for its self-tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import uvicorn
from openai.types import Batch, FileObject

from batchway.providers.openai.simulator import SimulatorSettings, create_app
from batchway.providers.shared.simulation import AbortableProtocol

CHAT = "/v1/chat/completions"


@dataclass
class Running:
    """A served simulator: `http` for raw requests from its root, `client` is OpenAI's own."""

    url: str
    http: httpx2.Client
    client: openai.OpenAI
    folder: Path

    def upload(self, lines: list[Any], name: str = "in.jsonl") -> FileObject:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        return self.client.files.create(file=(name, text.encode()), purpose="batch")

    def create(self, lines: list[Any], endpoint: Any = CHAT, **extra: Any) -> Batch:
        file = self.upload(lines)
        return self.client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **extra)

    def advance(self, seconds: float) -> None:
        self.http.post("/_sim/advance", json={"seconds": seconds}).raise_for_status()

    def faults(self, spec: str) -> None:
        self.http.post("/_sim/faults", json={"spec": spec}).raise_for_status()

    def raw(self, batch: Batch) -> dict[str, Any]:
        """The Batch object as sent, checked strictly against the official type."""
        body = self.http.get(f"/v1/batches/{batch.id}").raise_for_status().json()
        Batch.model_validate(body, strict=True)
        return body

    def after(self, batch: Batch, seconds: float) -> dict[str, Any]:
        self.advance(seconds)
        return self.raw(batch)

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        assert file_id is not None
        return [json.loads(line) for line in self.client.files.content(file_id).text.splitlines()]


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Running]:
    app = create_app(SimulatorSettings(port=0, **settings), clock=time.time)
    served = uvicorn.Config(app, port=0, http=AbortableProtocol, loop="uvloop", log_level="warning", access_log=False)
    server = uvicorn.Server(served)
    listening = served.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    headers = {"authorization": "Bearer sim"}
    try:
        with (
            httpx2.Client(base_url=url, headers=headers) as http,
            openai.OpenAI(base_url=f"{url}/v1", api_key="sim", max_retries=0) as client,
        ):
            yield Running(url, http, client, folder)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(tmp_path, **settings))


@pytest.fixture
def sim(start: Start) -> Running:
    return start()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("kept"), max_bytes=2_000_000) as running:
        yield running


@pytest.fixture
def shared(kept: Running) -> Running:
    """One simulator for all tests that do not ask what else happened to it."""
    kept.faults("")
    return kept


def line(number: int, *, simulate: str | None = None, model: str = "gpt-4o-mini", **body: Any) -> dict[str, Any]:
    content = {"model": model, "messages": [{"role": "user", "content": f"Say {number} ö 漢"}], **body}
    if simulate is not None:
        content["metadata"] = {"simulate": simulate}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": content}
