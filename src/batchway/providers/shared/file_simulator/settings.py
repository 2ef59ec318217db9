"""What a simulator is told at its start. Times of batches are virtual seconds, latency is real seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batchway.providers.shared.simulation import NO_FAULTS, Faults


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """Where it listens, how fast its clock runs, what goes wrong, and the provider's limits (raise or lower them).

    `speed`: virtual seconds in a real one. `state_dir`: where state outlives the process; None keeps it in memory and
    in a temporary folder. `api_key`: None accepts any bearer. `models`: the only models there are; empty accepts any.
    `latency`, `retry_after`: real seconds. `capacity`: sync requests in flight before 429; None has no limit.
    `enqueued_token_limit`: input tokens of one model's unfinished batches; None has no limit. `max_batches_per_hour`:
    of virtual time; 0 or None has no limit. `cancelled_lines`: whether a cancelled batch lists its unfinished lines in
    the error file, which no source says of OpenAI.
    """

    port: int
    host: str = "127.0.0.1"
    speed: float = 1.0
    state_dir: Path | None = None
    seed: int = 0
    faults: Faults = NO_FAULTS
    api_key: str | None = None
    models: tuple[str, ...] = ()
    latency: float = 0.0
    capacity: int | None = None
    retry_after: float = 1.0
    enqueued_token_limit: int | None = None
    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    max_batches_per_hour: int | None = 2_000
    validate_seconds: float = 30.0
    run_seconds: float = 600.0
    finalize_seconds: float = 30.0
    cancel_seconds: float = 60.0
    window_seconds: float = 86_400.0
    cancelled_lines: bool = False
