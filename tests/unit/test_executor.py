from __future__ import annotations

import asyncio
import json
import math
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from batchway.core.answers import Stored, pack, unpack
from batchway.executor.limits import Slots
from batchway.executor.pace import Pace
from batchway.executor.purse import Purse
from batchway.executor.retry import Trouble, next_try, pause
from batchway.executor.run import Run
from batchway.executor.send import Endpoint, Request, rewriter, target
from batchway.http import Retry

RULE = Retry(idempotent=True, attempts=3, base=1.0, cap=4.0)


def test_a_stored_answer_reads_back_as_it_was_written():
    for answer in (Stored(1, True, b'{"id": "a b"}'), Stored(4_000_000_000, False, '{"é": " \\n"}'.encode(), 600_000)):
        packed = pack(answer.number, ok=answer.ok, line=answer.line, milliseconds=answer.milliseconds)
        assert unpack(packed.removesuffix(b"\n")) == answer


def test_the_pause_grows_with_each_try_up_to_its_cap():
    highest = [max(pause(RULE, tries, None, Random(seed)) for seed in range(200)) for tries in (1, 2, 3, 4, 9)]
    assert highest == pytest.approx([1, 2, 4, 4, 4], rel=0.1)


def test_what_the_endpoint_asked_for_is_waited_for_in_full():
    assert all(7 <= pause(RULE, 1, 7.0, Random(seed)) <= 8 for seed in range(100))


def test_the_last_try_is_final():
    assert next_try(RULE, 2, Trouble(500), math.inf, Random(1)) is not None
    assert next_try(RULE, 3, Trouble(500), math.inf, Random(1)) is None
    assert next_try(RULE, 3, Trouble(None), math.inf, Random(1)) is None


def test_an_appointment_is_kept_however_many_there_were():
    assert next_try(RULE, 3, Trouble(429, 2.0), math.inf, Random(1)) is not None
    assert next_try(RULE, 3, Trouble(500, 2.0), math.inf, Random(1)) is None


def test_no_try_starts_after_the_deadline():
    assert next_try(RULE, 1, Trouble(429, 10.0), 9.0, Random(1)) is None
    assert next_try(RULE, 1, Trouble(500), 0.0, Random(1)) is None


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://h/v1", "/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/v1/", "/v1/embeddings", "http://h/v1/embeddings"),
        ("http://h/api/openai", "/v1/responses", "http://h/api/openai/responses"),
    ],
)
def test_a_path_follows_the_base_url_without_its_own_v1(base, path, url):
    place = target(Endpoint(base_url=base, headers={"x-a": "b"}), path)
    assert place.url == url
    assert place.headers == {"content-type": "application/json", "x-a": "b"}


def test_a_body_that_names_the_routes_model_is_sent_as_it_stands():
    body = msgspec.Raw(b'{ "model" : "m", "x": 1.0e2 }')
    for names in (frozenset({"m"}), frozenset({"m", "alias"}), frozenset[str]()):
        assert rewriter("m", names)(body) == bytes(body)


def test_another_model_is_replaced_and_nothing_else():
    body = msgspec.Raw(b'{"model": "alias", "seed": 123456789012345678901234567890, "f": 1.10, "u": "\\u00e9"}')
    sent = rewriter("m", frozenset({"alias"}))(body)
    assert sent == b'{"model":"m","seed":123456789012345678901234567890,"f":1.10,"u":"\\u00e9"}'
    assert json.loads(rewriter("m", frozenset())(msgspec.Raw(b"{}"))) == {"model": "m"}


class Lines:
    """Work of `count` requests that each last until `go` is set."""

    def __init__(self, count, *, project="p", job_id="job_1", priority=0, deadline=1e9, ordinal=0):
        self.project, self.job_id, self.priority = project, job_id, priority
        self.deadline, self.ordinal = deadline, ordinal
        self.waiting = [Request(number, f"c{number}", b"") for number in range(count)]
        self.sent = []
        self.go = asyncio.Event()
        self.both = asyncio.Event()

    def take(self):
        return self.waiting.pop(0) if self.waiting else None

    async def send(self, request):
        self.sent.append(request.number)
        if len(self.sent) == 2:
            self.both.set()
        await self.go.wait()
        return True


def slots_of(count):
    """Slots of an endpoint that is known to take so many."""
    return Slots(Pace(start=count, floor=count, ceiling=count))


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_slots_are_shared_and_never_exceeded():
    slots, first, second = slots_of(3), Lines(2), Lines(5)
    slots.join(first)
    slots.join(second)
    await turns()
    assert (first.sent, second.sent, slots.in_use) == ([0, 1], [0], 3)
    first.go.set()
    await turns()
    assert (second.sent, slots.in_use) == ([0, 1, 2], 3)
    second.go.set()
    await turns()
    assert (second.sent, slots.in_use) == ([0, 1, 2, 3, 4], 0)


async def test_the_most_urgent_work_goes_first_whenever_it_joined():
    slots, late, soon = slots_of(1), Lines(3, deadline=2e9), Lines(3, job_id="job_2")
    order = []

    async def send(request, name):
        order.append(name)
        await asyncio.sleep(0)
        return True

    late.send = lambda request: send(request, "late")
    soon.send = lambda request: send(request, "soon")
    slots.join(late)
    await turns(3)
    slots.join(soon)
    await turns(40)
    assert order[order.index("soon") :][:3] == ["soon"] * 3
    assert order.count("late") == 3


async def test_a_slot_that_comes_free_goes_to_the_project_that_has_least_in_flight():
    slots = slots_of(4)
    large, small = Lines(100, job_id="large"), Lines(3, project="q", job_id="small", deadline=2e9)
    slots.join(large)
    await turns()
    assert len(large.sent) == 4
    slots.join(small)
    large.go.set()
    await turns(2)
    assert small.sent[:1] == [0]
    small.go.set()
    await turns(200)
    assert (len(large.sent), len(small.sent), slots.in_use) == (100, 3, 0)


async def test_a_held_account_starts_nothing_until_its_time_and_then_by_itself():
    slots, work = slots_of(2), Lines(2)
    loop = asyncio.get_running_loop()
    held_at = loop.time()
    slots.hold(0.05)
    slots.hold(0.01)  # the longer one counts
    slots.join(work)
    await turns()
    assert work.sent == []
    await asyncio.wait_for(work.both.wait(), 5)
    assert loop.time() - held_at >= 0.05
    work.go.set()
    await turns()


async def test_a_worker_that_is_cancelled_leaves_its_slot_to_the_next_request():
    slots, work = slots_of(1), Lines(2)
    workers = []
    send = work.send

    async def noted(request):
        workers.append(asyncio.current_task())
        return await send(request)

    work.send = noted
    slots.join(work)
    await turns()
    workers[0].cancel()
    await turns()
    assert work.sent == [0, 1]
    work.go.set()
    await turns()
    assert slots.in_use == 0


async def test_a_raised_limit_is_used_at_once_and_a_lowered_one_as_requests_end():
    slots, work = slots_of(1), Lines(6)
    slots.join(work)
    await turns()
    slots.pace = Pace(start=3, floor=3, ceiling=3)
    slots.wake()
    await turns()
    assert slots.in_use == 3
    slots.pace = Pace(start=1, ceiling=1)
    work.go.set()
    await turns(4)
    assert slots.in_use <= 1
    await turns()
    assert len(work.sent) == 6


async def test_a_limit_that_rises_by_itself_is_used_though_nothing_comes_back():
    slots, work = Slots(Pace(start=1)), Lines(30)
    slots.join(work)
    await turns()
    assert slots.in_use == 1
    loop = asyncio.get_running_loop()
    slots.pace.taken(loop.time() - 0.0, loop.time() + 0.2)  # a clean and full round: it may double
    slots.pace.taken(loop.time() + 0.2, loop.time() + 0.4)
    slots.wake()
    await asyncio.wait_for(work.both.wait(), 5)
    work.go.set()
    await turns(200)


async def test_requests_that_an_endpoint_refuses_for_its_load_lower_the_limit():
    slots, work = Slots(Pace(start=4)), Lines(4)

    async def refused(request):
        work.sent.append(request.number)
        await asyncio.sleep(0)
        return False

    work.send = refused
    slots.join(work)
    await turns()
    assert work.sent == [0, 1, 2, 3]
    assert slots.pace.limit(asyncio.get_running_loop().time()) == 1


async def test_a_line_that_a_worker_has_taken_but_not_begun_keeps_its_chunk_from_ending():
    """Between the two the chunk's own task may run; it once ended the chunk there, without the line's answer."""
    tools = SimpleNamespace(
        new_id=lambda prefix: prefix + "0" * 32,
        may_send=lambda: True,
        drained=lambda: None,
        meter_of=lambda _account, _model: None,
    )
    chunk = SimpleNamespace(
        deadline=1.0, priority=0, ordinal=0, account="a", model="m", batch_id="batch_1", job_id="job_1", project="p"
    )
    run = Run(cast("Any", chunk), cast("Any", None), slots_of(1), Purse(None, 0), cast("Any", tools))
    run._ready.append(Request(1, "a", b"{}"))
    assert run.take() is not None
    assert not run.idle
