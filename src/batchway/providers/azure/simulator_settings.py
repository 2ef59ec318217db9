"""What the simulator of Azure OpenAI is told at its start, besides what all such simulators are told."""

from __future__ import annotations

from dataclasses import dataclass

from batchway.providers.shared.file_simulator.settings import SimulatorSettings


@dataclass(frozen=True, kw_only=True)
class AzureSettings(SimulatorSettings):
    """Azure's limits and quirks.

    `process_seconds`: virtual seconds until an uploaded file is `processed`. `fail_fast`: too many waiting tokens
    refuse the creation with 400, as in some regions, instead of failing the batch later. `expires`: whether batches end
    with their window; Azure's do not, unless the fault `expire` was drawn. `old_shapes`: capital words, ISO times,
    empty ids, null counts. `tenant_id`, `client_id`, `client_secret`: the only client that gets tokens; None takes any.
    `token_seconds`: real seconds that a token lasts. `storage_key`, `storage_sas`: how the resource reads and writes
    blobs, in the place of its managed identity.
    """

    max_requests: int = 100_000
    max_blob_bytes: int = 1_000_000_000
    process_seconds: float = 0.1
    fail_fast: bool = False
    expires: bool = False
    old_shapes: bool = False
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    token_seconds: float = 3_600.0
    storage_key: str | None = None
    storage_sas: str | None = None
