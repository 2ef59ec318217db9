"""The loop that sends deliveries: claims what is due, sends it, notes what became of it.

Nothing here is the truth: a delivery is a row, a claim of it runs out, and a try that nobody noted is made again, with
the same id. So a message is sent at least once. At most `SLOTS` are under way, a few to one webhook and a share of them
for one project, so an endpoint that hangs holds up its own messages only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random, SystemRandom

import msgspec
from sqlalchemy import RowMapping

from batchway.core.events import Event
from batchway.db import deliveries, webhooks
from batchway.db.deliveries import Room, Sent
from batchway.integrations.protocol import Tools
from batchway.integrations.webhook.payloads import body_of
from batchway.integrations.webhook.send import Answer, Message, Messenger
from batchway.integrations.webhook.sign import unpacked

log = logging.getLogger(__name__)

SLOTS = 256
SHARE = 64  # of them for one project
EACH = 4  # to one webhook
TICK = 1.0  # seconds: the net below the bell, and how soon work is found that another process left
WAITS = (5.0, 30.0, 120.0, 600.0, 3600.0, 10800.0)  # seconds after the first tries; the last one for all others
JITTER = 0.2  # of a wait, either way
GIVE_UP = 72 * 3600.0  # seconds from when it was queued
LONGEST_WAIT = 24 * 3600.0  # that a receiver may ask for
GONE = 410
BUSY = (429, 503)  # with Retry-After: everything for that webhook waits
TIDY = 600.0  # seconds between two rounds of pruning
KEEP_DELIVERED, KEEP_DEAD, KEEP_ROWS = 7 * 86400.0, 30 * 86400.0, 62 * 86400.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much is under way at once, and how often the rows are looked at (seconds)."""

    slots: int = SLOTS
    share: int = SHARE
    each: int = EACH
    tick: float = TICK


class Sender:
    """Sends the deliveries of one receiver's webhooks (None: of those that no receiver of batchway.yaml has)."""

    def __init__(
        self,
        tools: Tools,
        messenger: Messenger,
        receiver: str | None = None,
        *,
        pace: Pace | None = None,
        random: Random | None = None,
    ) -> None:
        self._tools = tools
        self._messenger = messenger
        self._receiver = receiver
        self._pace = pace or Pace()
        self._random = random or SystemRandom()
        self._bell = asyncio.Event()
        self._under_way: dict[asyncio.Task[None], RowMapping] = {}
        self._ended: list[Sent] = []
        self._tidy_at = 0.0
        self._loop: asyncio.Task[None] | None = None

    def start(self, first: Callable[[], Awaitable[object]] | None = None) -> None:
        """Begins. `first` is done before everything else, and again until it succeeds."""
        self._loop = asyncio.create_task(self._run(first))

    def ring(self) -> None:
        """There is work."""
        self._bell.set()

    async def close(self) -> None:
        """Ends; what is under way is sent again by whoever comes next, unless it ended in time to be noted."""
        if self._loop is None:
            return
        self._loop.cancel()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(self._loop, *self._under_way, return_exceptions=True)
        self._loop = None
        if self._ended:
            try:
                await self._settle(Room(slots=0, each=0, busy={}, full=(), receiver=self._receiver))
            except Exception:
                log.exception("the last answers of webhooks could not be noted; their messages will be sent again")

    async def _begin(self, first: Callable[[], Awaitable[object]] | None) -> None:
        if first is not None:
            await first()
        await self._tools.db.write(deliveries.release, self._receiver, self._tools.clock())

    async def _run(self, first: Callable[[], Awaitable[object]] | None) -> None:
        begun = False
        while True:
            self._bell.clear()
            try:
                if not begun:
                    await self._begin(first)
                    begun = True
                while await self._round():
                    pass
                await self._tidy()
            except Exception:
                log.exception("the webhook sender failed; it goes on")
            try:
                async with asyncio.timeout(self._pace.tick):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def _round(self) -> bool:
        """Notes and claims once; whether there may be more to claim."""
        room = self._room()
        if not self._ended and not await self._is_due():
            return False
        claimed = await self._settle(room)
        for row in claimed:
            task = asyncio.create_task(self._deliver(row))
            self._under_way[task] = row
            task.add_done_callback(self._landed)
        return bool(claimed) and len(self._under_way) < self._pace.slots

    async def _is_due(self) -> bool:
        return await self._tools.db.read(deliveries.any_due, self._receiver, self._tools.clock())

    async def _settle(self, room: Room) -> list[RowMapping]:
        ended, self._ended = self._ended, []
        try:
            return await self._tools.db.write(deliveries.settle_and_claim, ended, room, self._tools.clock())
        except BaseException:
            self._ended = ended + self._ended
            raise

    def _room(self) -> Room:
        rows = self._under_way.values()
        projects = Counter(row["project"] for row in rows if row["project"] is not None)
        return Room(
            slots=self._pace.slots - len(rows),
            each=self._pace.each,
            busy=Counter(row["webhook_id"] for row in rows),
            full=[project for project, sending in projects.items() if sending >= self._pace.share],
            receiver=self._receiver,
        )

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        self._bell.set()

    async def _deliver(self, row: RowMapping) -> None:
        try:
            event = msgspec.convert(row["event"], Event)
            message = Message(
                url=row["url"],
                allow_private=row["allow_private"],
                secrets=unpacked(self._tools.unseal(row["secret"])),
                event_id=event.id,
                body=body_of(event),
                turn=row["attempts"] - 1,
            )
        except Exception as error:
            log.exception("a webhook's message cannot be made: %s of %s", row["id"], row["webhook_id"])
            answer = Answer(error=f"the message cannot be made: {type(error).__name__}")
        else:
            answer = await self._messenger.send(message)
        self._ended.append(self._judged(row, answer))

    def _judged(self, row: RowMapping, answer: Answer) -> Sent:
        now = self._tools.clock()
        status, wait = "waiting", self._wait(row["attempts"], answer)
        if answer.error is None:
            status = "delivered"
        elif answer.status == GONE or now + wait > row["created_at"] + GIVE_UP:
            status = "dead"
        return Sent(
            delivery_id=row["id"],
            webhook_id=row["webhook_id"],
            subject=row["subject"],
            attempt=row["attempts"],
            status=status,
            answer=answer.status,
            error=answer.error,
            not_before=now + wait,
            pause=now + wait if answer.status in BUSY and answer.retry_after is not None else 0.0,
            gone=answer.status == GONE,
        )

    def _wait(self, attempts: int, answer: Answer) -> float:
        """Seconds until the next try."""
        if answer.retry_after is not None:
            return min(answer.retry_after, LONGEST_WAIT)
        wait = WAITS[min(attempts, len(WAITS)) - 1]
        return wait * self._random.uniform(1 - JITTER, 1 + JITTER)

    async def _tidy(self) -> None:
        now = self._tools.clock()
        if now < self._tidy_at or self._receiver is not None:
            return
        self._tidy_at = now + TIDY
        write = self._tools.db.write
        while await write(deliveries.prune, now - KEEP_DELIVERED, now - KEEP_DEAD) == deliveries.AT_ONCE:
            pass
        await write(webhooks.tidy, now - KEEP_ROWS)
