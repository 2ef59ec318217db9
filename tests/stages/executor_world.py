"""A whole executor for tests: real database, storage, engine and HTTP, and a model server in the test's own event loop.

`python -m tests.stages.executor_world FOLDER BASE_URL` is a process with an executor over that folder, to be killed.
`World.job` stores a file and a running job; `World.finished` waits for the job's end as the poller would hear of it.
The model server answers as `behave` says and counts what reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import uvicorn

from batchway.core.jobs import JobSpec
from batchway.core.spans import Block, Line, LineIndex, Tally, encode_index
from batchway.core.states import JobState
from batchway.db import jobs
from batchway.db.engine import Database
from batchway.db.transitions import create_batch, create_jobs, move_job
from batchway.engine import Engine
from batchway.executor import Endpoint, Executor, Tuning
from batchway.http import Http, Retry
from batchway.providers.executed.provider import ExecutedProvider
from batchway.providers.protocol import Answer
from batchway.storage import LocalStorage

QUICK = Tuning(
    segment_seconds=0.05,
    tick=0.2,
    overdue=3.0,
    line=Retry(idempotent=True, attempts=3, base=0.01, cap=0.02),
    chunk=Retry(idempotent=True, attempts=2, base=0.01, cap=0.02),
)

Reaction = tuple[int, dict[str, str], bytes]
Behave = Callable[[str, int], Awaitable[Reaction]]
"""What the server does with the n-th request (from 1) of one line's content."""


def answer(content: str = "hello") -> Reaction:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    body = {"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}
    return 200, {}, json.dumps(body).encode()


def refusal(status: int, **headers: str) -> Reaction:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, b'{"error": {"message": "no"}}'


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - what it looks at is counted in many places
            await asyncio.sleep(0.01)


class ModelServer:
    """An OpenAI-compatible endpoint; `seen` counts requests by content, `most` is the most there were at once."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.at: list[float] = []
        self.done_at: list[float] = []
        self.open = self.most = 0
        self.base_url = ""

    async def behave(self, content: str, time_seen: int) -> Reaction:
        return answer(content)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = json.loads(raw)
        content = body["messages"][0]["content"]
        self.at.append(time.perf_counter())
        self.seen[content] += 1
        self.models[body["model"]] += 1
        self.paths[scope["path"]] += 1
        self.keys.add(dict(scope["headers"]).get(b"authorization", b"").decode() or None)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            status, headers, reply = await self.behave(content, self.seen[content])
        finally:
            self.open -= 1
        self.done_at.append(time.perf_counter())
        listed = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": listed})
        await send({"type": "http.response.body", "body": reply})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = _Server(uvicorn.Config(self, log_level="critical", lifespan="off", timeout_graceful_shutdown=0))
        # With its protocol named: asyncio turns Nagle's algorithm off for no other, and each answer would wait 40 ms.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(512)
            self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True
                await serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # the test runner's own
        yield


class World:
    def __init__(self, folder: Path, base_url: str, *, concurrency: int = 8, tuning: Tuning = QUICK) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'batchway.db'}"
        self.db = Database(self.url)
        self.storage = LocalStorage(folder / "storage", durable=False)
        self.http = Http(user_agent="batchway-test", random=Random(1))
        self.engine = Engine(
            database_url=self.url, loop=asyncio.get_running_loop(), exclusive_lock=folder / "lock", poll_seconds=0.2
        )
        self.endpoint = Endpoint(
            base_url=base_url,
            headers={"authorization": "Bearer secret"},
            concurrency=concurrency,
            timeout=5.0,
        )
        self.server = ModelServer()
        self.ended: list[str] = []
        self._bell = asyncio.Event()
        self.executor = Executor(
            db=self.db,
            storage=self.storage,
            http=self.http,
            engine=self.engine,
            endpoints={"local": self.endpoint},
            clock=time.time,
            settings=tuning,
            on_job_end=self._job_ended,
        )
        self.provider = ExecutedProvider(self.executor)
        self.dispatching: asyncio.Task[None] | None = None
        self.patience = 0.0

    async def start(self) -> None:
        self.executor.register()
        await asyncio.to_thread(self.engine.launch)
        self.dispatching = asyncio.create_task(self.executor.run())

    async def stop(self) -> None:
        if self.dispatching is not None:
            self.dispatching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.dispatching
            await self.engine.close(timeout=self.patience)
        await self.http.close()
        await self.storage.close()
        self.db.close()

    async def job(
        self,
        contents: list[str],
        *,
        model: str = "m",
        names: tuple[str, ...] = (),
        window: float = 3600,
        block: int = 256,
    ) -> JobSpec:
        """A stored file of one line a content (named `c<number>`), and a running job over all of it."""
        number = len(list((self.folder / "storage").rglob("*.index")))
        file_key, batch_id, job_id = f"files/f{number}", f"batch_{number}", f"job_{number}"
        index, data = _file(contents, names or (model,), block)
        await self.storage.put(file_key, data)
        await self.storage.put(f"{file_key}.index", encode_index(index))
        now = time.time()
        batch = {
            "id": batch_id,
            "project": "p",
            "key_id": "k",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
            "completion_window": "24h",
            "window_seconds": 86400,
            "expires_at": now + window,
        }
        row = {
            "id": job_id,
            "batch_id": batch_id,
            "ordinal": 0,
            "token": f"token-{number}",
            "account": "local",
            "model": model,
            "lane": "executed",
            "models": list(names),
            "endpoint": "/v1/chat/completions",
            "file_key": file_key,
            "span_start": 0,
            "span_end": len(data),
            "first_line": 1,
            "lines": len(contents),
            "bytes": len(data),
            "window_seconds": 86400,
            "deadline": now + window,
        }
        await self.db.write(create_batch, now, batch)
        await self.db.write(create_jobs, now, [row])
        await self.db.write(move_job, job_id, JobState.PLANNED, JobState.SUBMITTING, now)
        await self.db.write(move_job, job_id, JobState.SUBMITTING, JobState.RUNNING, now, {"remote_id": job_id})
        return jobs.spec(await self.db.read(jobs.get, job_id))

    async def submit(self, job: JobSpec) -> None:
        async def nothing():
            yield []

        assert await self.provider.submit(job, nothing) == job.id

    async def finished(self, job: JobSpec, timeout: float = 10) -> None:
        async with asyncio.timeout(timeout):
            while job.id not in self.ended:
                self._bell.clear()
                await self._bell.wait()

    async def answers(self, job: JobSpec) -> list[Answer]:
        look = await self.provider.look(job)
        windows = self.provider.answers(job, look, _no_lines)
        return [answer async for window in windows for answer in window]

    def _job_ended(self, job_id: str) -> None:
        self.ended.append(job_id)
        self._bell.set()


@asynccontextmanager
async def world(folder: Path, behave: Behave | None = None, **settings) -> AsyncIterator[World]:
    server = ModelServer()
    if behave is not None:
        server.behave = behave
    async with server.serving():
        made = World(folder, server.base_url, **settings)
        made.server = server
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


def _file(contents: list[str], models: tuple[str, ...], block: int) -> tuple[LineIndex, bytes]:
    lines: list[bytes] = []
    blocks: list[Block] = []
    offset = 0
    for at, content in enumerate(contents):
        model = models[at % len(models)]
        body = {"model": model, "messages": [{"role": "user", "content": content}]}
        line = {"custom_id": f"c{at + 1}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        raw = json.dumps(line).encode() + b"\n"
        if at % block == 0:
            blocks.append(Block(offset, at + 1, {}))
        tally = blocks[-1].models.setdefault(model, Tally())
        tally.lines += 1
        tally.bytes += len(raw)
        lines.append(raw)
        offset += len(raw)
    return LineIndex(offset, blocks), b"".join(lines)


async def _main(folder: str, base_url: str) -> None:
    made = World(Path(folder), base_url)
    await made.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))


async def _no_lines() -> AsyncIterator[list[Line]]:
    """The executor keeps its answers with their lines' ids: it never opens the source."""
    raise AssertionError
    yield []
