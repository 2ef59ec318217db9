"""What every client does with a call: send it, try again where that is safe, read the answer. Written once.

A second try happens after a refusal that says "later" (408, 425, 429, 5xx), or without an answer; only when nothing was
heard of the first, or the call is `safe` to repeat. `Retry-After` is obeyed. A download that breaks off goes on where
it stopped: a file never changes under its id.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from math import isfinite
from random import Random
from typing import Any, TypeVar

import msgspec

from batchway.sdk.call import Call
from batchway.sdk.errors import APIConnectionError, APIError, NotFoundError, status_error
from batchway.sdk.transport import Answer, Transport, whole

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

MAX_RETRIES = 3
TIMEOUT = 600.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
PATIENCE = 120.0  # the longest Retry-After that is waited for, in seconds
ERROR_BYTES = 1 << 20
LATER = frozenset({408, 425, 500, 502, 503, 504})

decode = msgspec.json.Decoder().decode


class Caller:
    """Calls over one transport."""

    def __init__(
        self,
        transport: Transport,
        *,
        sleep: Sleep,
        max_retries: int | None = None,
        timeout: float | None = None,
        random: Random | None = None,
    ) -> None:
        self.transport = transport
        self.sleep = sleep
        self.max_retries = MAX_RETRIES if max_retries is None else max_retries
        self.timeout = TIMEOUT if timeout is None else timeout
        self._random = random or Random()  # noqa: S311 - it only spreads retries

    async def perform(self, call: Call[T]) -> T:
        """What the call gets: its parsed answer; APIError."""
        try:
            answer = await self.open(call)
        except NotFoundError:
            if call.fallback is None:
                raise
            answer = await self.open(call.fallback)
        body = await whole(answer)
        try:
            fields: object = decode(body)
        except msgspec.DecodeError:
            fields = None
        if not isinstance(fields, dict):
            raise APIError(f"{call.method} {call.path} was not answered by a gateway: its answer is no JSON object.")
        return call.parse(fields)  # pyright: ignore[reportUnknownArgumentType] - any JSON object

    async def open(self, call: Call[Any]) -> Answer:
        """The open answer of a success; APIError after the last try."""
        call = replace(call, timeout=self.timeout if call.timeout is None else call.timeout)
        retries = self.max_retries if call.max_retries is None else call.max_retries
        for tried in range(retries + 1):
            try:
                answer = await self.transport.send(call)
            except APIConnectionError as error:
                failure, wait = error, None
                again = call.rereadable and (call.safe or not error.sent)
            else:
                if 200 <= answer.status < 300:
                    return answer
                failure = status_error(answer.status, answer.headers, await whole(answer, ERROR_BYTES))
                again, wait = _may_repeat(call, answer), retry_after(answer.headers)
            if not again or tried == retries or (wait or 0) > PATIENCE:
                raise failure
            await self.sleep(self._delay(tried, wait))
        raise AssertionError

    async def download(self, call: Call[Any]) -> tuple[Mapping[str, str], AsyncGenerator[bytes]]:
        """(headers, the pieces) of a file."""
        answer = await self.open(call)
        return answer.headers, self._pieces(call, answer)

    async def lines(self, call: Call[Any]) -> AsyncGenerator[dict[str, Any]]:
        """The objects of an NDJSON or event stream. It may break off: its objects say where to go on."""
        answer = await self.open(call)
        events = answer.headers.get("content-type", "").startswith("text/event-stream")
        try:
            async for line in (decoded_events if events else decoded_lines)(_read(answer)):
                yield line
        finally:
            await answer.close()

    async def _pieces(self, call: Call[Any], answer: Answer) -> AsyncGenerator[bytes]:
        done, breaks = 0, 0
        while True:
            try:
                async for piece in _read(answer):
                    done, breaks = done + len(piece), 0
                    yield piece
                return
            except APIConnectionError:
                breaks += 1
                if breaks > self.max_retries:
                    raise
            finally:
                await answer.close()
            await self.sleep(self._delay(breaks, None))
            answer = await self.open(replace(call, headers={**call.headers, "range": f"bytes={done}-"}))
            if answer.status != 206:
                await answer.close()
                raise APIConnectionError(f"The download broke off after {done} bytes and cannot go on from there.")

    def _delay(self, tried: int, wait: float | None) -> float:
        if wait is not None:
            return wait + self._random.uniform(0, FIRST_WAIT)  # spread those who were told the same second
        return min(LONGEST_WAIT, FIRST_WAIT * 2.0**tried) * self._random.uniform(0.5, 1.0)


def _may_repeat(call: Call[Any], answer: Answer) -> bool:
    if answer.headers.get("x-should-retry") == "false":
        return False
    if answer.status == 429:  # refused at the door: nothing was done
        return call.rereadable
    return answer.status in LATER and call.safe and call.rereadable


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the answer says; a date is read against the answer's own clock, not ours."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (value := headers.get("retry-after", "")).replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(0.0, seconds) if isfinite(seconds) else None


async def _read(answer: Answer) -> AsyncGenerator[bytes]:
    while piece := await answer.read():
        yield piece


async def decoded_lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """The JSON objects of NDJSON; memory holds one line and one piece."""
    async for line in _lines(pieces):
        if text := line.strip():
            yield decode(text)


async def decoded_events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """The JSON objects of server-sent events, each a line of data; `type` is the event's unless it says its own."""
    kind = ""
    async for line in _lines(pieces):
        field, _, text = line.strip().partition(b": ")
        if field == b"event":
            kind = text.decode()
        elif field == b"data":
            yield {"type": kind, **decode(text)}


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    held: list[bytes] = []
    async for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for line in ended:
            held.append(line)
            yield b"".join(held)
            held.clear()
        held.append(rest)
    yield b"".join(held)
