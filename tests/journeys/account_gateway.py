"""A gateway that prices one job of many answers when told to: `python -m tests.journeys.account_gateway HOME LINES`.

It says its port, waits for a line on stdin, runs the stage and says what it took: one JSON object a line on stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import uvloop
from sqlalchemy import insert, update

from batchway.app import Gateway, build
from batchway.core.answers import pack
from batchway.core.states import BatchState, JobState, Outcome
from batchway.db import jobs
from batchway.db.schema import jobs as table
from batchway.db.transitions import create_batch, move_batch
from batchway.pipeline.account import account
from batchway.server.app import create_app, server
from batchway.settings import Settings
from tests.journeys.serving import MASTER

KINDS = {"openai": {"kind": "openai", "api_key": "none", "base_url": "http://127.0.0.1:9/v1"}}
PIECE = 1000  # answers written at a time
ANSWER = (
    b'{"id":"batch_req_0000000000000000","custom_id":"row-%d","response":{"status_code":200,"request_id":"0000","body":'
    b'{"id":"chatcmpl-0000000000000000","object":"chat.completion","created":1790000000,"model":"gpt-4o-mini-2024-07-18",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"An answer of ordinary length to question %d.",'
    b'"refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,"completion_tokens":%d,'
    b'"total_tokens":99,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":'
    b'{"reasoning_tokens":0}},"system_fingerprint":"fp_0"}},"error":null}'
)


def tokens(number: int) -> tuple[int, int]:
    """Of the line's input and output."""
    return 10 + number % 90, 5 + number % 50


def answers(count: int) -> Iterator[bytes]:
    for first in range(1, count + 1, PIECE):
        numbers = range(first, min(first + PIECE, count + 1))
        yield b"".join(pack(n, ok=True, line=ANSWER % (n, n, *tokens(n))) for n in numbers)


async def fill(gateway: Gateway, count: int) -> None:
    """A batch in progress, whose one job is collected."""
    async with gateway.storage.writer("answers/batch_1/job_1") as writing:
        for piece in answers(count):
            await writing.write(piece)
    await gateway.db.write(_rows, count)


def _rows(tx: Any, count: int) -> None:
    now = time.time()
    shared = {"endpoint": "/v1/chat/completions", "window_seconds": 86400}
    owner = {"id": "batch_1", "project": "p", "key_id": "k", "input_file_id": "file-1", "completion_window": "24h"}
    create_batch(tx, now, {**shared, **owner, "expires_at": now + 86400, "total": count})
    move_batch(tx, "batch_1", BatchState.VALIDATING, BatchState.IN_PROGRESS, now, {"prepared_at": now})
    job = {
        "id": "job_1", "batch_id": "batch_1", "ordinal": 0, "token": "t", "account": "openai", "model": "gpt-4o-mini",
        "lane": "native", "models": [], "file_key": "none", "span_start": 0, "span_end": 1, "first_line": 1,
        "lines": count, "bytes": 1, "deadline": now, "status": JobState.PLANNED, "planned_at": now,
    }  # fmt: skip
    tx.execute(insert(table).values(**shared, **job))
    tx.execute(
        update(table).values(status=JobState.COLLECTED, outcome=Outcome.SUCCEEDED, ended_at=now, collected_at=now)
    )
    tx.execute(update(table).values(answers_key="answers/batch_1/job_1", completed=count))


class Memory:
    """The most resident memory while the block ran, above what there was before, in bytes."""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self.before = self.most = _resident()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        self.grown = self.most - self.before

    def _look(self) -> None:
        while not self._over.wait(0.02):  # samples: memory tells nobody when it grows
            self.most = max(self.most, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


async def main(home: str, count: int) -> None:
    gateway = await build(Settings(home=home, master_key=MASTER, providers=KINDS), env={})
    await fill(gateway, count)
    listening = socket.create_server(("127.0.0.1", 0))
    running = server(create_app(gateway), "127.0.0.1", 0)
    serving = asyncio.create_task(running.serve(sockets=[listening]))
    print(json.dumps({"port": listening.getsockname()[1]}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    with Memory() as memory:
        began, cpu = time.perf_counter(), _cpu()
        await account(gateway.trip, "job_1")
        spent = {"seconds": time.perf_counter() - began, "cpu": _cpu() - cpu}
    job = await gateway.db.read(jobs.get, "job_1")
    print(json.dumps({**spent, "grown": memory.grown, "amount": job["amount"], "usage": job["usage"]}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    running.should_exit = True
    await serving
    await gateway.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `batchway serve` does
        runner.run(main(sys.argv[1], int(sys.argv[2])))
