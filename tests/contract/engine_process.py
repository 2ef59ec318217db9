"""Starts `engine_worker.py` processes and reads what they wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

BEAT = 0.3
LEASE = 3.0
WORKER = Path(__file__).with_name("engine_worker.py")


class Event(NamedTuple):
    event: str
    key: str
    pid: int
    at: float


class Worker:
    """One child process with an engine."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(WORKER), json.dumps(config)], stdin=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def ensure(self, keys: Iterable[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(keys)) + "\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self.reap()

    def close(self) -> int:
        """End it politely; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(30)

    def reap(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(30)
        if self._process.stdin is not None:
            self._process.stdin.close()


class Crew:
    """Workers over one database and one log."""

    def __init__(self, folder: Path, url: str, *, lock: Path | None = None) -> None:
        self._log = folder / "events.jsonl"
        self._config = {"url": url, "log": str(self._log), "lock": str(lock) if lock else None}
        self._config |= {"beat": BEAT, "lease": LEASE, "concurrency": 8, "steps": 3, "step": 0.1, "stuck": False}
        self._workers: list[Worker] = []

    def hire(self, **config: Any) -> Worker:
        """Start a worker and wait until it is ready."""
        return self.hire_all(config)[0]

    def hire_all(self, *configs: dict[str, Any]) -> list[Worker]:
        """Start a worker for each, at the same time, and wait until they are ready."""
        workers = [Worker(self._config | config) for config in configs]
        self._workers += workers
        pids = {worker.pid for worker in workers}
        self.wait(lambda events: pids <= {e.pid for e in events if e.event == "ready"}, "workers to start")
        return workers

    def dismiss(self) -> None:
        for worker in self._workers:
            worker.reap()

    def events(self) -> list[Event]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [Event(**json.loads(line)) for line in lines]

    def wait(self, seen: Callable[[list[Event]], object], what: str, *, seconds: float = 40) -> list[Event]:
        """The events, once `seen` is true of them."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            events = self.events()
            if seen(events):
                return events
            time.sleep(0.02)  # other processes: there is nothing to wait on but their file
        raise AssertionError(f"waited {seconds} s for {what}; seen: {Counter(e.event for e in self.events())}")

    def wait_ended(self, keys: Iterable[str], *, seconds: float = 40) -> list[Event]:
        """The events, once every key has ended."""
        wanted = set(keys)
        return self.wait(lambda events: wanted <= keys_of(events, "end"), "all keys to end", seconds=seconds)


def keys_of(events: Iterable[Event], event: str) -> set[str]:
    return {e.key for e in events if e.event == event}


def count_of(events: Iterable[Event], event: str) -> Counter[str]:
    return Counter(e.key for e in events if e.event == event)
