"""How often a call over HTTP is tried: the policy as data; the one loop that follows it stands in `http.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is tried, and whether a second try could do a thing twice.

    The wait before try n is drawn from 0 to `base * 2**(n-1)` seconds, at most `cap` (full jitter); a `Retry-After` is
    obeyed instead. No try starts later than `total` seconds after the first.
    """

    idempotent: bool
    attempts: int = 4
    base: float = 0.5
    cap: float = 20.0
    total: float = 90.0


NO_RETRY = Retry(idempotent=False, attempts=1)
ONCE = Retry(idempotent=False)  # repeated only when nothing was sent
SAFE = Retry(idempotent=True)
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110, 9.2.2
