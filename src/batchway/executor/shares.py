"""Who comes next, fairly: the project that has least in hand, and of its jobs the one that has least.

A project that has nothing in hand comes before every other one, so a small batch waits for nobody's large one; two
projects that always have work get the same. Within a project a higher priority goes first, then a job whose deadline is
near, then the job with least in hand, then the nearest deadline. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol, TypeVar

NEAR = 900.0  # seconds to a deadline that is near


class Share(Protocol):
    """Somebody who wants more."""

    @property
    def project(self) -> str: ...
    @property
    def job_id(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def deadline(self) -> float: ...


S = TypeVar("S", bound=Share)


class Shares:
    """What projects and jobs have in hand, in lines or requests."""

    def __init__(self) -> None:
        self._projects: Counter[str] = Counter()
        self._jobs: Counter[str] = Counter()

    def take(self, project: str, job_id: str, count: int = 1) -> None:
        """So much more is in hand."""
        self._projects[project] += count
        self._jobs[job_id] += count

    def give_back(self, project: str, job_id: str) -> None:
        """One less is in hand."""
        for counter, name in ((self._projects, project), (self._jobs, job_id)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def has_none(self, project: str) -> bool:
        """Whether nothing of a project is in hand."""
        return not self._projects[project]

    def order(self, wanting: Iterable[S], now: float) -> list[S]:
        """All of them, whoever comes next first."""
        return sorted(wanting, key=lambda one: self._rank(one, now))

    def first(self, wanting: Iterable[S], now: float) -> S:
        """Who comes next; ValueError when nobody wants anything."""
        return min(wanting, key=lambda one: self._rank(one, now))

    def _rank(self, one: Share, now: float) -> tuple[int, int, bool, int, float]:
        near = one.deadline - now < NEAR
        return self._projects[one.project], -one.priority, not near, self._jobs[one.job_id], one.deadline
