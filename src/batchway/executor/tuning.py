"""The executor's numbers, in one place. Times in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchway.http import Retry

LINE = Retry(idempotent=True, attempts=5, base=0.5, cap=30.0, total=math.inf)
CHUNK = Retry(idempotent=True, attempts=8, base=1.0, cap=60.0, total=math.inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Defaults suit one process; tests and operators may change them."""

    chunk_lines: int = 256
    chunk_bytes: int = 8 << 20
    segment_lines: int = 50  # a segment is written when so many answers wait,
    segment_seconds: float = 1.0  # or the oldest of them has waited so long
    line: Retry = LINE
    chunk: Retry = CHUNK  # of runs that failed as a whole; after the last, the chunk ends with what it has
    grace: float = 0.5  # what requests in flight get when their chunk is stopped
    tick: float = 1.0  # the safety net under events, and how soon a stop from another process is heard
    lease: float = 5.0  # of the leader: as long may planned chunks wait after its machine was lost
    overdue: float = 60.0  # a chunk that the engine has had for so long is ensured again
