"""Gateways forked from a process that has everything imported: a tenth of a start, so that hundreds can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

MAIN = Path(__file__).with_name("gateway_main.py")


class Nursery:
    """Forks gateways; `close` ends it, not them."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", str(MAIN)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lock = threading.Lock()

    def fork(self, config: Path, log: Path, *, points: Path | None = None, die: str | None = None) -> Forked:
        """A gateway that writes down the points it passes, and kills itself at the point `die`."""
        wanted = {"config": str(config), "log": str(log), "points": points and str(points), "die": die}
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
            return Forked(int(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@dataclass
class Forked:
    """A forked gateway; its nursery's child, not ours."""

    pid: int

    def ended(self) -> bool:
        return gone(self.pid)

    def kill(self) -> None:
        if not gone(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        while not gone(self.pid):
            time.sleep(0.002)  # somebody else's child: there is nothing else to wait on


def gone(pid: int) -> bool:
    """Whether nothing is left of a process whose parent reaps at once.

    A zombie is not gone: its other threads may still be dying, and hold the port until they have.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
