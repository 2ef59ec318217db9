"""What the simulator of Vertex AI is told at its start. Times of jobs are virtual seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batchway.providers.shared.simulation import NO_FAULTS, Faults


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """Where it listens, how fast its clock runs, what goes wrong, and Vertex's limits (raise or lower them for tests).

    `speed`: virtual seconds in a real one. `state_dir`: where state outlives the process. `access_token`: the bearer
    that is taken, beside those that its own token routes issued; None takes any. `storage_url`: a real or imitated
    Cloud Storage in the place of the simulator's own. `bucket`: the one that `--print-config` names; every bucket
    exists. `shards`: output objects a job. `echo`: `full`, or `bare` to drop the labels of echoed requests.
    """

    port: int
    host: str = "127.0.0.1"
    speed: float = 1.0
    state_dir: Path | None = None
    seed: int = 0
    faults: Faults = NO_FAULTS
    access_token: str | None = None
    project: str = "batchway-sim"
    location: str = "us-central1"
    bucket: str = "gs://batchway-sim/staging"
    storage_url: str | None = None
    models: tuple[str, ...] = ()
    shards: int = 1
    echo: str = "full"
    max_rows: int = 200_000
    max_bytes: int = 1_000_000_000
    queue_seconds: float = 10.0
    pending_seconds: float = 20.0
    run_seconds: float = 600.0
    cancel_seconds: float = 60.0
    window_seconds: float = 86_400.0
