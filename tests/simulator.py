"""A provider's simulator as a child process with its state in a folder, and what it tells about itself."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class Simulator:
    """Started when made; `close` ends it. Options are those of `batchway simulate KIND`, with underscores."""

    def __init__(self, state_dir: Path, *, kind: str = "openai", **options: Any) -> None:
        listed = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", f"batchway.providers.{kind}.simulator"),
                *("--port", "0", "--state-dir", str(state_dir), *listed),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().split()[-1]  # printed once it listens
        parts = urlsplit(self.base_url)
        self.root = f"{parts.scheme}://{parts.netloc}"
        self._past: frozenset[str] = frozenset()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def batches(self) -> list[dict[str, Any]]:
        """Every batch since `forget`, also those whose creation it denied."""
        return [batch for batch in self._ask("/_sim/batches")["data"] if batch["id"] not in self._past]

    def forget(self) -> None:
        """What it has by now belongs to an earlier test."""
        self._past |= {batch["id"] for batch in self.batches()}

    def lines(self) -> dict[str, tuple[int, int]]:
        """Of each line sent alone (by `metadata.batchway_line`): its attempts, and how many of them were billed."""
        found: dict[str, tuple[int, int]] = {}
        for row in self._ask("/_sim/requests")["data"]:
            attempts, answered = found.get(row["custom_id"], (0, 0))
            found[row["custom_id"]] = attempts + row["attempts"], answered + row["answered"]
        return found

    def drawn(self) -> dict[str, int]:
        """The faults that happened so far."""
        return self._ask("/_sim")["faults_drawn"]

    def advance(self, seconds: float) -> None:
        """Moves its clock; returns when every batch is where it then is."""
        self._ask("/_sim/advance", {"seconds": seconds})

    def faults(self, spec: str) -> None:
        self._ask("/_sim/faults", {"spec": spec})

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.root + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)


class VertexSimulator(Simulator):
    """The same over jobs that have states and labels in the place of statuses and metadata."""

    STATES: ClassVar = {"JOB_STATE_SUCCEEDED": "completed", "JOB_STATE_PARTIALLY_SUCCEEDED": "completed"}

    def __init__(self, state_dir: Path, **options: Any) -> None:
        super().__init__(state_dir, kind="vertex", **options)

    def batches(self) -> list[dict[str, Any]]:
        return [
            {"id": job["name"], "metadata": job["labels"], "status": self.STATES.get(job["state"], job["state"])}
            for job in self._ask("/_sim/jobs")["data"]
        ]
