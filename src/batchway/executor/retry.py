"""Which attempts are repeated and when, as data: the one retry rule of the executor.

A status that may pass is repeated, as OpenAI's own clients do; so is silence, because a line has no side effect at the
endpoint beyond its price. A 429 or 503 that says when to come back is an appointment, not a failure: it holds back the
whole account and uses up none of the line's attempts. Nothing is repeated after the deadline.
"""

from __future__ import annotations

from random import Random

import msgspec

from batchway.http import Retry

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529})
APPOINTMENTS = frozenset({429, 503})
OF_LOAD = frozenset({408, 429, 502, 503, 504, 522, 524, 529})


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """An attempt that may succeed later. `status` is None without an answer, `retry_after` in seconds."""

    status: int | None
    retry_after: float | None = None

    @property
    def taken(self) -> bool | None:
        """False when the endpoint refused for its load; None without an answer."""
        return None if self.status is None else self.status not in OF_LOAD

    @property
    def appointment(self) -> bool:
        """True when the endpoint itself said when to come back."""
        return self.retry_after is not None and self.status in APPOINTMENTS


def pause(rule: Retry, tries: int, retry_after: float | None, random: Random) -> float:
    """Seconds until the next try after `tries` that failed: what the endpoint asked for, else a growing random time."""
    if retry_after is not None:
        return retry_after + random.uniform(0, rule.base)  # spread those who were told the same second
    return random.uniform(0, min(rule.cap, rule.base * 2.0 ** (tries - 1)))


def next_try(rule: Retry, tries: int, trouble: Trouble, time_left: float, random: Random) -> float | None:
    """Seconds until the next try, or None when there is none: `tries` are used up, or the deadline comes first."""
    if tries >= rule.attempts and not trouble.appointment:
        return None
    delay = pause(rule, max(tries, 1), trouble.retry_after, random)
    return delay if delay < time_left else None
