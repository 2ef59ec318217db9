"""How many requests of one endpoint may be in flight: found by trying, because no endpoint says.

The limit starts low and is looked at once a round. A round lasts until enough requests that were sent in it have come
back, so that each change is judged by its own effect and by nothing older. The rules, each with a test of its name:

1. Clean and full (no loss, and the limit was used up): try as many again, bit by bit over the round, and so slowly that
   a refusal is heard before more than `UNHEARD` requests follow it.
2. A loss (429, 503, or a failure that load explains) in a round that tried: the limit is what the endpoint still has in
   flight, which is just what it took. The next try waits, twice as many rounds each time, at most `PATIENCE`.
3. A loss in a round that did not try: the endpoint has become smaller. The limit falls to `CUT` of what is in flight;
   losses of requests sent before that say nothing new. Losses with no answer between them: nothing is sent for a while,
   longer each time, at most `LONGEST_HOLD`.
4. Latency beyond `SLOW` times the best known: the endpoint queues instead of refusing, and more in flight would only
   wait longer. So the limit does not grow; and every `BREATH` rounds it is what would not have to wait, for one round,
   which tells the two reasons apart. Was it a queue, then latency falls, and the limit is cut to what takes `SLOW`
   times the best at most. If latency stays, the lines are long: that is the best there is now, and the limit is as
   before.
5. Never below `floor`, never above `ceiling`.

Pure: the caller says what happened and when (seconds on any steady clock).
"""

from __future__ import annotations

from enum import Enum
from math import ceil
from statistics import median

START = 16
CUT = 0.7
SLOW = 2.5
BREATH = 12
PATIENCE = 2
UNHEARD = 4
SHORTEST = 0.1  # seconds of a round: of a few milliseconds nothing can be told
SAMPLES = 32  # answers of a round that are enough, however high the limit
FIRST_HOLD, LONGEST_HOLD = 0.05, 5.0  # seconds


class Verdict(Enum):
    """What an answer says about the endpoint's load."""

    TAKEN = "taken"  # it answered, whatever the answer says
    LOST = "lost"  # it refused for its load, or broke under it


class Pace:
    """The limit of one endpoint in one process."""

    def __init__(self, *, start: int = START, floor: int = 1, ceiling: int = 1024) -> None:
        self.floor = floor
        self.ceiling = ceiling
        self._limit = max(floor, min(start, ceiling))  # at the beginning of the round
        self._more = 0  # that the round adds, bit by bit
        self._over = SHORTEST  # seconds in which it does
        self._tried = True  # the first requests are a try, too
        self._pause = 1  # rounds to wait after the next failed try
        self._waiting = 0  # rounds until the next try
        self._began = 0.0  # of the round; requests sent earlier belong to an older limit
        self._full = self._lost = False
        self._latencies: list[float] = []  # of requests sent in the round
        self._best: float | None = None  # seconds
        self._slow_rounds = 0
        self._before_breath: tuple[int, float] | None = None  # limit and latency
        self._refusals = 0  # with no answer between them
        self._hearing = 0.0  # seconds until the last one was heard

    def limit(self, now: float) -> int:
        """How many may be in flight."""
        if not self._more:
            return self._limit
        part = min(1.0, (now - self._began) / self._over)
        return self._bounded(self._limit + max(1, int(self._more * part)))

    def rises_at(self, now: float) -> float | None:
        """When the limit will be higher though nothing comes back; None when it will not."""
        limit = self.limit(now)
        if not self._more or limit >= self._bounded(self._limit + self._more):
            return None
        return self._began + self._over * (limit - self._limit + 1) / self._more

    def sent(self, now: float, in_flight: int) -> None:
        """A request was sent, which makes so many."""
        self._full = self._full or in_flight >= self.limit(now)

    def taken(self, sent_at: float, now: float) -> None:
        """A request was answered."""
        self._refusals = 0
        if sent_at < self._began:
            return
        self._latencies.append(now - sent_at)
        if len(self._latencies) >= min(SAMPLES, max(1, self._limit // 8)) and now - self._began >= SHORTEST:
            self._look(now)

    def lost(self, sent_at: float, now: float, in_flight: int) -> float:
        """A request was lost, which leaves so many in flight; the seconds for which to send nothing."""
        self._refusals += 1
        self._hearing = now - sent_at
        if self._tried:
            self._limit, self._more = self._bounded(min(self.limit(now), in_flight)), 0
            if not self._lost:
                self._waiting, self._pause = self._pause, min(2 * self._pause, PATIENCE)
            self._lost = True
        elif sent_at >= self._began:
            self._begin(now, int(min(self.limit(now), in_flight) * CUT))
            self._waiting, self._pause = 0, 1
        if self._refusals <= 2 or in_flight > self.floor:
            return 0.0
        return min(LONGEST_HOLD, FIRST_HOLD * 2.0 ** min(self._refusals, 16))

    def _look(self, now: float) -> None:
        """The end of a round."""
        latency, limit = median(self._latencies), self.limit(now)
        if self._before_breath is not None:
            self._breathed(now, latency)
            return
        if self._best is None or latency < self._best:
            self._best = latency
        if latency > SLOW * self._best:
            self._slow_rounds += 1
            if self._slow_rounds % BREATH == 0 and self._full:
                self._before_breath = (limit, latency)
                limit = ceil(limit * self._best / latency)
            self._begin(now, limit)
        elif self._waiting or self._lost or not self._full:
            self._slow_rounds = 0
            self._waiting = max(0, self._waiting - 1)
            self._begin(now, limit)
        else:
            self._slow_rounds = 0
            if self._tried:
                self._pause = 1
            self._begin(now, limit, more=limit, over=max(latency, limit * self._hearing / UNHEARD))

    def _breathed(self, now: float, latency: float) -> None:
        limit, before = self._before_breath or (self._limit, latency)
        self._before_breath = None
        self._best = latency
        queued = before > SLOW * latency
        self._begin(now, ceil(limit * SLOW * latency / before) if queued else limit)

    def _begin(self, now: float, limit: int, *, more: int = 0, over: float = SHORTEST) -> None:
        self._limit, self._more, self._over = self._bounded(limit), more, max(over, 1e-3)
        self._tried = more > 0
        self._began = now
        self._full = self._lost = False
        self._latencies.clear()

    def _bounded(self, limit: int) -> int:
        return max(self.floor, min(limit, self.ceiling))
