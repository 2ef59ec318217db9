"""The tables. Times are unix seconds, amounts pico-dollars, sizes bytes.

CHECK constraints repeat `core/states.py`: a status is one of the enum's words, and a final status has its timestamp.
A change here needs a migration in `db/migrations/`.
"""

from __future__ import annotations

from batchway.db.schema.access import audit, key_secrets, keys, projects, tallies
from batchway.db.schema.money import USAGE_COLUMNS, budgets, costs, holds, ledger
from batchway.db.schema.shared import metadata
from batchway.db.schema.telling import dead_letters, deliveries, outbox, receivers, webhooks
from batchway.db.schema.work import (
    batches,
    chunks,
    file_faults,
    files,
    idempotency,
    jobs,
    leases,
    meta,
    segments,
    upload_parts,
    uploads,
)

__all__ = [
    "USAGE_COLUMNS",
    "audit",
    "batches",
    "budgets",
    "chunks",
    "costs",
    "dead_letters",
    "deliveries",
    "file_faults",
    "files",
    "holds",
    "idempotency",
    "jobs",
    "key_secrets",
    "keys",
    "leases",
    "ledger",
    "meta",
    "metadata",
    "outbox",
    "projects",
    "receivers",
    "segments",
    "tallies",
    "upload_parts",
    "uploads",
    "webhooks",
]
