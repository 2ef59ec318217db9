"""A real gateway in a child process: started, killed and started again on the same home, asked over plain HTTP.

`Gateway` knows nothing of what runs inside; `spawn` says how a process is made, so a crash test can make one that kills
itself at a chosen moment.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

MASTER = "sk-master-of-the-tests"
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
WORKS = b"Batchway is working"  # the first line of one that serves no API
BOUNDARY = "batchway-tests"
START_SECONDS = 60.0

_choosing = threading.Lock()
_chosen: set[int] = set()


class Away(Exception):
    """Nobody answered: the process is gone, or went while it was asked."""


class Refused(Exception):
    """An answer that is no success."""


class Process(Protocol):
    """What a spawned gateway is to us."""

    pid: int

    def ended(self) -> bool: ...

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        ...


class Child:
    """`batchway serve`; what it prints and logs goes to a file."""

    def __init__(self, config: Path, log: Path) -> None:
        with log.open("ab") as out:
            command = [sys.executable, "-W", "error", "-m", "batchway", "serve", "--config", str(config)]
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        self.pid = self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)


Spawn = Callable[[Path, Path], Process]


@dataclass
class Gateway:
    """One gateway over its lives. `settings` are those of batchway.yaml."""

    home: Path
    settings: dict[str, Any] = field(default_factory=dict)
    spawn: Spawn = Child
    name: str = "gateway"

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.kills = 0
        self.log = self.home.parent / f"{self.name}.log"
        self._config = self.home.parent / f"{self.name}.yaml"
        self._process: Process | None = None
        self._logged = 0  # bytes, before this launch

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> str:
        return self.settings.get("database_url") or f"sqlite:///{self.home / 'batchway.db'}"

    @property
    def storage(self) -> Path:
        url = self.settings.get("storage_url")
        return Path(url.removeprefix("file://")) if url else self.home / "storage"

    def launch(self, spawn: Spawn | None = None) -> None:
        """Starts a process and does not wait."""
        values = {"home": str(self.home), "port": self.port, "master_key": MASTER, "log_level": "info"}
        self._config.write_text(json.dumps(values | self.settings))  # JSON is YAML
        self._logged = self.log.stat().st_size if self.log.exists() else 0
        self._process = (spawn or self.spawn)(self._config, self.log)

    def start(self, spawn: Spawn | None = None) -> None:
        self.launch(spawn)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until it answers; Away when the process ended instead."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.dead:
                raise Away("the gateway ended before it was ready")
            if self._answers():
                return
            time.sleep(0.02)  # another process: there is nothing else to wait on
        raise AssertionError(f"the gateway was not ready after {START_SECONDS} s; see {self.log}")

    def _answers(self) -> bool:
        if "api" not in self.settings.get("roles", ["api"]):
            return WORKS in self.log.read_bytes()[self._logged :]
        try:
            self.ask("GET", "/health/ready")
        except (Away, Refused):
            return False
        return True

    @property
    def dead(self) -> bool:
        return self._process is None or self._process.ended()

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    def kill(self) -> None:
        """kill -9 of the whole process."""
        if self._process is not None:
            self._process.kill()
            self._process = None
            self.kills += 1

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One exchange; JSON comes back parsed, anything else as bytes. Away or Refused."""
        sent = {"authorization": f"Bearer {MASTER}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            sent["content-type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Away(str(error)) from None
        finally:
            connection.close()
        if answer.status >= 300:
            raise Refused(f"{method} {path}: {answer.status} {data[:500]!r}")
        return json.loads(data) if "json" in answer.headers.get("content-type", "").split(";")[0].split("/") else data

    def upload(self, content: bytes, **headers: str) -> str:
        """The id of a batch input file."""
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{BOUNDARY}\r\n'
            'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        )
        data = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        form = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask("POST", "/v1/files", data, content_type=form, **headers)["id"]

    def create(self, file_id: str, window: str = "24h", **headers: str) -> str:
        """The id of a chat batch over that file."""
        wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": window}
        return self.ask("POST", "/v1/batches", wanted, **headers)["id"]

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self.ask("GET", f"/v1/batches/{batch_id}")

    def results(self, batch_id: str) -> list[dict[str, Any]]:
        """Every line that `/results` gives, with its cursor."""
        data = self.ask("GET", f"/v1/batches/{batch_id}/results")
        return [json.loads(line) for line in data.splitlines()]

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def free_port() -> int:
    """A port below those that the system hands out, so that nobody takes it while the gateway is dead."""
    with _choosing:
        while True:
            port = random.randrange(20_000, 32_000)
            if port in _chosen:
                continue
            _chosen.add(port)
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                return port
