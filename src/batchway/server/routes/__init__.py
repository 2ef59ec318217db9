"""The operations, one module a resource; `OPERATIONS` is the table that everything else is made from."""

from __future__ import annotations

from batchway.server.routes import (
    audit,
    batches,
    costs,
    files,
    health,
    keys,
    metrics,
    models,
    projects,
    receivers,
    uploads,
    webhooks,
)

PROBES = (*health.OPERATIONS, *metrics.OPERATIONS)  # what a process without the API serves, for who watches it

OPERATIONS = (
    *files.OPERATIONS,
    *uploads.OPERATIONS,
    *batches.OPERATIONS,
    *models.OPERATIONS,
    *keys.OPERATIONS,
    *projects.OPERATIONS,
    *audit.OPERATIONS,
    *costs.OPERATIONS,
    *webhooks.OPERATIONS,
    *receivers.OPERATIONS,
    *PROBES,
)
