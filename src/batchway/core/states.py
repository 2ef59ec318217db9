"""The life of a batch and of a job: two enums, two tables, one `step`.

A batch speaks OpenAI's words. It is `validating` while its lines are read, `failed` when they hold faults,
`paused` (our own word) while it waits for money or for its owner and submits nothing,
`in_progress` while its jobs run, `finalizing` while the files are written, and ends as `completed`, `expired`
(its window closed first) or, through `cancelling`, as `cancelled`.

A job is the part of a batch that one provider job carries. `planned`: its lines are known. `submitting`: our token is
committed and the provider may or may not have it. `running`: the provider has it and we know its id. `ended`: the
provider is done with it (`outcome` says how). `collected`: its answers are stored in our order. `accounted`: its tokens
are money in the ledger. The one way back is submitting -> planned, when the provider turns out to have no such job.

`db/transitions.py` holds the only statement that writes a status; `db/schema.py` repeats the final states as CHECK
constraints; `docs/states.md` is generated from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar


class BatchState(StrEnum):
    """Where a batch is, in OpenAI's words."""

    VALIDATING = "validating"
    PAUSED = "paused"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """Where a job is on its road."""

    PLANNED = "planned"
    SUBMITTING = "submitting"
    RUNNING = "running"
    ENDED = "ended"
    COLLECTED = "collected"
    ACCOUNTED = "accounted"


class Outcome(StrEnum):
    """How a provider's job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"


B, J = BatchState, JobState

BATCH_STEPS: Mapping[BatchState, frozenset[BatchState]] = {
    B.VALIDATING: frozenset({B.IN_PROGRESS, B.FAILED, B.PAUSED, B.CANCELLING}),
    B.PAUSED: frozenset({B.VALIDATING, B.IN_PROGRESS, B.CANCELLING}),
    B.IN_PROGRESS: frozenset({B.FINALIZING, B.PAUSED, B.CANCELLING}),
    B.FINALIZING: frozenset({B.COMPLETED, B.EXPIRED, B.CANCELLING}),
    B.CANCELLING: frozenset({B.CANCELLED}),
    B.FAILED: frozenset(),
    B.COMPLETED: frozenset(),
    B.EXPIRED: frozenset(),
    B.CANCELLED: frozenset(),
}

JOB_STEPS: Mapping[JobState, frozenset[JobState]] = {
    J.PLANNED: frozenset({J.SUBMITTING, J.ENDED}),
    J.SUBMITTING: frozenset({J.RUNNING, J.PLANNED, J.ENDED}),
    J.RUNNING: frozenset({J.ENDED}),
    J.ENDED: frozenset({J.COLLECTED}),
    J.COLLECTED: frozenset({J.ACCOUNTED}),
    J.ACCOUNTED: frozenset(),
}

FINAL_BATCH_STATES = frozenset(state for state, after in BATCH_STEPS.items() if not after)
LIVE_BATCH_STATES = frozenset(BatchState) - FINAL_BATCH_STATES

State = TypeVar("State", BatchState, JobState)


def step(table: Mapping[State, frozenset[State]], old: State, new: State) -> State:
    """The new state, or ValueError when the table has no such step."""
    if new not in table[old]:
        raise ValueError(f"no step from {old} to {new}")
    return new
