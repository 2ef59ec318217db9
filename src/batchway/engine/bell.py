"""The waiting of one queue's worker: DBOS polls, this wakes it early and holds it back.

DBOS gives each queue worker a stop event and sleeps on it between two polls. A `Bell` is such an event with two more
duties. Ringing it ends the sleep at once, so new work starts in milliseconds and the poll is only a safety net. And
while the gate is shut (no lease) the sleep does not end: a process without its lease takes no work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_GATE_SECONDS = 0.25
"""How soon a queue notices that the lease is back; only waited for while there is none."""


class Bell(threading.Event):
    """A stop event (`set`, `is_set`, `wait`) that `ring` wakes and that `gate` answering False keeps asleep."""

    def __init__(self, gate: Callable[[], bool]) -> None:
        super().__init__()
        self._gate = gate
        self._changed = threading.Condition()
        self._rung = False
        self._stopped = False

    def ring(self) -> None:
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def set(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def is_set(self) -> bool:
        return self._stopped

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until rung, stopped or `timeout` seconds have passed, and the gate is open; True when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._rung, timeout)
            while not self._stopped and not self._gate():
                self._changed.wait(_GATE_SECONDS)
            self._rung = False
            return self._stopped
