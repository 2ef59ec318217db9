"""What every stage is given: the store, the bytes, the accounts, the clock. Built once, in app.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from batchway.billing.prices import Prices
from batchway.core.ids import IdMaker
from batchway.db.engine import Database
from batchway.integrations.webhook.endpoints import Endpoints
from batchway.providers.accounts import Accounts
from batchway.storage import Storage

UnknownPrices = Literal["budgeted", "refuse", "allow"]
"""Whose batches are refused when a price is unknown: those that a budget limits, every one, or none."""


@dataclass(frozen=True)
class Bells:
    """Rung after a commit, so that the next step starts at once; the rows stay the truth when a ring is lost."""

    work: asyncio.Event = field(default_factory=asyncio.Event)  # a batch or job waits for a durable function
    polls: asyncio.Event = field(default_factory=asyncio.Event)  # a look is due earlier than was thought
    money: asyncio.Event = field(default_factory=asyncio.Event)  # a budget has more left: paused batches may go on


@dataclass(frozen=True, kw_only=True)
class Trip:
    """The surroundings of a stage. `alive` is False when this process lost its lease: nothing paid may be sent."""

    db: Database
    storage: Storage
    accounts: Accounts
    prices: Prices
    clock: Callable[[], float]
    new_id: IdMaker
    scratch: Path
    alive: Callable[[], bool]
    max_file_bytes: int
    webhooks: Endpoints
    poll_seconds: float = 1.0  # the shortest interval between two looks at a job
    unknown_prices: UnknownPrices = "budgeted"
    bells: Bells = field(default_factory=Bells)
