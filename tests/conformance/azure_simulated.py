"""A served simulator of Azure OpenAI, the official clients of both of its surfaces, and providers opened on it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import msgspec
import openai
import pytest
import uvicorn
from openai.types import Batch

from batchway.core.jobs import JobSpec, Look, Route, Span
from batchway.core.spans import Line
from batchway.http import Http
from batchway.providers.azure.simulator import create_app
from batchway.providers.azure.simulator_settings import AzureSettings
from batchway.providers.protocol import Account, Answer, Tools
from batchway.providers.registry import open_accounts
from batchway.providers.shared.simulation import AbortableProtocol
from batchway.storage import LocalStorage
from batchway.wire.lines import input_line

CHAT = "/v1/chat/completions"
OLD_CHAT = "/chat/completions"
GA = "2024-10-21"
PREVIEW = "2025-04-01-preview"
KEY = "azure-key"


@dataclass
class Running:
    """`http` asks from its root with a key; `v1` and `classic` are OpenAI's own clients for the two surfaces."""

    url: str
    http: httpx2.Client
    v1: openai.OpenAI
    classic: openai.AzureOpenAI

    def advance(self, seconds: float) -> None:
        self.http.post("/_sim/advance", json={"seconds": seconds}).raise_for_status()

    def faults(self, spec: str) -> None:
        self.http.post("/_sim/faults", json={"spec": spec}).raise_for_status()

    def create(self, client: openai.OpenAI, lines: list[Any], endpoint: Any = CHAT) -> Batch:
        text = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines).encode()
        file = client.files.create(file=("in.jsonl", text), purpose="batch")
        self.advance(1)
        return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")

    def raw(self, path: str) -> dict[str, Any]:
        return self.http.get(path).raise_for_status().json()

    def files(self) -> list[str]:
        return [each["id"] for each in self.raw("/openai/v1/files")["data"]]


@contextmanager
def serving(**settings: Any) -> Iterator[Running]:
    app = create_app(AzureSettings(port=0, **settings), clock=time.time)
    served = uvicorn.Config(app, port=0, http=AbortableProtocol, loop="uvloop", log_level="warning", access_log=False)
    server = uvicorn.Server(served)
    listening = served.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with (
            httpx2.Client(base_url=url, headers={"api-key": KEY}) as http,
            openai.OpenAI(base_url=f"{url}/openai/v1", api_key=KEY, max_retries=0) as v1,
            openai.AzureOpenAI(azure_endpoint=url, api_key=KEY, api_version=GA, max_retries=0) as classic,
        ):
            yield Running(url, http, v1, classic)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(**settings))


@pytest.fixture
def sim(start: Start) -> Running:
    return start()


@pytest.fixture
async def tools(tmp_path: Path) -> AsyncIterator[Tools]:
    async def no_sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    http = Http(user_agent="batchway-test", random=Random(1), sleep=no_sleep)
    storage = LocalStorage(tmp_path / "files", durable=False)
    yield Tools(http=http, storage=storage, clock=time.time, random=Random(1))
    await http.close()
    await storage.close()


def line(number: int, *, simulate: str | None = None, model: str = "gpt-4o-mini-batch", **body: Any) -> dict[str, Any]:
    content = {"model": model, "messages": [{"role": "user", "content": f"Say {number} ö 漢"}], **body}
    if simulate is not None:
        content["metadata"] = {"simulate": simulate}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": content}


def opened(tools: Tools, sim: Running, **options: Any) -> Account:
    (account,) = open_accounts({"azure": {"endpoint": sim.url, "api_key": KEY, **options}}, tools)
    return account


class Trial:
    """One job on its way through a provider."""

    def __init__(self, account: Account, lines: list[dict[str, Any]], *, model: str, token: str = "token0") -> None:
        assert account.native is not None
        self.native = account.native
        raws = [json.dumps(each, ensure_ascii=False).encode() for each in lines]
        self.lines = [Line(number, input_line.decode(raw), raw) for number, raw in enumerate(raws, 1)]
        self.job = JobSpec(
            id="job_1",
            batch_id="batch_1",
            token=token,
            route=Route(account=account.name, model=model),
            endpoint=CHAT,
            span=Span(file_key="f", start=0, end=1, first_line=1, models=frozenset()),
            lines=len(lines),
            bytes=sum(map(len, raws)),
            window=86_400,
            deadline=4e9,
            submitted_at=0.0,
        )

    async def source(self) -> AsyncIterator[list[Line]]:
        yield self.lines

    async def submit(self) -> str:
        remote_id = await self.native.submit(self.job, self.source)
        self.job = msgspec.structs.replace(self.job, remote_id=remote_id)
        return remote_id

    async def look(self) -> Look:
        return await self.native.look(self.job)

    async def answers(self, look: Look) -> dict[str, Answer]:
        windows = self.native.answers(self.job, look, self.source)
        return {answer.custom_id: answer async for window in windows for answer in window}
