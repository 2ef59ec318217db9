"""What every stage is given: the store, the bytes, the accounts, the clock. Built once, in app.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from batchway.billing.prices import Prices
from batchway.core.ids import IdMaker
from batchway.db.engine import Database
from batchway.providers.accounts import Accounts
from batchway.storage import Storage


@dataclass(frozen=True)
class Bells:
    """Rung after a commit, so that the next step starts at once; the rows stay the truth when a ring is lost."""

    work: asyncio.Event = field(default_factory=asyncio.Event)  # a batch or job waits for a durable function
    polls: asyncio.Event = field(default_factory=asyncio.Event)  # a look is due earlier than was thought


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
    poll_seconds: float = 1.0  # the shortest interval between two looks at a job
    bells: Bells = field(default_factory=Bells)
