"""One message: checked, signed, posted to an address that was checked, and what the answer means.

A try takes `timeout` seconds at most, whatever the other side does: hangs, drips, sends without end. Redirects are not
followed. Of the answer's body at most 64 KiB are read, to keep the connection, and nothing of it is kept or logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import SystemRandom

import msgspec

from batchway.core.errors import ProviderError, RequestError
from batchway.core.refusal import retry_after, shown
from batchway.core.retry import NO_RETRY
from batchway.http import SUCCESS, Download, Http
from batchway.integrations.webhook.guard import Guard, Place, Refused, place_of
from batchway.integrations.webhook.sign import Secret, signed

SECONDS = 15.0
MOST_READ = 64 << 10
READING = 1.0  # seconds for the rest of a body whose status is known
CLIENTS = 128  # hosts to which connections are kept
ANY_STATUS = range(100, 1000)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent where. `turn` counts the tries, so that they take turns among the addresses of a host."""

    url: str
    allow_private: bool
    secrets: Sequence[Secret]
    event_id: str
    body: bytes
    turn: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: `status` is the HTTP status, None without one; `error` says what went wrong, None if nothing."""

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None  # seconds


@dataclass(eq=False)
class _Line:
    """A client whose connections go to one address."""

    http: Http
    users: int = 0


class Messenger:
    """Sends messages; keeps connections to the hosts that it last spoke to."""

    def __init__(self, clock: Callable[[], float], guard: Guard | None = None, timeout: float = SECONDS) -> None:
        self.guard = guard or Guard()
        self._clock = clock
        self._timeout = timeout
        self._lines: dict[tuple[str, str], _Line] = {}

    async def close(self) -> None:
        """Messages under way fail."""
        self.guard.close()
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.http.close()

    async def send(self, message: Message) -> Answer:
        """Never raises for what the other side does."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._send(message)
        except TimeoutError:
            return Answer(error=f"no answer within {self._timeout:g} seconds")
        except Refused as error:
            return Answer(error=f"not sent: {error}")
        except RequestError:
            return Answer(error="not sent: the URL is not allowed any more")
        except ProviderError as error:
            # What stands before the cause is the URL without its query: in our text it would be a secret of theirs.
            return Answer(error=error.message.removeprefix(shown("POST", message.url)).removeprefix(": "))

    async def _send(self, message: Message) -> Answer:
        place = place_of(message.url, allow_private=message.allow_private)
        address = await self.guard.address(place, allow_private=message.allow_private, turn=message.turn)
        headers = {
            "content-type": "application/json",
            **signed(message.secrets, message.event_id, self._clock(), message.body),
        }
        async with self._line(place, address) as http:
            posted = http.stream(
                place.url, headers=headers, timeout=self._timeout, retry=NO_RETRY, ok=ANY_STATUS, post=message.body
            )
            async with posted as answer:
                await _leave_ready(answer)
                return _meaning(answer)

    @asynccontextmanager
    async def _line(self, place: Place, address: str) -> AsyncGenerator[Http]:
        key = (place.host, address)
        line = self._lines.pop(key, None) or _Line(_client(*key))
        self._lines[key] = line  # the last used stand last
        line.users += 1
        try:
            yield line.http
        finally:
            line.users -= 1
            await self._forget_some()

    async def _forget_some(self) -> None:
        if len(self._lines) > CLIENTS:
            idle = next((key for key, line in self._lines.items() if not line.users), None)
            if idle is not None:
                await self._lines.pop(idle).http.close()


def _client(host: str, address: str) -> Http:
    """Connections to `host` go to `address` only: a name that was checked is not looked up a second time."""
    return Http(
        user_agent="batchway-webhooks",
        random=SystemRandom(),
        connect_timeout=SECONDS,
        pinned={} if host == address else {host: address},
    )


async def _leave_ready(answer: Download) -> None:
    """Reads a short body to its end, so that the connection can be used again."""
    size = 0
    try:
        async with asyncio.timeout(READING):
            async for chunk in answer.chunks():
                size += len(chunk)
                if size > MOST_READ:
                    return
    except (TimeoutError, ProviderError):
        return  # the status has come, which is what counts


def _meaning(answer: Download) -> Answer:
    if answer.status in SUCCESS:
        return Answer(status=answer.status)
    note = " (a redirect; none is followed)" if answer.status in range(300, 400) else ""
    wait = retry_after(answer.headers)
    return Answer(status=answer.status, error=f"status {answer.status}{note}", retry_after=wait)
