"""A job's answers become output lines in input order; lines without an answer become error lines.

Answers come in any order and are joined by custom_id. They are first written to a scratch file of this process, with
20 bytes of index a line, then read back in input order; so memory is bounded by the provider's limit of lines a job.
Every line of the job ends as exactly one stored answer, whatever became of the job.
"""

from __future__ import annotations

import logging
import tempfile
from array import array
from collections.abc import AsyncIterator
from typing import IO

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.answers import pack
from batchway.core.errors import ProviderError
from batchway.core.jobs import Counts, JobSpec
from batchway.core.spans import Line, span_lines
from batchway.core.states import BatchState, JobState, Outcome
from batchway.db import batches, jobs, segments
from batchway.db.transitions import move_job
from batchway.pipeline.trip import Trip
from batchway.wire.lines import error_line, output_line

log = logging.getLogger(__name__)

WINDOW = 1 << 18  # bytes read at a time: a few milliseconds of the event loop
GIVE_UP = 6  # tries, minutes in all, until results that the provider does not find are given up
SCRATCH_MEMORY = 4 << 20  # bytes of answers held before a scratch file is opened

WHY_MISSING = {
    Outcome.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    Outcome.CANCELLED: ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    Outcome.SUCCEEDED: ("missing_answer", "The provider ended its job without an answer to this request."),
}
STOPPED = (Outcome.EXPIRED, Outcome.CANCELLED)
NEVER_RUN = frozenset(WHY_MISSING[outcome][0] for outcome in STOPPED)


class _Tally(msgspec.Struct):
    completed: int = 0
    failed: int = 0
    bytes: int = 0
    missing: list[bytes] = msgspec.field(default_factory=list)  # the stored form of lines without an answer
    missing_failed: int = 0


async def collect(trip: Trip, job_id: str) -> None:
    """Leaves an ended job collected."""
    row = await trip.db.read(jobs.get, job_id)
    if row["status"] != JobState.ENDED:
        return
    job = jobs.spec(row)
    why = _why_missing(row, await trip.db.read(batches.get, job.batch_id))
    key = f"answers/{job.batch_id}/{job.id}.jsonl"
    with tempfile.SpooledTemporaryFile(max_size=SCRATCH_MEMORY, dir=str(trip.scratch)) as scratch:
        places = _Places(job.lines)
        if job.remote_id is not None:
            await _gather_all(trip, row, places, scratch)
        tally = _Tally()
        async with trip.storage.writer(key) as writer:
            async for window in _in_order(trip, row, places, scratch, (tally, why)):
                await writer.write(window)
    segment = await _segment(trip, row, key, tally)
    await trip.db.write(_collected, row, key, (tally, segment), trip.clock())


async def _segment(trip: Trip, row: RowMapping, key: str, tally: _Tally) -> segments.NewSegment | None:
    """What `/results` lacks of this job: all of a native one, of an executed one the lines that were never sent."""
    if row["lane"] == "native":
        counts, size = Counts(tally.completed, tally.failed), tally.bytes
    elif tally.missing:
        data = b"".join(tally.missing)
        key, size = key + ".missing", len(data)
        counts = Counts(0, tally.missing_failed)
        await trip.storage.put(key, data)
    else:
        return None
    return segments.NewSegment(
        batch_id=row["batch_id"],
        job_id=row["id"],
        chunk_id=None,
        storage_key=key,
        bytes=size,
        counts=counts,
        numbers=None,
    )


def _collected(
    tx: Connection, row: RowMapping, key: str, result: tuple[_Tally, segments.NewSegment | None], now: float
) -> None:
    tally, segment = result
    values = {"answers_key": key, "completed": tally.completed, "failed": tally.failed}
    if move_job(tx, row["id"], JobState.ENDED, JobState.COLLECTED, now, values) and segment:
        segments.append(tx, segment)


class _Places:
    """Where in the scratch file each answer stands: by the line's ordinal within the job."""

    def __init__(self, lines: int) -> None:
        self.ordinals: dict[str, int] = {}
        self.starts = array("q", [-1]) * lines
        self.lengths = array("q", [0]) * lines  # negative: not ok
        self.milliseconds = array("I", [0]) * lines


async def _gather_all(trip: Trip, row: RowMapping, places: _Places, scratch: IO[bytes]) -> None:
    """What there is; results that stay away at the provider are given up in the end, so that the batch can end too."""
    try:
        await _gather(trip, row, places, scratch)
    except ProviderError as error:
        if error.status != 404 or row["attempts"] < GIVE_UP:
            raise
        log.exception("%s: the provider no longer has its results", row["id"])


async def _gather(trip: Trip, row: RowMapping, places: _Places, scratch: IO[bytes]) -> None:
    """Every answer of the provider into the scratch file, the first one a line when there are several."""
    job = jobs.spec(row)
    ordinal = 0
    async for window in _job_lines(trip, job):
        for line in window:
            places.ordinals[line.request.custom_id] = ordinal  # of lines that share one, as adopted ones may: the last
            ordinal += 1
    foreign = 0
    provider = trip.accounts.provider(job.route)
    async for answers in provider.answers(job, jobs.last_look(row), lambda: _job_lines(trip, job)):
        for answer in answers:
            if not answer.ok and row["outcome"] in STOPPED and _never_run(answer.line):
                continue  # a missing answer that the provider spelled out: one rule for all of them, below
            ordinal = places.ordinals.get(answer.custom_id)
            if ordinal is None or places.starts[ordinal] >= 0:
                foreign += 1
                continue
            places.starts[ordinal] = scratch.tell()
            places.lengths[ordinal] = len(answer.line) if answer.ok else -len(answer.line)
            places.milliseconds[ordinal] = answer.milliseconds
            scratch.write(answer.line)
    if foreign:
        log.warning("%s: %d answers belong to no line of this job, or to one answered before", job.id, foreign)


async def _in_order(
    trip: Trip, row: RowMapping, places: _Places, scratch: IO[bytes], into: tuple[_Tally, tuple[str, str, int]]
) -> AsyncIterator[bytes]:
    """The stored form of every line of the job, a window at a time."""
    tally, (code, message, counts) = into
    ordinal = 0
    async for window in _job_lines(trip, jobs.spec(row)):
        packed: list[bytes] = []
        for line in window:
            start, length, busy = places.starts[ordinal], places.lengths[ordinal], places.milliseconds[ordinal]
            ordinal += 1
            if start < 0:
                tally.failed += counts
                tally.missing_failed += counts
                raw = error_line(f"batch_req_{line.number}", line.request.custom_id, code, message)
                packed.append(pack(line.number, ok=False, line=raw))
                tally.missing.append(packed[-1])
                continue
            scratch.seek(start)
            ok = length > 0
            tally.completed += ok
            tally.failed += not ok
            packed.append(pack(line.number, ok=ok, line=scratch.read(abs(length)), milliseconds=busy))
        joined = b"".join(packed)
        tally.bytes += len(joined)
        yield joined


def _why_missing(row: RowMapping, batch: RowMapping) -> tuple[str, str, int]:
    """(code, message, 1 when the line counts as failed): OpenAI does not count lines that were never run."""
    outcome = Outcome(row["outcome"])
    if outcome is Outcome.CANCELLED and batch["expiring"] and batch["status"] != BatchState.CANCELLING:
        outcome = Outcome.EXPIRED  # we cancelled the job because the batch's window had closed
    if outcome in WHY_MISSING:
        return (*WHY_MISSING[outcome], int(outcome is Outcome.SUCCEEDED))
    return row["code"] or "job_failed", row["message"] or "The provider refused or lost the job.", 1


def _never_run(line: bytes) -> bool:
    error = output_line.decode(line).error
    return error is not None and error.code in NEVER_RUN


def _job_lines(trip: Trip, job: JobSpec) -> AsyncIterator[list[Line]]:
    return span_lines(trip.storage.read(job.span.file_key, job.span.start, job.span.end, chunk=WINDOW), job.span)
