"""What the outbox tells: the names of events and their envelope.

Every change of a batch or a job appends one event in the same transaction, so an event exists exactly when the change
does. `acreate_batch` (a batch was created) and `batch_success` (it completed; usage and amount are final) are the two
that cost tracking hangs on; their names are those that users' existing cost callbacks know.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

VERSION = 1


class EventType(StrEnum):
    """The documented event types."""

    FILE_CREATED = "file.created"
    BATCH_CREATED = "batch.created"
    BATCH_VALIDATED = "batch.validated"
    BATCH_PAUSED = "batch.paused"
    BATCH_RESUMED = "batch.resumed"
    BATCH_IN_PROGRESS = "batch.in_progress"
    BATCH_FINALIZING = "batch.finalizing"
    BATCH_CANCELLING = "batch.cancelling"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"
    JOB_SUBMITTED = "job.submitted"
    JOB_ENDED = "job.ended"
    JOB_ACCOUNTED = "job.accounted"
    COST_CORRECTED = "cost.corrected"
    BUDGET_THRESHOLD = "budget.threshold"
    KEY_CREATED = "key.created"
    KEY_UPDATED = "key.updated"
    KEY_ROTATED = "key.rotated"
    KEY_DELETED = "key.deleted"
    PROJECT_CREATED = "project.created"
    PROJECT_UPDATED = "project.updated"
    PROJECT_DELETED = "project.deleted"


CALL_TYPES = {EventType.BATCH_CREATED: "acreate_batch", EventType.BATCH_COMPLETED: "batch_success"}
"""The call type that cost-tracking callbacks know an event by."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One stored fact. `subject` is the batch, file, key or budget it is about; `data` depends on the type.

    `id` is the same however often the event is told; `position` (from 1) is its place in the order of telling, None
    until it has one.
    """

    id: str
    type: EventType
    subject: str
    project: str
    key_id: str
    created_at: float
    data: dict[str, Any]
    position: int | None = None
    version: int = VERSION
