"""The thread that renews the lease, and nothing else: it shares neither connection nor lock with the work.

When the lease turns out to be lost, `on_loss` must end everything that ran under it and take a new one; until then
`Lease.alive` is False. A database that does not answer is no loss: the beat is tried again, more often.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from batchway.engine.lease import Lease

log = logging.getLogger(__name__)


class Heart(threading.Thread):
    """Beats every `beat_seconds` until `stop`."""

    def __init__(self, lease: Lease, *, beat_seconds: float, on_loss: Callable[[], None]) -> None:
        super().__init__(name="engine-heart", daemon=True)
        self._lease = lease
        self._beat_seconds = beat_seconds
        self._on_loss = on_loss
        self._stop_asked = threading.Event()
        self._failing = False

    def stop(self) -> None:
        """Ask the thread to end; it may still be inside a beat."""
        self._stop_asked.set()

    def run(self) -> None:
        while not self._stop_asked.wait(self._beat_seconds / 3 if self._failing else self._beat_seconds):
            try:
                if not self._lease.beat() and not self._stop_asked.is_set():
                    log.warning("engine: %s was declared dead; its work runs elsewhere", self._lease.executor_id)
                    self._on_loss()
            except SQLAlchemyError as error:
                if not self._failing:
                    log.warning("engine: the lease cannot be renewed (%s); trying again", type(error).__name__)
                self._failing = True
            else:
                if self._failing:
                    log.info("engine: the lease is renewed again")
                self._failing = False
