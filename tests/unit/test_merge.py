from __future__ import annotations

import asyncio
from random import Random

import pytest

from batchway.core.answers import pack
from batchway.pipeline.merge import WINDOW, merge
from batchway.storage import LocalStorage


class Reads(LocalStorage):
    """Counts the objects that are open at once."""

    def __init__(self, root) -> None:
        super().__init__(root, durable=False)
        self.open = self.most = 0

    async def read(self, key, start=0, end=None, chunk=1 << 20):
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async for piece in super().read(key, start, end, 200):  # pieces that fit no line
                yield piece
        finally:
            self.open -= 1


@pytest.fixture
async def storage(tmp_path):
    found = Reads(tmp_path)
    yield found
    await found.close()


async def stored(storage, *jobs):
    """Rows of jobs with answers to these lines."""
    rows = []
    for name, numbers in enumerate(jobs):
        answers = [pack(number, ok=number % 3 != 0, line=b'{"n":%d}' % number) for number in numbers]
        await storage.put(f"answers/{name}", b"".join(answers))
        rows.append({"first_line": numbers[0] if numbers else 1, "answers_key": f"answers/{name}"})
    return rows


async def numbers(storage, rows) -> list[int]:
    found = [answer async for window in merge(storage, rows) for answer in window]
    assert all(answer.line == b'{"n":%d}' % answer.number for answer in found)
    assert all(answer.ok == (answer.number % 3 != 0) for answer in found)
    return [answer.number for answer in found]


async def test_jobs_of_one_route_follow_each_other_one_open_at_a_time(storage):
    rows = await stored(storage, *(range(start, start + 100) for start in range(1, 2001, 100)))
    Random(1).shuffle(rows)
    assert await numbers(storage, rows) == list(range(1, 2001))
    assert storage.most <= 2


@pytest.mark.parametrize("routes", [2, 3, 7])
async def test_jobs_of_several_routes_interleave(storage, routes):
    rows = await stored(storage, *(range(first, 1000, routes) for first in range(1, routes + 1)))
    assert await numbers(storage, rows) == list(range(1, 1000))


async def test_a_route_that_begins_late_or_ends_early(storage):
    rows = await stored(storage, range(1, 900, 2), range(200, 500, 2), range(700, 901, 2), range(901, 950))
    wanted = sorted([*range(1, 900, 2), *range(200, 500, 2), *range(700, 901, 2), *range(901, 950)])
    assert await numbers(storage, rows) == wanted


async def test_a_job_without_answers_holds_up_nothing(storage):
    rows = await stored(storage, range(1, 5), [], range(5, 9))
    assert await numbers(storage, rows) == list(range(1, 9))


async def test_nothing_at_all_is_no_window(storage):
    assert [window async for window in merge(storage, [])] == []
    assert [window async for window in merge(storage, await stored(storage, []))] == []


async def test_windows_are_bounded(storage):
    rows = await stored(storage, range(1, 20_000, 2), range(2, 20_000, 2))
    sizes = [len(window) async for window in merge(storage, rows)]
    assert sum(sizes) == 19_999
    assert max(sizes) < WINDOW * 2
    assert min(sizes[:-1]) >= WINDOW


async def test_a_reader_may_leave_early(storage):
    merging = merge(storage, await stored(storage, range(1, 5000), range(5000, 9000)))
    assert (await anext(merging))[0].number == 1
    await merging.aclose()
    for _ in range(3):
        await asyncio.sleep(0)
