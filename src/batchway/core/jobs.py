"""What a job is to a provider: where it goes, which lines it holds, what came of it.

These are plain values: the database rows, the stages and the providers all speak through them.
"""

from __future__ import annotations

import msgspec

from batchway.core.states import Outcome

REGIONAL = "regional/"
"""Before the name under which prices know a model: it is processed in one region, which may have a surcharge."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a line goes: the account (an entry of `providers`), the model's name there, the lane."""

    account: str
    model: str
    lane: str = "native"  # or "executed"

    @property
    def name(self) -> str:
        """`account/model`, as users may write it."""
        return f"{self.account}/{self.model}"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider job may hold. Source and date stand in the provider's README."""

    lines: int
    bytes: int
    endpoints: frozenset[str]
    windows: tuple[int, int] = (86400, 86400)  # shortest and longest completion window, seconds
    line_bytes: int = 16 << 20


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A range of an input file: bytes [start, end), whose first line has number `first_line` (from 1).

    The range may hold lines of other routes; `models` names those that belong to the job.
    """

    file_key: str
    start: int
    end: int
    first_line: int
    models: frozenset[str]


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A job as a provider sees it. `token` is our idempotency name for the submit: it is unique and unguessable."""

    id: str
    batch_id: str
    token: str
    route: Route
    endpoint: str
    span: Span
    lines: int
    bytes: int
    window: int  # seconds
    deadline: float  # unix seconds
    priority: int = 0
    submitted_at: float | None = None
    remote_id: str | None = None


class Counts(msgspec.Struct, frozen=True):
    """Lines that have an answer (2xx) and lines that ended with an error."""

    completed: int = 0
    failed: int = 0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A provider job as it is now. `outcome` is None while it runs."""

    remote_id: str
    outcome: Outcome | None = None
    status: str = ""  # the provider's own word
    counts: Counts = Counts()
    code: str | None = None  # why the whole job failed, when it did
    message: str | None = None
    input_file_id: str | None = None
    endpoint: str | None = None
    created_at: float | None = None
    results: tuple[str, ...] = ()  # where the answers are, in the provider's own terms
