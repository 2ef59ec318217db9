"""What a batch may still spend: one purse for all of its runs in this process.

The invariant: `stored` is what the database says was spent, `fresh` the amount of answers that came here and are not
stored yet, so nothing is counted twice or left out but what other processes have not stored. For that the stores of a
purse with a limit follow one another (`turn`): the total that one of them reads holds all that was stored here before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from batchway.core.answers import Stored

Meter = Callable[[Stored], int]
"""Pico-dollars of one good answer."""

MeterOf = Callable[[str, str], Meter | None]
"""The meter of an account's model; None when its price is unknown."""


class Purse:
    """`limit` is what the batch holds, in pico-dollars; None when no budget applies to it."""

    def __init__(self, limit: int | None, stored: int) -> None:
        self.limit = limit
        self.stored = stored
        self.fresh = 0
        self.runs = 0
        self.turn = asyncio.Lock()

    def renew(self, limit: int | None, stored: int) -> None:
        """What a chunk that begins has read; only a limit that is new needs to be told what was spent before it."""
        if self.limit is None:
            self.stored = stored
        self.limit = limit

    @property
    def empty(self) -> bool:
        """Whether nothing more may be paid. What costs nothing may go on when nothing was held."""
        spent = self.stored + self.fresh
        return self.limit is not None and spent >= self.limit and spent > 0
