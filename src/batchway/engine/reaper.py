"""The thread that takes over the work of the dead, and sweeps up after the finished.

Every process runs one, and any number may work on the same rows at once: each step is one conditional statement that
the second to come finds done. Dead is whoever has claimed work and no row (see `lease.py`), so a reaper that dies
between judging and recovering loses nothing: the next one sees the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from batchway.engine.durable import Durable
from batchway.engine.lease import Lease, steady_clock

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0
_SWEEP_ROWS = 500


class Reaper(threading.Thread):
    """Reaps every `every_seconds` until `stop`; `on_recovered` is called when work went back into the queues."""

    def __init__(
        self,
        durable: Durable,
        lease: Lease,
        *,
        every_seconds: float,
        keep_seconds: float,
        on_recovered: Callable[[], None],
    ) -> None:
        super().__init__(name="engine-reaper", daemon=True)
        self._durable = durable
        self._lease = lease
        self._every_seconds = every_seconds
        self._keep_seconds = keep_seconds
        self._on_recovered = on_recovered
        self._stop_asked = threading.Event()
        self._unattended: dict[tuple[str, str], float] = {}
        self._swept_at = float("-inf")
        self._failing = False

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stop_asked.set()

    def run(self) -> None:
        while not self._stop_asked.wait(self._every_seconds):
            if not self._lease.alive():
                continue
            try:
                self._round()
            except SQLAlchemyError as error:
                if not self._failing:
                    log.warning("engine: reaping failed (%s); trying again", type(error).__name__)
                self._failing = True
            else:
                self._failing = False

    def _round(self) -> None:
        if self._lease.may_judge():
            for executor_id in self._lease.judge():
                log.warning("engine: executor %s let its lease run out and is declared dead", executor_id)
        if self.recover_dead() + self._release_unattended():
            self._on_recovered()
        if steady_clock() - self._swept_at >= min(_SWEEP_SECONDS, self._keep_seconds):
            self._sweep()
            self._swept_at = steady_clock()

    def recover_dead(self) -> int:
        """Put back the work of every executor without a row; how much that was."""
        # In this order: who claims work has had its row since before, so nobody alive can be missing from the second.
        claimed = self._durable.pending_executors()
        dead = claimed - self._lease.living() if claimed else claimed
        recovered = 0
        for executor_id in sorted(dead):
            count = self._durable.recover(executor_id)
            log.info("engine: %d unfinished of dead executor %s put back", count, executor_id)
            recovered += count
        return recovered

    def _release_unattended(self) -> int:
        """Put back our own claims of which nothing has run here for a whole lease; how many."""
        now = steady_clock()
        seen = {claim: self._unattended.get(claim, now) for claim in self._durable.unattended()}
        lost = [claim for claim, since in seen.items() if now - since >= self._lease.seconds]
        for workflow_id, _ in lost:
            self._durable.release(workflow_id, self._durable.executor_id)
        self._unattended = {claim: since for claim, since in seen.items() if claim not in lost}
        return len(lost)

    def _sweep(self) -> None:
        while not self._stop_asked.is_set():
            if self._durable.delete_finished(older_seconds=self._keep_seconds, limit=_SWEEP_ROWS) < _SWEEP_ROWS:
                return
