"""A process with an engine, for tests that kill, freeze and restart things. Run with one JSON object as its argument.

It writes what happens as JSON lines to the log file (`event`, `key`, `pid`, `at` on the clock all processes share),
reads lists of keys to `ensure` from its standard input, one JSON list a line, and closes politely when that ends.
A body takes `steps` steps and "pays" in each one while `alive()` allows it. Where `stuck` is set, keys that begin with
"slow" take steps for ever: something is then in the middle of its work at whatever moment the test chooses.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from batchway.engine import Engine


class Log:
    """Appends lines; each is one write, so several processes may share the file."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, event: str, key: str = "") -> None:
        line = {"event": event, "key": key, "pid": os.getpid(), "at": time.monotonic()}
        os.write(self._fd, json.dumps(line).encode() + b"\n")


async def commands() -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader, pipe


async def main(config: dict[str, Any]) -> None:
    log = Log(config["log"])
    lock = config.get("lock")
    started = time.monotonic()
    engine = Engine(
        database_url=config["url"],
        loop=None,
        exclusive_lock=Path(lock) if lock else None,
        beat_seconds=config["beat"],
        lease_seconds=config["lease"],
    )

    async def body(key: str) -> None:
        log("begin", key)
        steps = sys.maxsize if config["stuck"] and key.startswith("slow") else config["steps"]
        try:
            for _ in range(steps):
                await asyncio.sleep(config["step"])
                while not engine.alive():
                    log("held", key)
                    await asyncio.sleep(0.05)
                log("pay", key)
        except asyncio.CancelledError:
            log("cut", key)
            raise
        log("end", key)

    async def watch() -> None:
        known = engine.executor_id
        while True:
            await asyncio.sleep(0.02)
            if engine.executor_id != known:
                known = engine.executor_id
                log("rejoined")

    engine.register("work", body, concurrency=config["concurrency"])
    engine.launch()
    log("ready", f"{time.monotonic() - started:.3f}")
    watcher = asyncio.create_task(watch())
    reader, pipe = await commands()
    while line := await reader.readline():
        for key in json.loads(line):
            await engine.ensure("work", key)
        log("ensured")
    watcher.cancel()
    pipe.close()
    await engine.close(timeout=0.2)
    log("closed")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
