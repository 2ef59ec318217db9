# ruff: noqa: INP001, T201 - a script: it tells what it measured
"""What telling costs the API: latencies at 1,000 batches a minute with all receivers on, against none.

    python scripts/measure_telling.py [seconds] [rounds]

Each round runs a gateway without receivers and one with every kind that needs no account elsewhere, by turns, and takes
the latencies of the same calls: creating a batch, and looking at one.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from random import SystemRandom
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from batchway.http import Http  # noqa: E402 - the project is found from here
from tests.gateway import MASTER, Gateway  # noqa: E402
from tests.simulator import Simulator  # noqa: E402

PER_MINUTE = 1000
LOOKS = 4  # at each batch


class Sink:
    """Answers every POST with 200, in a thread of its own."""

    def __init__(self) -> None:
        self.events = 0
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(size)
                self.events += 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def receivers(folder: Path, sink: Sink) -> list[dict[str, Any]]:
    """Every kind that needs no account elsewhere."""
    url = f"http://127.0.0.1:{sink.port}"
    return [
        {"kind": "stdout", "lines": True},
        {"kind": "python", "path": "builtins:repr"},
        {"kind": "http", "url": f"{url}/in"},
        {"kind": "otlp", "endpoint": url, "lines": True},
        {"kind": "slack", "url": f"{url}/slack"},
        {"kind": "archive", "url": str(folder / "archive"), "lines": True},
        {"kind": "sql", "url": f"sqlite:///{folder}/events.db"},
        {"kind": "webhook", "url": f"{url}/hook", "secret": "whsec_" + "QUJD" * 8, "allow_private": True},
    ]


async def load(gateway: Gateway, file_id: str, seconds: float) -> list[float]:
    """The latencies (seconds) of all calls."""
    took: list[float] = []
    headers = {"authorization": f"Bearer {MASTER}", "content-type": "application/json"}
    wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    body = json.dumps(wanted).encode()
    http = Http(user_agent="measure", random=SystemRandom(), max_connections=64)

    async def ask(method: str, path: str, data: bytes | None = None) -> bytes:
        started = time.perf_counter()
        answer = await http.request(method, gateway.url + path, headers=headers, json=data, timeout=60)
        took.append(time.perf_counter() - started)
        return answer.body

    async def one() -> None:
        batch_id = json.loads(await ask("POST", "/v1/batches", body))["id"]
        for _ in range(LOOKS):
            await asyncio.sleep(0.3)
            await ask("GET", f"/v1/batches/{batch_id}")

    tasks: list[asyncio.Task[None]] = []
    begun = time.perf_counter()
    while (at := len(tasks) * 60 / PER_MINUTE) < seconds:
        await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    await http.close()
    return took


def cpu(gateway: Gateway) -> float:
    """The CPU seconds of its process so far: what a busy machine does not distort."""
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(*, told: bool, seconds: float) -> tuple[float, float, float, dict[str, int]]:
    """(p50, p99) in milliseconds, the cores it kept busy, and how far behind each receiver was at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        simulator = stack.enter_context(closing(Simulator(folder / "sim", speed=3000)))
        sink = Sink()
        settings: dict[str, Any] = {"providers": {"openai": {"api_key": "sim", "base_url": simulator.base_url}}}
        if told:
            settings["receivers"] = receivers(folder, sink)
        gateway = Gateway(folder / "home", settings)
        stack.callback(gateway.kill)
        gateway.start()
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions"}
        line["body"] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say one."}]}
        file_id = gateway.upload(json.dumps(line).encode() + b"\n")
        asyncio.run(load(gateway, file_id, 3))  # warm
        before = cpu(gateway)
        took = asyncio.run(load(gateway, file_id, seconds))
        spent = (cpu(gateway) - before) / seconds
        behind = {one["name"]: one["behind"] for one in gateway.ask("GET", "/v1/receivers")["data"]}
        cuts = statistics.quantiles(took, n=100)
        return cuts[49] * 1000, cuts[98] * 1000, spent, behind


def main(seconds: float, rounds: int) -> None:
    """Prints a line a gateway."""
    for _ in range(rounds):
        for told in (False, True):
            p50, p99, cores, behind = measure(told=told, seconds=seconds)
            name = "all receivers" if told else "none"
            print(f"{name:14} p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  {cores:.2f} cores  behind {behind}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
