"""The operations, one module a resource; `OPERATIONS` is the table that everything else is made from."""

from __future__ import annotations

from batchway.server.routes import batches, files, health, keys, models, uploads

OPERATIONS = (
    *files.OPERATIONS,
    *uploads.OPERATIONS,
    *batches.OPERATIONS,
    *models.OPERATIONS,
    *keys.OPERATIONS,
    *health.OPERATIONS,
)
