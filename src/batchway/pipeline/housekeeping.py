"""What time alone makes due: expired files and uploads, forgotten answers, what ended batches left behind. Not a stage.

A batch's segments and collected answers serve `/results` and retries; they go when its output would, 30 days after its
end unless it says otherwise, and with them what its jobs left at the providers.
"""

from __future__ import annotations

import logging

from batchway import logs
from batchway.core.errors import ProviderError
from batchway.db import batches, idempotency, jobs, uploads
from batchway.pipeline import intake
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

AT_ONCE = 100
KEEP_SECONDS = 30 * 86400
STRAY = 86400.0  # seconds after which a half-written object is surely nobody's


async def keep_house(trip: Trip) -> None:
    """One round."""
    now = trip.clock()
    await intake.expire_files(trip, now)
    for upload_id in await trip.db.write(uploads.expire, now, AT_ONCE):
        await trip.storage.delete_prefix(uploads.folder(upload_id))
    await trip.db.write(idempotency.forget_old, now)
    for batch_id in await trip.db.read(batches.to_tidy, now, KEEP_SECONDS, AT_ONCE):
        with logs.within(batch_id=batch_id):
            await tidy(trip, batch_id)
    await trip.storage.sweep(now - STRAY)


async def tidy(trip: Trip, batch_id: str) -> None:
    """Deletes what an ended batch no longer needs, here and at its providers."""
    for row in await trip.db.read(jobs.of_batch, batch_id):
        if row["remote_id"] is None:
            continue
        job = jobs.spec(row)
        try:
            await trip.accounts.provider(job.route).clean(job, jobs.last_look(row))
        except (ProviderError, KeyError) as error:
            log.warning("what %s left at %s stays there: %s", row["id"], row["account"], error)
        except Exception:  # or this batch would come up first for ever, and keep all others from being tidied
            log.exception("what %s left at %s stays there", row["id"], row["account"])
    await trip.storage.delete_prefix(f"answers/{batch_id}/")
    await trip.storage.delete_prefix(f"segments/{batch_id}/")
    await trip.db.write(batches.tidied, batch_id, trip.clock())
