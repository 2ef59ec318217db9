"""What every simulator is made of: seeded chance, a clock that runs faster, invented answers, work beside the loop.

Invariant: nothing here reads the time or randomness by itself. The same seed and the same order of requests draw the
same faults and give the same answers; a simulator that is started again on its state goes on from the same clock.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import logging
import math
import socket
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

ABORT = "batchway.abort"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How often each fault happens, as rates from 0 to 1. `--fail` and error texts use the names of `FAULTS`."""

    line: float = 0.0
    throttled: float = 0.0
    server_error: float = 0.0
    reset: float = 0.0
    drop: float = 0.0
    truncate: float = 0.0
    accept_then_500: float = 0.0
    accept_then_reset: float = 0.0
    fail_batch: float = 0.0
    token_limit: float = 0.0
    expire: float = 0.0
    stall: float = 0.0
    slow_validation: float = 0.0

    def named(self) -> dict[str, float]:
        """Rates by the names that `--fail` takes."""
        return {_SPELLED.get(name, name): rate for name, rate in asdict(self).items()}


NO_FAULTS = Faults()
_SPELLED = {"throttled": "429", "server_error": "500"}
FAULTS: Mapping[str, str] = {_SPELLED.get(field.name, field.name): field.name for field in fields(Faults)}


def parse_faults(spec: str) -> Faults:
    """Faults from `line=0.02,429=0.05`; an unknown name or a rate outside 0..1 is a ValueError that says so."""
    rates: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in spec.split(","))):
        name, _, value = entry.partition("=")
        try:
            rates[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"fault {entry!r} must be written name=rate, with a rate from 0 to 1") from None
    return faults_from(rates)


def faults_from(rates: Mapping[str, float]) -> Faults:
    """Faults from rates by name, checked as `parse_faults` does."""
    known: dict[str, float] = {}
    for name, rate in rates.items():
        if name not in FAULTS:
            near = difflib.get_close_matches(name, FAULTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown fault {name!r}{hint} (known: {', '.join(FAULTS)})")
        if not 0 <= rate <= 1:  # also refuses nan
            raise ValueError(f"the rate of {name!r} must be from 0 to 1")
        known[FAULTS[name]] = rate
    return Faults(**known)


@dataclass(frozen=True)
class Dice:
    """Chance that repeats: a draw depends on the seed and on what is drawn for, never on time or on other draws."""

    seed: int

    def digest(self, data: bytes) -> bytes:
        """32 bytes that stand for `data` under this seed."""
        return hashlib.blake2b(data, digest_size=32, key=self.seed.to_bytes(8, "little", signed=True)).digest()

    def draw(self, *what: str | int) -> float:
        """A number from 0 up to 1."""
        return int.from_bytes(self.digest(repr(what).encode())[:7], "little") / 2**56

    def hits(self, rate: float, *what: str | int) -> bool:
        """Whether a fault of this rate happens here."""
        return rate > 0 and self.draw(*what) < rate


@dataclass
class VirtualClock:
    """Virtual unix seconds: from `start`, the real ones since `real_start` times `speed`, plus what was skipped."""

    clock: Callable[[], float]
    speed: float
    real_start: float
    start: float

    def now(self) -> float:
        return self.start + (self.clock() - self.real_start) * self.speed

    def advance(self, seconds: float) -> None:
        self.start += seconds

    def rebased(self, speed: float) -> VirtualClock:
        """The same moment with another speed, for a simulator that is started again."""
        return VirtualClock(clock=self.clock, speed=speed, real_start=self.clock(), start=self.now())


@dataclass(frozen=True)
class Answer:
    """An invented answer, and what it would have counted."""

    digest: str
    text: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cut: bool


_WORDS = (
    "the of and to in a is that for it as was with be by on not he this are or his from at which but have an had they "
    "you were their one all we can her has there been if more when will would who so no".split()
)


def answer(digest: bytes, request_bytes: int, *, max_tokens: int | None = None, reasons: bool = False) -> Answer:
    """The answer that belongs to a digest: 4 to 35 words; 4 request bytes a token, half cached one time in 4."""
    wanted = 4 + digest[0] % 32
    reasoning = (8 + digest[1]) if reasons else 0
    shown = wanted if max_tokens is None else max(min(wanted, max_tokens - reasoning), 0)
    input_tokens = max(request_bytes // 4, 1)
    words = " ".join([_WORDS[(digest[i % 32] + i) % len(_WORDS)] for i in range(shown)])
    return Answer(
        digest=digest.hex(),
        text=words,
        input_tokens=input_tokens,
        cached_tokens=input_tokens // 2 if digest[2] % 4 == 0 else 0,
        output_tokens=shown + reasoning,
        reasoning_tokens=reasoning,
        cut=shown < wanted,
    )


class Background:
    """Runs work in threads, each piece once: the event loop only hears of the result.

    A piece that raised is remembered and raised again to whoever asks for it next: it would fail the same way again.
    """

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="simulator")
        self._running: dict[str, asyncio.Task[None]] = {}
        self._broken: dict[str, Exception] = {}

    def start(self, key: str, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        """Begins `work` in a thread unless it runs already; `done` gets its result on the event loop."""
        if key in self._broken:
            raise self._broken[key]
        if key not in self._running:
            self._running[key] = asyncio.get_running_loop().create_task(self._run(key, work, done))

    async def _run(self, key: str, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        try:
            done(await asyncio.get_running_loop().run_in_executor(self._pool, work))
        except Exception as error:
            logger.exception("simulated work %s failed", key)
            self._broken[key] = error
        finally:
            del self._running[key]

    @property
    def busy(self) -> bool:
        return bool(self._running)

    async def idle(self) -> None:
        """Waits until nothing runs that was running when this was called."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def close(self) -> None:
        await self.idle()
        self._pool.shutdown(wait=False)


class AbortableProtocol(HttpToolsProtocol):
    """uvicorn's protocol that hands its connection to the application, so that a simulator can break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {ABORT: self._abort}

    def _abort(self) -> None:
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:  # the client may have gone before
            # Without lingering the close is a TCP reset, which clients see differently from a polite end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def abort_connection(scope: Mapping[str, Any]) -> None:
    """Breaks the connection of a request; raises ConnectionResetError where there is no socket (in-process clients)."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is None:
        raise ConnectionResetError("the simulator reset the connection")
    abort()


def seconds_text(seconds: float) -> str:
    """A `Retry-After` header: whole seconds, never less than what is meant."""
    return str(max(math.ceil(seconds), 0))
