"""Whatever the lines, the models, the routes and the order of events: every line ends once, in order, paid once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchway.core.answers import pack
from batchway.core.errors import Fault, ProviderError
from batchway.core.linecheck import LineCheck
from batchway.core.spans import cut, decode_index, span_lines
from batchway.core.states import BATCH_STEPS, FINAL_BATCH_STATES, JOB_STEPS, BatchState, JobState, Outcome
from batchway.db import holds
from batchway.db.outbox import of_subject
from batchway.pipeline.cancel import cancel, expire
from batchway.pipeline.merge import merge
from tests.stages.memory_provider import bad, good
from tests.stages.world import PRICED, SERVED, UNPRICED, WHO, chat, killed, line, open_world

QUICK = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
# A world of its own for each example: fewer of them.
HEAVY = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])


def spread(words: list, size: int):
    """Up to `size` words in runs and by chance: lists of hypothesis are rarely long enough to be cut."""

    def made(count: int, run: int, random) -> list:
        found: list = []
        while len(found) < count:
            found += [random.choice(words)] * random.randint(1, run)
        return found[:count]

    return st.builds(made, st.integers(1, size), st.sampled_from([1, 3, 400]), st.randoms(use_true_random=False))


@QUICK
@given(
    spread(["a", "b", "a-longer-name"], 1500), st.integers(256, 2000), st.integers(60_000, 400_000), st.integers(1, 700)
)
def test_cutting_covers_every_line_exactly_once_within_the_limits(names, most_lines, most_bytes, piece):
    raw = [json.dumps(line(number, name)).encode() + b"\n" for number, name in enumerate(names, 1)]
    data = b"".join(raw)
    check = LineCheck()
    for at in range(0, len(data), 50_000 + piece):
        check.feed(data[at : at + 50_000 + piece])
    index = decode_index(check.finish().index)

    async def read(span) -> list[int]:
        async def chunks():
            for at in range(span.start, span.end, 10_000 + piece):
                yield data[at : min(at + 10_000 + piece, span.end)]

        return [found.number for window in [w async for w in span_lines(chunks(), span)] for found in window]

    seen: Counter[int] = Counter()
    for model in set(names):
        parts = list(cut(index, "k", frozenset({model}), lines=most_lines, size=most_bytes))
        for part in parts:
            numbers = asyncio.run(read(part.span))
            assert len(numbers) == part.lines <= most_lines
            assert sum(len(raw[number - 1]) for number in numbers) == part.bytes
            assert part.bytes <= most_bytes or part.lines <= 256  # a block is never divided
            assert all(names[number - 1] == model for number in numbers)
            seen.update(numbers)
    assert seen == Counter(range(1, len(names) + 1))


class Stored:
    """Objects that are read in pieces of a size that fits nothing."""

    def __init__(self, objects: dict[str, bytes], piece: int) -> None:
        self._objects = objects
        self._piece = piece

    async def read(self, key, start=0, end=None, chunk=0):
        data = self._objects[key]
        for at in range(0, len(data), self._piece):
            yield data[at : at + self._piece]


@QUICK
@given(spread([0, 1, 2, 3, 4], 1500), st.integers(1, 300), st.integers(5, 3000), st.randoms())
def test_merging_gives_input_order_whatever_the_jobs(owners, longest, piece, random):
    jobs: dict[tuple[int, int], list[int]] = {}
    for number, owner in enumerate(owners, 1):
        turn = sum(len(found) for (name, _), found in jobs.items() if name == owner) // longest
        jobs.setdefault((owner, turn), []).append(number)
    rows, objects = [], {}
    for at, numbers in enumerate(jobs.values()):
        objects[f"answers/{at}"] = b"".join(pack(number, ok=True, line=b"{}") for number in numbers)
        rows.append({"first_line": random.randint(max(1, numbers[0] - 5), numbers[0]), "answers_key": f"answers/{at}"})
    random.shuffle(rows)

    async def merged() -> list[int]:
        return [found.number async for window in merge(Stored(objects, piece), rows) for found in window]

    assert asyncio.run(merged()) == list(range(1, len(owners) + 1))


def some(name: str):
    number = int(name.removeprefix("line-"))
    return None if number % 7 == 0 else bad(name) if number % 3 == 0 else good(name)


happenings = st.one_of(
    st.tuples(st.just("step"), st.none() | st.integers(1, 25)),  # and where the process dies
    st.tuples(st.just("later"), st.sampled_from([1, 5, 40, 400])),
    st.tuples(st.just("end"), st.sampled_from(["succeeded", "failed", "expired", "cancelled", "rejected"])),
    st.tuples(st.just("trouble"), st.sampled_from(["submit", "find", "look", "cancel", "answers"])),
    st.tuples(st.just("lie"), st.none()),
    st.tuples(st.just("cancel"), st.none()),
    st.tuples(st.just("expire"), st.none()),
)


async def happen(world, batch_id: str, what: str, how) -> None:
    if what == "step":
        world.points.kill_at(how)
        try:
            await world.step()
        except ProviderError:
            pass  # the worker notes it, and comes back
        except BaseException as end:
            if not killed(end):
                raise
        world.points.kill_at(None)
    elif what == "later":
        world.now += how
    elif what == "end":
        for provider in world.providers:
            provider.end(Outcome(how), some)
    elif what == "trouble":
        for provider in world.providers:
            provider.trouble[how] = [ProviderError("busy", fault=Fault.TRANSIENT, status=500)]
    elif what == "lie":
        world.alpha.lies = 1
    elif (await world.row(batch_id))["status"] not in FINAL_BATCH_STATES:
        await (cancel(world.trip, batch_id, WHO.sight) if what == "cancel" else expire(world.trip, batch_id))


async def checked(world, batch_id: str, before: dict[str, str]) -> dict[str, str]:
    """The states of the batch and its jobs, all of them reached by the tables."""
    now = {batch_id: (await world.row(batch_id))["status"]}
    now |= {row["id"]: row["status"] for row in await world.jobs(batch_id)}
    for name, old in before.items():
        table, states = (BATCH_STEPS, BatchState) if name == batch_id else (JOB_STEPS, JobState)
        reached, waiting = {states(old)}, [states(old)]
        while waiting:
            more = table[waiting.pop()] - reached
            reached |= more
            waiting += more
        assert states(now[name]) in reached, (name, old, now[name])
    return now


@HEAVY
@given(st.lists(happenings, max_size=14), st.sampled_from([5, 300]))
def test_no_order_of_events_leaves_the_states_or_loses_a_line(story, size):
    async def tell() -> None:
        async with open_world() as world:
            batch_id = await world.batch(*chat(size, PRICED, UNPRICED, SERVED))
            states: dict[str, str] = {}
            for what, how in story:
                await happen(world, batch_id, what, how)
                states = await checked(world, batch_id, states)
            for provider in world.providers:
                provider.trouble.clear()
            world.now += 600
            last = await world.drive(batch_id)
            await checked(world, batch_id, states)
            await ended_well(world, batch_id, last, size)

    asyncio.run(tell())


async def ended_well(world, batch_id: str, last: str, size: int) -> None:
    output, errors = await world.files_of(batch_id)
    numbers = [[int(found["custom_id"].removeprefix("line-")) for found in lines] for lines in (output, errors)]
    assert sorted(numbers[0] + numbers[1]) == list(range(1, size + 1))
    assert numbers == [sorted(numbers[0]), sorted(numbers[1])]
    row, entries = await world.row(batch_id), await world.entries(batch_id)
    assert (row["total"], row["completed"]) == (size, len(output))
    assert sum(entry["lines"] for entry in entries) == len(output)
    assert sum(entry["amount"] or 0 for entry in entries) == (row["amount"] or 0)
    assert len({entry["job_id"] for entry in entries}) == len(entries)
    assert not await world.db.read(holds.open_holds)
    told = [event.type.value for event in await world.db.read(of_subject, batch_id)]
    assert told.count("batch.created") == told.count(f"batch.{last}") == 1
    known = {job["remote_id"] for job in await world.jobs(batch_id)}
    for provider in world.providers:
        assert not provider.running
        assert set(provider.jobs) <= known
        tokens = Counter(remote.token for remote in provider.jobs.values())
        assert max(tokens.values(), default=1) == 1
