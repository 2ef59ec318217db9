"""Paused batches go on: by themselves when their budgets have room for them, or because somebody says so.

Going on is being admitted again, with the routes and prices of now: the hold is opened in the transaction that ends the
pause. Of the batches that one budget pays for the oldest goes first, and none passes it while it does not fit. Not a
stage: before it the batch has submitted nothing, behind it lies the ordinary road.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from batchway.core.budgets import GATEWAY
from batchway.core.errors import Conflict, OverBudget, RequestError
from batchway.core.principal import Sight
from batchway.core.states import BatchState
from batchway.db import batches
from batchway.db.transitions import move_batch
from batchway.pipeline.admit import Needs, ask, hold
from batchway.pipeline.trip import Trip

log = logging.getLogger(__name__)

LATER = 60.0  # seconds until a batch is asked for again that something else than money keeps


async def resume(trip: Trip, batch_id: str, sight: Sight | None) -> None:
    """Ends the pause; Conflict when there is none, OverBudget while the budget has no room."""
    batch = await trip.db.read(batches.get, batch_id, sight)
    _check(batch["status"])
    await trip.db.write(_go_on, batch_id, await ask(trip, batch), trip.clock())
    trip.bells.work.set()


async def resume_paused(trip: Trip) -> None:
    """Lets every paused batch go on that there is room for, the oldest first."""
    passed: set[str] = set()  # owners of budgets that are spent
    while GATEWAY not in passed:
        batch = await trip.db.read(batches.next_paused, trip.clock(), passed)
        if batch is None:
            return
        try:
            await resume(trip, batch["id"], None)
        except OverBudget as refusal:
            passed.add(refusal.owner)
        except Conflict:
            continue  # somebody was quicker
        except RequestError as refusal:
            log.warning("%s stays paused: %s", batch["id"], refusal.message)
            await trip.db.write(batches.postpone, [batch["id"]], trip.clock() + LATER)
        except Exception:  # one batch must not keep the others waiting
            log.exception("%s could not be resumed", batch["id"])
            await trip.db.write(batches.postpone, [batch["id"]], trip.clock() + LATER)


def _go_on(tx: Connection, batch_id: str, needs: Needs, now: float) -> None:
    batch = batches.get(tx, batch_id, hold=True)
    _check(batch["status"])
    hold(tx, batch, needs, now)
    move_batch(tx, batch_id, BatchState.PAUSED, BatchState.VALIDATING, now, {"pause": None})


def _check(status: str) -> None:
    if status != BatchState.PAUSED:
        raise Conflict(f"Cannot resume a batch with status '{status}'.")
