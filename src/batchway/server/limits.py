"""What a key and its project may ask of the API in a time: requests a minute, uploads a day, bytes a file.

Minutes and days are those of the clock (UTC), so every process counts in the same ones. Requests are counted in memory
where one process serves (SQLite), else in the database; uploads always there. A request that is refused counts for
nothing in the limit that refused it; an upload that came to nothing is given back.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NoReturn

from sqlalchemy import Connection
from starlette.types import Scope

from batchway.core.errors import TooMany
from batchway.core.principal import Limits, Principal
from batchway.db import tallies
from batchway.db.engine import Database

MINUTE, DAY = 60, 86400
ADDED = "answer_headers"  # in the scope: headers that `edge.py` adds to whatever is answered


class Meter:
    """Counts requests. `clock` answers unix seconds."""

    def __init__(self, db: Database, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock
        self._counts: dict[str, int] = {}  # of the minute that `_began`
        self._began = 0.0

    async def count(self, principal: Principal, scope: Scope) -> None:
        """Counts this request and says in its answer's headers what is left; TooMany when nothing is."""
        now = self._clock()
        left = math.inf
        for name, limits in _owners(principal):
            limit = limits.requests_per_minute
            if limit is None:
                continue
            count = await self._take(name, now - now % MINUTE, limit)
            remaining = 0 if count is None else limit - count
            if count is None or remaining < left:
                left = remaining
                scope[ADDED] = _told(limit, remaining, now)
            if count is None:
                _refuse("requests per minute", name, limit, _rest(now, MINUTE), "rate_limit_exceeded")

    async def _take(self, name: str, began: float, limit: int) -> int | None:
        if not self._db.is_sqlite:
            return await self._db.write(tallies.take, f"requests:{name}", began, limit)
        if began != self._began:
            self._began, self._counts = began, {}
        count = self._counts.get(name, 0)
        if count >= limit:
            return None
        self._counts[name] = count + 1
        return count + 1


@asynccontextmanager
async def one_upload(db: Database, principal: Principal, now: float) -> AsyncGenerator[None]:
    """Counts an upload while the block makes it; TooMany when the day has no more. Given back when the block raises."""
    wanted = [(name, limits.uploads_per_day) for name, limits in _owners(principal)]
    counted = [(name, limit) for name, limit in wanted if limit is not None]
    if not counted:
        yield
        return
    await db.write(_take_uploads, counted, now)
    try:
        yield
    except BaseException:
        await db.write(_give_back_uploads, [name for name, _ in counted], now)
        raise


def file_bytes(principal: Principal, most: int) -> int:
    """How large a file may be, in bytes; `most` is the gateway's own limit."""
    limits = (limits.file_bytes for _, limits in _owners(principal))
    return min([most, *(limit for limit in limits if limit is not None)])


def _owners(principal: Principal) -> Iterator[tuple[str, Limits]]:
    yield f"key:{principal.key_id}", principal.limits
    yield f"project:{principal.project}", principal.project_limits


def _take_uploads(tx: Connection, counted: list[tuple[str, int]], now: float) -> None:
    for name, limit in counted:  # the key before the project, always: two transactions cannot wait for each other
        if tallies.take(tx, f"uploads:{name}", now - now % DAY, limit) is None:
            _refuse("uploads per day", name, limit, _rest(now, DAY), "upload_limit_exceeded")


def _give_back_uploads(tx: Connection, names: list[str], now: float) -> None:
    for name in names:
        tallies.give_back(tx, f"uploads:{name}", now - now % DAY)


def _refuse(what: str, name: str, limit: int, seconds: int, code: str) -> NoReturn:
    owner = "this key" if name.startswith("key:") else "this key's project"
    message = f"Limit reached: {owner} may make {limit} {what}. Try again in {seconds} s."
    raise TooMany(message, code=code, retry_after=seconds)


def _rest(now: float, stretch: int) -> int:
    """Seconds until the present stretch ends."""
    return max(1, math.ceil(stretch - now % stretch))


def _told(limit: int, remaining: int, now: float) -> list[tuple[bytes, bytes]]:
    values = {"limit": str(limit), "remaining": str(remaining), "reset": f"{_rest(now, MINUTE)}s"}
    return [(f"x-ratelimit-{name}-requests".encode(), value.encode()) for name, value in values.items()]
