"""A Vertex simulator in a thread, and the provider over it as the gateway opens it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

import httpx2
import msgspec
import pytest
import uvicorn

from batchway.core.jobs import JobSpec, Look, Route, Span
from batchway.core.spans import Line
from batchway.http import Http
from batchway.providers.protocol import Account, Answer, Tools
from batchway.providers.shared.simulation import AbortableProtocol
from batchway.providers.vertex.provider import Options, open_account
from batchway.providers.vertex.simulator import SimulatorSettings, create_app
from batchway.wire.lines import input_line, output_line

CHAT, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/embeddings", "/v1/responses"
BUCKET = "gs://sim-bucket/staging"


class Running:
    """What tests do with a simulator."""

    def __init__(self, url: str, http: httpx2.Client) -> None:
        self.url = url
        self.http = http

    def advance(self, seconds: float) -> None:
        self.http.post("/_sim/advance", json={"seconds": seconds}).raise_for_status()

    def faults(self, spec: str) -> None:
        self.http.post("/_sim/faults", json={"spec": spec}).raise_for_status()

    def jobs(self) -> list[dict[str, Any]]:
        return self.http.get("/_sim/jobs").json()["data"]

    def objects(self, prefix: str = "", bucket: str = "sim-bucket") -> list[str]:
        found = self.http.get(f"/storage/v1/b/{bucket}/o", params={"prefix": prefix}).raise_for_status().json()
        return [item["name"] for item in found.get("items", ())]

    def content(self, name: str, bucket: str = "sim-bucket") -> list[dict[str, Any]]:
        place = f"/storage/v1/b/{bucket}/o/{name.replace('/', '%2F')}"
        answer = self.http.get(place, params={"alt": "media"}).raise_for_status()
        return [json.loads(line) for line in answer.content.splitlines()]

    def with_account(self, use: Callable[[Account], Awaitable[Any]], **options: Any) -> Any:
        """What `use` makes of the provider, opened as the gateway opens it."""

        async def run() -> Any:
            http = Http(user_agent="test", random=Random(1), sleep=lambda _: asyncio.sleep(0))
            given = {"access_token": "sim", "storage_url": self.url, "bucket": BUCKET, **options}
            entry = {"project": "p", "location": "us-central1", "base_url": self.url, **given}
            tools = Tools(http=http, storage=None, clock=time.time, random=Random(1))  # type: ignore[arg-type]
            try:
                return await use(open_account("vertex", msgspec.convert(entry, Options), tools))
            finally:
                await http.close()

        return asyncio.run(run())


@contextmanager
def serving(**settings: Any) -> Iterator[Running]:
    app = create_app(SimulatorSettings(port=0, **settings), clock=time.time)
    served = uvicorn.Config(app, port=0, http=AbortableProtocol, loop="uvloop", log_level="warning", access_log=False)
    server = uvicorn.Server(served)
    listening = served.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx2.Client(base_url=url, headers={"authorization": "Bearer sim"}) as http:
            yield Running(url, http)
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


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **more}


class Work:
    """A job of given bodies, and what the provider made of it."""

    def __init__(self, bodies: list[dict[str, Any]], model: str = "gemini-2.5-flash", endpoint: str = CHAT) -> None:
        raws = [
            json.dumps({"custom_id": f"id {n} ö", "method": "POST", "url": endpoint, "body": body}).encode()
            for n, body in enumerate(bodies, 1)
        ]
        self.lines = [Line(n, input_line.decode(raw), raw) for n, raw in enumerate(raws, 1)]
        self.job = JobSpec(
            id="job_1",
            batch_id="batch_1",
            token=f"bw{Random(time.time_ns()).randbytes(16).hex()}",
            route=Route(account="vertex", model=model),
            endpoint=endpoint,
            span=Span(file_key="f", start=0, end=1, first_line=1, models=frozenset()),
            lines=len(raws),
            bytes=sum(map(len, raws)),
            window=86_400,
            deadline=time.time() + 86_400,
            submitted_at=time.time(),
        )

    async def source(self) -> AsyncIterator[list[Line]]:
        for first in range(0, len(self.lines), 100):
            yield self.lines[first : first + 100]

    async def submit(self, account: Account) -> JobSpec:
        remote_id = await account.native.submit(self.job, self.source)
        self.job = msgspec.structs.replace(self.job, remote_id=remote_id)
        return self.job

    async def answers(self, account: Account, look: Look) -> dict[str, Answer]:
        found = [each async for window in account.native.answers(self.job, look, self.source) for each in window]
        assert len({each.custom_id for each in found}) == len(found), "one answer a line"
        return {each.custom_id: each for each in found}

    async def done(self, account: Account, sim: Running, seconds: float = 5_000) -> tuple[Look, dict[str, Answer]]:
        await self.submit(account)
        await asyncio.to_thread(sim.advance, seconds)
        look = await account.native.look(self.job)
        return look, await self.answers(account, look)


def body_of(answer: Answer) -> dict[str, Any]:
    response = output_line.decode(answer.line).response
    assert response is not None
    return {"status": response.status_code, **json.loads(bytes(response.body))}
