"""The demo's gateway: `batchway serve` in a child process, on one home and one port for as often as it is started.

Invariant: nothing of the caller's own configuration reaches it (no provider's keys, no BATCHWAY_ variable but those set
here), so the demo can neither spend money nor touch another gateway's state.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from batchway.cli.demo.model import DemoError

_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
)
_CONFIG = """\
# Written by `batchway demo`: one model server without a batch API, and two names for its one model.
providers:
  local: {{kind: openai_compatible, base_url: "{base_url}", concurrency: {slots}}}
models:
{models}
"""


class Gateway:
    """A gateway over `folder/home`; `url` is the same after every start, `log` holds its words of all of them."""

    def __init__(self, folder: Path, key: str) -> None:
        self.home = folder / "home"
        self.config = folder / "batchway.yaml"
        self.log = folder / "gateway.log"
        self.port = _free_port()
        self._key = key
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What the SDK calls `base_url`."""
        return f"http://127.0.0.1:{self.port}"

    def configure(self, base_url: str, slots: int, models: dict[str, str]) -> None:
        """Writes batchway.yaml: the model server as the provider `local`, and `models` as names for its models."""
        names = "\n".join(f"  {name}: [local/{native}]" for name, native in models.items())
        self.config.write_text(_CONFIG.format(base_url=base_url, slots=slots, models=names))

    def start(self, timeout: float = 60) -> float:
        """Seconds until it said it is ready; DemoError when it ends, or is not ready after `timeout` seconds."""
        began = time.monotonic()
        command = [sys.executable, "-m", "batchway", "serve", "--port", str(self.port), "--config", str(self.config)]
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment = {**kept, "BATCHWAY_HOME": str(self.home), "BATCHWAY_MASTER_KEY": self._key}
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._child = child
        while not self._is_ready():
            if time.monotonic() - began > timeout:
                raise DemoError(f"The gateway was not ready after {timeout:.0f} s (log: {self.log})")
            try:
                child.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise DemoError(f"The gateway ended with code {child.returncode} (log: {self.log})")
        return time.monotonic() - began

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> int:
        """Ends it at once, with no chance to tidy up (SIGKILL); returns the process id that it had."""
        child, self._child = self._child, None
        if child is None:
            return 0
        child.kill()
        child.wait()
        return child.pid

    def stop(self, patience: float = 10) -> None:
        """Asks it to stop and waits `patience` seconds, then kills it; without effect when it does not run."""
        if self._child is None:
            return
        self._child.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(patience)
        self.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
