"""What the server asks of the rest of Batchway: the composition root fills these protocols.

The server owns HTTP only. Every operation takes the principal and answers with structs of `wire/`; what belongs to
another project is NotFound. An operation given an `Idempotency` stores its answer in the transaction of its change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from batchway.core.principal import Principal
from batchway.db.engine import Database
from batchway.db.idempotency import Idempotency
from batchway.integrations.webhook.endpoints import Endpoints
from batchway.storage import Storage
from batchway.wire.batches import (
    Batch,
    BatchAdopt,
    BatchCreate,
    BatchEstimate,
    BatchFilter,
    BatchList,
    EstimateCreate,
    ResultsFilter,
)
from batchway.wire.keys import ModelList


class ServerSettings(Protocol):
    """The settings that the server reads. `no_auth` is set on a loopback host only: the settings see to that."""

    @property
    def master_key(self) -> str | None: ...
    @property
    def no_auth(self) -> bool: ...
    @property
    def metrics_open(self) -> bool: ...
    @property
    def trusted_proxies(self) -> list[str]: ...


class Operations(Protocol):
    """The operations over batches and models."""

    async def create_batch(
        self,
        principal: Principal,
        wanted: BatchCreate,
        *,
        provider: str | None,
        idempotency: Idempotency | None,
        traceparent: str | None = None,
    ) -> Batch:
        """A new batch in `validating`; `provider` (an account or kind) is forced on all its lines.

        `traceparent` is the well-formed header of the caller's trace, to which the batch's is linked.
        """
        ...

    async def retrieve_batch(self, principal: Principal, batch_id: str) -> Batch: ...

    async def list_batches(self, principal: Principal, wanted: BatchFilter) -> BatchList: ...

    async def cancel_batch(self, principal: Principal, batch_id: str) -> Batch:
        """The batch as it is after the wish to cancel; Conflict when it has ended otherwise."""
        ...

    async def resume_batch(self, principal: Principal, batch_id: str) -> Batch:
        """The batch, no longer paused; Conflict when it was not, OverBudget when there is no room for it yet."""
        ...

    async def adopt_batch(self, principal: Principal, wanted: BatchAdopt, *, request_id: str) -> Batch: ...

    async def retry_batch(self, principal: Principal, batch_id: str, *, idempotency: Idempotency | None) -> Batch:
        """A new batch of the failed and expired lines of an ended one."""
        ...

    async def estimate(self, principal: Principal, wanted: EstimateCreate) -> BatchEstimate: ...

    def results(self, principal: Principal, batch_id: str, wanted: ResultsFilter) -> AsyncIterator[bytes]:
        """Whole lines (OpenAI's output lines with `"cursor"` and `"amount_usd"`), some at a time, as NDJSON."""
        ...

    async def models(self, principal: Principal) -> ModelList: ...

    async def measure(self, accept: str) -> tuple[bytes, str]:
        """(every metric, its content type) for an Accept header."""
        ...


class Gateway(Operations, Protocol):
    """The wired gateway."""

    @property
    def db(self) -> Database: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def settings(self) -> ServerSettings: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def new_id(self) -> Callable[[str], str]: ...
    @property
    def max_file_bytes(self) -> int: ...
    @property
    def webhooks(self) -> Endpoints: ...

    def budget_changed(self) -> None:
        """A budget was set or dropped: batches that wait for money may go on."""
        ...
