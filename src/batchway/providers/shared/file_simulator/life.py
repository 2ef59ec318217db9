"""The life of a simulated batch: which state it is in is worked out from the virtual clock when somebody looks.

Invariant: states follow OpenAI's order and their times never go back. Reading the input and writing the results happen
once each, in a thread; a state that needs them waits for them, whatever the clock says.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from batchway.providers.shared.file_simulator.flavor import Flavor
from batchway.providers.shared.file_simulator.lines import Order, Rules, Scan, Written, failing, line_fault, scan, write
from batchway.providers.shared.file_simulator.settings import SimulatorSettings
from batchway.providers.shared.file_simulator.store import (
    TERMINAL,
    Batch,
    Fate,
    File,
    active_batches,
    add_file,
    get_batch,
    get_file,
    is_read,
    open_store,
    read_meta,
    save_batch,
    write_meta,
)
from batchway.providers.shared.simulation import Background, Dice, VirtualClock

RESULT_DAYS = 30 * 86_400
_STALL_SECONDS = 4 * 3600.0
_SLOWER = 20


class Simulation:
    """One running simulator: its settings, clock, chance, database, folder of files and work in threads."""

    def __init__(self, flavor: Flavor, settings: SimulatorSettings, *, clock: Callable[[], float]) -> None:
        self.flavor = flavor
        self.settings = settings
        self.faults = settings.faults
        self.dice = Dice(settings.seed)
        self.drawn: Counter[str] = Counter()
        self.requests = 0
        self.in_flight = 0
        self.background = Background()
        self.folder = settings.state_dir or Path(tempfile.mkdtemp(prefix="batchway-simulator-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        if settings.state_dir is not None:
            self._remove.detach()
        (self.folder / "files").mkdir(parents=True, exist_ok=True)
        self.db: sqlite3.Connection = open_store(settings.state_dir)
        self.clock = self._clock(clock)
        self.keep_clock()

    def _clock(self, clock: Callable[[], float]) -> VirtualClock:
        kept = read_meta(self.db)
        if not kept:
            return VirtualClock(clock=clock, speed=self.settings.speed, real_start=clock(), start=clock())
        return VirtualClock(clock=clock, **kept).rebased(self.settings.speed)

    def keep_clock(self) -> None:
        """Stores the clock, so that a restarted simulator goes on from it and time went by meanwhile."""
        clock = self.clock
        write_meta(self.db, speed=clock.speed, real_start=clock.real_start, start=clock.start)

    def path(self, file_id: str) -> Path:
        """Where a file's bytes lie; ids are the simulator's own, never a client's."""
        return self.folder / "files" / file_id

    def hits(self, fault: str, *what: str | int) -> bool:
        """Draws a fault by its field name and counts it when it happens."""
        hit = self.dice.hits(getattr(self.faults, fault), fault, *what)
        self.drawn[fault] += hit
        return hit

    def discard(self, file_id: str) -> None:
        """Drops the bytes of a file that is no longer listed, once no batch reads them."""
        if not is_read(self.db, file_id):
            self.path(file_id).unlink(missing_ok=True)

    async def close(self) -> None:
        await self.background.close()
        self.keep_clock()
        self.db.close()
        self._remove()


def draw_fate(simulation: Simulation, ordinal: int) -> Fate:
    """What will become of the batch with this ordinal."""
    settings, dice = simulation.settings, simulation.dice

    def around(seconds: float, what: str) -> float:
        return seconds * (0.5 + dice.draw(what, ordinal))

    slow = simulation.hits("slow_validation", ordinal)
    fails = next((each for each in simulation.flavor.batch_faults if simulation.hits(each, ordinal)), None)
    return Fate(
        validates_for=around(settings.validate_seconds, "validate") * (_SLOWER if slow else 1),
        runs_for=around(settings.run_seconds, "run"),
        finalizes_for=around(settings.finalize_seconds, "finalize"),
        line_rate=simulation.faults.line,
        stops_at=0.1 + 0.8 * dice.draw("stop", ordinal) if simulation.hits("expire", ordinal) else None,
        stalls_for=_STALL_SECONDS if simulation.hits("stall", ordinal) else 0.0,
        fails=fails,
    )


def look(simulation: Simulation, batch: Batch) -> Batch:
    """Brings a batch to the state it has now and stores it when that is another one; call on the event loop."""
    before = batch.status, batch.done
    while batch.status not in TERMINAL and _STEPS[batch.status](simulation, batch, simulation.clock.now()):
        pass
    if (batch.status, batch.done) != before:
        save_batch(simulation.db, batch)
        if batch.status in TERMINAL and get_file(simulation.db, batch.input_file_id) is None:
            simulation.discard(batch.input_file_id)
    return batch


def _enter(batch: Batch, status: str, moment: float) -> bool:
    batch.status = status
    batch.stamps[f"{status}_at"] = moment
    return True


def _validating(simulation: Simulation, batch: Batch, now: float) -> bool:
    if batch.scanned_at is None:
        work = partial(scan, simulation.path(batch.input_file_id), _rules(simulation, batch))
        simulation.background.start(f"scan {batch.id}", work, partial(_scanned, simulation, batch.id))
        return False
    moment = max(batch.created_at + batch.fate.validates_for, batch.scanned_at)
    if now < moment:
        return False
    if batch.faults:
        batch.total = 0
        return _enter(batch, "failed", moment)
    return _enter(batch, "in_progress", moment)


def _in_progress(simulation: Simulation, batch: Batch, now: float) -> bool:
    finish = batch.stamps["in_progress_at"] + batch.fate.runs_for + batch.fate.stalls_for
    finish = inf if batch.never or batch.fate.stops_at is not None else finish
    closes = inf if batch.overruns else batch.expires_at
    if now < min(finish, closes):
        return False
    if finish < closes:
        batch.done = batch.total
        return _enter(batch, "finalizing", finish)
    if batch.done is None:
        batch.done = progress(batch, batch.expires_at)
    if not _files_written(simulation, batch, "batch_expired"):
        return False
    return _enter(batch, "expired", max(batch.expires_at, batch.stamps["in_progress_at"]))


def _finalizing(simulation: Simulation, batch: Batch, now: float) -> bool:
    if not _files_written(simulation, batch, None):
        return False
    moment = max(batch.stamps["finalizing_at"] + batch.fate.finalizes_for, batch.written_at or 0)
    return now >= moment and _enter(batch, "completed", moment)


def _cancelling(simulation: Simulation, batch: Batch, now: float) -> bool:
    rest = "batch_cancelled" if simulation.settings.cancelled_lines else None
    if batch.total and not _files_written(simulation, batch, rest):
        return False
    moment = max(batch.stamps["cancelling_at"] + simulation.settings.cancel_seconds, batch.written_at or 0)
    return now >= moment and _enter(batch, "cancelled", moment)


_STEPS: dict[str, Callable[[Simulation, Batch, float], bool]] = {
    "validating": _validating,
    "in_progress": _in_progress,
    "finalizing": _finalizing,
    "cancelling": _cancelling,
}


def progress(batch: Batch, now: float) -> int:
    """How many lines have run by a virtual moment."""
    if batch.done is not None or "in_progress_at" not in batch.stamps:
        return batch.done or 0
    fate = batch.fate
    elapsed = now - batch.stamps["in_progress_at"]
    if elapsed > fate.runs_for / 2:
        elapsed = max(elapsed - fate.stalls_for, fate.runs_for / 2)
    fraction = min(elapsed / fate.runs_for if fate.runs_for else 1.0, 1.0 if fate.stops_at is None else fate.stops_at)
    return max(0, min(int(fraction * batch.total), batch.total - batch.never))


def cancel(simulation: Simulation, batch: Batch) -> None:
    """Begins the end of a batch that has not ended; what has run stays and is written."""
    now = simulation.clock.now()
    batch.done = progress(batch, now)
    if "in_progress_at" not in batch.stamps:
        batch.total = 0
    _enter(batch, "cancelling", now)
    save_batch(simulation.db, batch)


def _rules(simulation: Simulation, batch: Batch) -> Rules:
    return Rules(
        batch_id=batch.id,
        ordinal=batch.ordinal,
        endpoint=batch.endpoint,
        dice=simulation.dice,
        line_rate=batch.fate.line_rate,
        max_requests=simulation.settings.max_requests,
        models=simulation.settings.models,
        line_ids=simulation.flavor.line_ids,
        decorate=simulation.flavor.answer,
    )


def _scanned(simulation: Simulation, batch_id: str, found: Scan) -> None:
    batch = get_batch(simulation.db, batch_id)
    if batch is None or batch.status != "validating":
        return  # cancelled meanwhile
    batch.model, batch.total, batch.never, batch.tokens = found.model, found.total, found.never(), found.tokens
    order = found.order(_rules(simulation, batch))
    batch.failed_ranks = array("I", [rank for rank, at in enumerate(order) if failing(found.fates[at])]).tobytes()
    faults = found.faults or _whole_batch_fault(simulation, batch)
    batch.faults = [simulation.flavor.fault(fault) for fault in faults]
    batch.scanned_at = simulation.clock.now()
    save_batch(simulation.db, batch)


def _whole_batch_fault(simulation: Simulation, batch: Batch) -> list[dict[str, Any]]:
    """What fails a batch whose lines are all right: a drawn fault, or too many tokens waiting."""
    limit = simulation.settings.enqueued_token_limit
    if batch.fate.fails == "fail_batch":
        return [line_fault("billing_hard_limit_reached", "Billing hard limit has been reached.")]
    if batch.fate.fails is None and (
        limit is None or waiting(simulation, batch.model, batch.id) + batch.tokens <= limit
    ):
        return []
    return [line_fault("token_limit_exceeded", simulation.flavor.too_many_tokens(batch.model, limit or 0))]


def waiting(simulation: Simulation, model: str | None, besides: str = "") -> int:
    """Tokens of a model's unfinished batches, besides the one with this id."""
    others = (look(simulation, other) for other in active_batches(simulation.db, model) if other.id != besides)
    return sum(other.tokens for other in others if other.status not in TERMINAL)


def _files_written(simulation: Simulation, batch: Batch, rest: str | None) -> bool:
    """Whether the result files exist; begins their writing when they do not."""
    if batch.written_at is not None:
        return True
    order = Order(
        source=simulation.path(batch.input_file_id),
        output=simulation.folder / f"{batch.id}.output",
        errors=simulation.folder / f"{batch.id}.errors",
        done=batch.done or 0,
        rest=rest,
        now=simulation.clock.now(),
    )
    work = partial(write, order, _rules(simulation, batch))
    simulation.background.start(f"write {batch.id}", work, partial(_results, simulation, batch.id, order))
    return False


def _results(simulation: Simulation, batch_id: str, order: Order, written: Written) -> None:
    batch = get_batch(simulation.db, batch_id)
    if batch is None:
        return
    batch.output_file_id = _keep(simulation, batch, order.output, written.output_lines)
    empty = simulation.flavor.empty_error_files and batch.status == "finalizing"
    batch.error_file_id = _keep(simulation, batch, order.errors, written.error_lines + empty)
    batch.completed, batch.failed, batch.usage = written.completed, written.failed, written.usage
    batch.written_at = simulation.clock.now()
    save_batch(simulation.db, batch)


def _keep(simulation: Simulation, batch: Batch, path: Path, lines: int) -> str | None:
    """Makes a result file out of written lines; None when there are none."""
    if not lines:
        path.unlink()
        return None
    now = simulation.clock.now()
    file = File(
        id=simulation.flavor.new_id("file-"),
        filename=f"{batch.id}_{path.suffix.removeprefix('.').replace('errors', 'error')}.jsonl",
        purpose="batch_output",
        bytes=path.stat().st_size,
        created_at=now,
        expires_at=now + (batch.output_seconds or RESULT_DAYS),
    )
    path.rename(simulation.path(file.id))
    add_file(simulation.db, file)
    return file.id


def counts(batch: Batch, now: float) -> dict[str, int]:
    """`request_counts`: all 0 before validation ends and when it failed, then only growing."""
    if "in_progress_at" not in batch.stamps:
        return {"total": 0, "completed": 0, "failed": 0}
    if batch.status in TERMINAL:
        return {"total": batch.total, "completed": batch.completed, "failed": batch.failed}
    done = progress(batch, now)
    failed = bisect_left(memoryview(batch.failed_ranks).cast("I"), done)
    return {"total": batch.total, "completed": done - failed, "failed": failed}


def shown(simulation: Simulation, batch: Batch) -> dict[str, Any]:
    """The Batch object of the API."""
    ended = batch.status in TERMINAL
    names = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    stamps = {f"{name}_at": batch.stamps.get(f"{name}_at") for name in names}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": batch.faults} if batch.faults and batch.status == "failed" else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file_id if ended else None,
        "error_file_id": batch.error_file_id if ended else None,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **{name: None if moment is None else int(moment) for name, moment in stamps.items()},
        "request_counts": counts(batch, simulation.clock.now()),
        "usage": _usage(batch.usage) if ended and batch.usage else None,
        "metadata": batch.metadata,
    }


def _usage(usage: dict[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": usage["input"],
        "input_tokens_details": {"cached_tokens": usage["cached"]},
        "output_tokens": usage["output"],
        "output_tokens_details": {"reasoning_tokens": usage["reasoning"]},
        "total_tokens": usage["input"] + usage["output"],
    }
