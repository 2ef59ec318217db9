"""The answers of all jobs of a batch as one stream in input order. Not a stage.

Jobs of one route cover consecutive ranges; jobs of several routes interleave. A job's object is opened only when the
stream reaches its first line, so memory holds one window a route, whatever the number of jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable

from sqlalchemy import RowMapping

from batchway.core.answers import Stored
from batchway.pipeline.answers import read_answers
from batchway.storage import Storage

WINDOW = 512  # answers


async def merge(storage: Storage, rows: Iterable[RowMapping]) -> AsyncIterator[list[Stored]]:
    """Windows of answers, by line number; `rows` are collected jobs (those that others took over have none)."""
    window: list[Stored] = []
    async for _, answers in runs(storage, rows):
        window += answers
        if len(window) >= WINDOW:
            yield window
            window = []
    if window:
        yield window


async def runs(storage: Storage, rows: Iterable[RowMapping]) -> AsyncIterator[tuple[RowMapping, list[Stored]]]:
    """The same stream with the job of each run of answers."""
    waiting = sorted((row for row in rows if row["answers_key"]), key=lambda row: row["first_line"], reverse=True)
    open_jobs: list[tuple[int, int, _Cursor]] = []
    while waiting or open_jobs:
        while waiting and (not open_jobs or waiting[-1]["first_line"] <= open_jobs[0][0]):
            row = waiting.pop()
            cursor = _Cursor(row, read_answers(storage, row["answers_key"]))
            await _requeue(open_jobs, cursor)
        if not open_jobs:
            continue
        _, _, cursor = heapq.heappop(open_jobs)
        limit = min(open_jobs[0][0] if open_jobs else 1 << 62, waiting[-1]["first_line"] if waiting else 1 << 62)
        yield cursor.row, cursor.take_below(limit)
        await _requeue(open_jobs, cursor)


class _Cursor:
    """One job's answers, with the window under the reading point."""

    def __init__(self, row: RowMapping, windows: AsyncIterator[list[Stored]]) -> None:
        self.row = row
        self._windows = windows
        self._window: list[Stored] = []
        self._at = 0

    async def next_number(self) -> int | None:
        """The number of the next answer, or None at the end."""
        while self._at >= len(self._window):
            window = await anext(self._windows, None)
            if window is None:
                return None
            self._window, self._at = window, 0
        return self._window[self._at].number

    def take_below(self, limit: int) -> list[Stored]:
        """The next answers whose numbers are below `limit`, as far as they are in memory (at least one)."""
        first = self._at
        self._at += 1
        while self._at < len(self._window) and self._window[self._at].number < limit:
            self._at += 1
        return self._window[first : self._at]


async def _requeue(open_jobs: list[tuple[int, int, _Cursor]], cursor: _Cursor) -> None:
    number = await cursor.next_number()
    if number is not None:
        heapq.heappush(open_jobs, (number, id(cursor), cursor))
