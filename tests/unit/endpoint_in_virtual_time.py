"""An endpoint and a caller that always has work, in virtual time: what a `Pace` makes of them, in milliseconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from batchway.executor.pace import Pace


@dataclass
class Endpoint:
    """`slots` at a time; beyond them it refuses (after `refusal` seconds), or, when it `queues`, lets requests wait."""

    slots: Callable[[float], int]
    seconds: Callable[[Random, float], float]
    queues: bool = False
    refusal: float = 0.005


@dataclass
class Run:
    """What became of it: the times of answers and of refusals, and the limit now and then."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)

    def limit_at(self, when: float) -> int:
        return next(limit for at, limit in reversed(self.limits) if at <= when)

    def limits_between(self, begin: float, end: float) -> list[int]:
        return [limit for at, limit in self.limits if begin <= at <= end]

    def refused_share(self, after: float) -> float:
        refused = sum(at > after for at in self.refused)
        return refused / max(1, refused + sum(at > after for at in self.answered))


class _Caller:
    def __init__(self, endpoint: Endpoint, pace: Pace, seed: int) -> None:
        self.endpoint, self.pace, self.random = endpoint, pace, Random(seed)
        self.now, self.in_flight, self.served, self.held = 0.0, 0, 0, 0.0
        self.queue: list[float] = []
        self.events: list[tuple[float, int, str, float]] = []
        self.number = 0
        self.run = Run()

    def at(self, when: float, what: str, sent: float) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, what, sent))

    def serve(self, sent: float) -> None:
        self.served += 1
        self.at(self.now + self.endpoint.seconds(self.random, self.now), "answer", sent)

    def send(self) -> None:
        self.in_flight += 1
        self.pace.sent(self.now, self.in_flight)
        if self.served < self.endpoint.slots(self.now):
            self.serve(self.now)
        elif self.endpoint.queues:
            self.queue.append(self.now)
        else:
            self.at(self.now + self.endpoint.refusal, "refusal", self.now)

    def fill(self) -> None:
        if self.now < self.held:
            self.at(self.held, "alarm", 0)
            return
        while self.in_flight < self.pace.limit(self.now):
            self.send()
        rises_at = self.pace.rises_at(self.now)
        if rises_at is not None:
            self.at(max(rises_at, self.now + 1e-4), "alarm", 0)

    def happen(self, what: str, sent: float) -> None:
        if what == "alarm":
            return
        self.in_flight -= 1
        if what == "refusal":
            self.run.refused.append(self.now)
            self.held = max(self.held, self.now + self.pace.lost(sent, self.now, self.in_flight))
            return
        self.served -= 1
        self.run.answered.append(self.now)
        while self.queue and self.served < self.endpoint.slots(self.now):
            self.serve(self.queue.pop(0))
        self.pace.taken(sent, self.now)


def play(endpoint: Endpoint, seconds: float, *, pace: Pace | None = None, seed: int = 1) -> Run:
    """Lets a caller with endless work use the endpoint for so long."""
    caller = _Caller(endpoint, pace or Pace(), seed)
    caller.fill()
    alarms: set[float] = set()
    while caller.events:
        caller.now, _, what, sent = heapq.heappop(caller.events)
        if caller.now > seconds:
            break
        if what == "alarm" and caller.now in alarms:
            continue  # one of many for the same moment
        alarms = {caller.now} if what == "alarm" else alarms
        caller.happen(what, sent)
        caller.fill()
        caller.run.limits.append((caller.now, caller.pace.limit(caller.now)))
    return caller.run
