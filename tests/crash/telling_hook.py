"""A receiver that the crash tests read: each event it is told is a line of a file, appended in one write.

`TELLING_FOLDER` names the folder of `heard.jsonl`. While a file `down` stands there the receiver is away; a
file `die` is taken away by the process that it ends, between its telling an event and noting that it did.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import msgspec

from batchway.core.events import Event
from batchway.integrations.protocol import ReceiverError


class Notebook:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["TELLING_FOLDER"])
        self._heard = os.open(self._folder / "heard.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_event(self, event: Event) -> None:
        if (self._folder / "down").exists():
            raise ReceiverError("away", retry_after=0.2)
        os.write(self._heard, msgspec.json.encode(event) + b"\n")
        with suppress(FileNotFoundError):
            (self._folder / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
