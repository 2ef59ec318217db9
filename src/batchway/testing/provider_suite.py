"""What every provider must do: subclass `ProviderSuite` and provide a fixture `ground`.

The tests drive the provider over real HTTP against its simulator, or against one of your own. In ten lines:

    class TestMine(ProviderSuite):
        gaps = {"test_a_lost_submit_is_found": "the API has no place for a token; README.md, Gaps"}

        @pytest.fixture
        async def ground(self, simulator, tools):
            entry = {"mine": {"api_key": "sim", "base_url": simulator.url}}
            wrong = {"mine": {"api_key": "wrong", "base_url": simulator.url}}
            (account,), (denied,) = open_accounts(entry, tools), open_accounts(wrong, tools)
            yield Ground(account=account, denied=denied, model="m", passes=simulator.advance, disturb=simulator.faults)

They need pytest and pytest-asyncio (mode "auto"). A thing that the provider cannot do is declared in `gaps`, by the
test's name, with its reason; the test must then fail, and fails the suite on the day that it passes.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from typing import ClassVar

import msgspec
import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Route
from batchway.core.states import Outcome
from batchway.core.usage import line_usage
from batchway.providers.protocol import Adoptable
from batchway.testing.provider_ground import (
    DAY,
    Ground,
    answers,
    ended,
    lane,
    looks,
    new_word,
    numbered,
    planned,
    started,
    told,
)
from batchway.wire.lines import input_line, output_line

__all__ = ["Ground", "ProviderSuite"]

MEMORY = 6 << 20  # bytes that a big job may hold at once, whatever its size


class ProviderSuite:
    """Every line is answered once, under its own custom_id; a submit can be found again; errors are ProviderErrors."""

    gaps: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest) -> None:
        name: str = request.node.originalname
        if reason := self.gaps.get(name):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture(autouse=True)
    async def _undisturbed(self, ground: Ground) -> None:
        await ground.disturb("")

    async def test_limits_are_sane(self, ground: Ground) -> None:
        limits = ground.provider.limits(ground.model)
        assert limits.lines >= 1
        assert limits.bytes >= limits.line_bytes >= 1 << 10
        assert 0 < limits.windows[0] <= limits.windows[1]
        assert ground.endpoint in limits.endpoints
        assert all(endpoint.startswith("/") for endpoint in limits.endpoints)

    async def test_a_job_answers_every_line_under_its_own_custom_id(self, ground: Ground) -> None:
        names = [f"line-{number}" for number in range(97)] + ['odd "näme" \\ 漢字', " ", "x" * 64]
        job = await started(ground, names)
        look = await ended(ground, job)
        assert look.outcome is Outcome.SUCCEEDED
        assert (look.counts.completed, look.counts.failed) == (100, 0)
        found = await answers(ground, job, look)
        assert sorted(answer.custom_id for answer in found) == sorted(names)
        for answer in found:
            parsed = output_line.decode(answer.line)
            assert answer.ok
            assert parsed.ok
            assert parsed.custom_id == answer.custom_id
            assert b"\n" not in answer.line
            assert line_usage(answer.line).input_tokens > 0

    async def test_each_line_has_the_answer_to_its_own_question(self, ground: Ground) -> None:
        first, second = [await started(ground, ["a", "b", "c"]), await started(ground, ["c", "b", "a"])]
        one, two = [told(await answers(ground, job, await ended(ground, job))) for job in (first, second)]
        assert one == two  # a line's question follows from its name, and a simulator's answer from the question
        assert one["a"] != one["b"] != one["c"]

    async def test_lines_that_fail_take_no_neighbour_along(self, ground: Ground) -> None:
        await ground.disturb("line=0.5")
        job = await started(ground, numbered(100))
        look = await ended(ground, job)
        found = await answers(ground, job, look)
        assert sorted(answer.custom_id for answer in found) == sorted(numbered(100))
        good = sum(answer.ok for answer in found)
        assert 0 < good < 100
        assert (look.counts.completed, look.counts.failed) == (good, 100 - good)
        for answer in found:
            assert output_line.decode(answer.line).ok is answer.ok

    async def test_answers_can_be_read_again(self, ground: Ground) -> None:
        job = await started(ground, numbered(20))
        look = await ended(ground, job)
        first, again = [
            sorted((answer.custom_id, answer.ok, answer.line) for answer in await answers(ground, job, look))
            for _ in range(2)
        ]
        assert first == again

    async def test_a_job_is_found_by_its_token_and_only_by_that(self, ground: Ground) -> None:
        job = await started(ground, numbered(3))
        assert await ground.provider.find(job) == job.remote_id
        assert (
            await ground.provider.find(msgspec.structs.replace(job, id=f"job_{new_word()}", token=new_word())) is None
        )

    async def test_a_lost_submit_is_found(self, ground: Ground) -> None:
        """The provider has the job, and we got an error: nobody may believe that it was not made."""
        await ground.disturb("accept_then_500=1")
        job, source = await planned(ground, numbered(3))
        with pytest.raises(ProviderError) as lost:
            await ground.provider.submit(job, source)
        assert lost.value.fault is Fault.LOST
        await ground.disturb("")
        remote_id = await ground.provider.find(job)
        assert remote_id is not None
        look = await ended(ground, msgspec.structs.replace(job, remote_id=remote_id))
        assert look.outcome is Outcome.SUCCEEDED

    async def test_a_job_that_never_left_is_surely_not_there(self, ground: Ground) -> None:
        await ground.disturb("429=1")
        job, source = await planned(ground, numbered(3))
        with pytest.raises(ProviderError) as throttled:
            await ground.provider.submit(job, source)
        assert throttled.value.fault is Fault.THROTTLED
        assert throttled.value.retryable
        await ground.disturb("")
        assert await ground.provider.find(job) is None

    async def test_an_outage_is_a_passing_fault(self, ground: Ground) -> None:
        job = await started(ground, numbered(3))
        await ground.disturb("500=1")
        for call in (ground.provider.look, ground.provider.find, ground.provider.cancel):
            with pytest.raises(ProviderError) as failed:
                await call(job)
            assert failed.value.fault is Fault.TRANSIENT

    async def test_a_wrong_key_is_denied(self, ground: Ground) -> None:
        denied = lane(ground.denied)
        job, source = await planned(ground, numbered(3))
        with pytest.raises(ProviderError) as refused:
            await denied.submit(job, source)
        assert refused.value.fault is Fault.DENIED
        with pytest.raises(ProviderError) as refused:
            await denied.look(await started(ground, numbered(3)))
        assert refused.value.fault is Fault.DENIED
        assert not refused.value.retryable

    async def test_a_job_that_is_not_there_is_a_404(self, ground: Ground) -> None:
        job = await started(ground, numbered(3))
        absent = msgspec.structs.replace(job, id=f"job_{new_word()}", remote_id=str(job.remote_id)[:-6] + "000000")
        with pytest.raises(ProviderError) as missing:
            await ground.provider.look(absent)
        assert missing.value.status == 404

    async def test_counts_only_grow_and_stay_within_the_lines(self, ground: Ground) -> None:
        job = await started(ground, numbered(50))
        before = (0, 0)
        async for look in looks(ground, job):
            counts = (look.counts.completed, look.counts.failed)
            assert counts >= before
            assert sum(counts) <= 50
            before = counts
        assert sum(before) == 50

    async def test_a_cancelled_job_ends_so_and_keeps_what_was_answered(self, ground: Ground) -> None:
        job = await started(ground, numbered(50))
        for _ in range(2):
            await ground.provider.cancel(job)
        look = await ended(ground, job)
        assert look.outcome is Outcome.CANCELLED
        found = await answers(ground, job, look)
        assert len({answer.custom_id for answer in found}) == len(found) <= 50
        assert sum(answer.ok for answer in found) == look.counts.completed

    async def test_cancelling_a_job_that_has_ended_leaves_it_as_it_is(self, ground: Ground) -> None:
        job = await started(ground, numbered(3))
        before = await ended(ground, job)
        await ground.provider.cancel(job)
        assert await ground.provider.look(job) == before

    async def test_a_job_that_the_provider_refuses_says_why(self, ground: Ground) -> None:
        await ground.disturb("fail_batch=1")
        job = await started(ground, numbered(3))
        look = await ended(ground, job)
        assert look.outcome in (Outcome.REJECTED, Outcome.FAILED)
        assert look.code
        assert look.message
        assert await answers(ground, job, look) == []

    async def test_an_expired_job_keeps_what_was_answered(self, ground: Ground) -> None:
        await ground.disturb("expire=1")
        job = await started(ground, numbered(50))
        look = await ended(ground, job, step=DAY / 4)
        assert look.outcome is Outcome.EXPIRED
        found = await answers(ground, job, look)
        assert 0 < sum(answer.ok for answer in found) == look.counts.completed < 50

    async def test_a_status_nobody_knows_is_running(self, ground: Ground) -> None:
        assert ground.puzzled is not None, "Ground.puzzled is wanted here"
        job = await started(ground, numbered(3))
        look = await lane(ground.puzzled).look(job)
        assert look.outcome is None
        assert look.status

    async def test_cleaning_may_be_repeated(self, ground: Ground) -> None:
        job = await started(ground, numbered(3))
        look = await ended(ground, job)
        for _ in range(2):
            await ground.provider.clean(job, look)

    async def test_a_big_job_passes_through_a_window(self, ground: Ground) -> None:
        """8 MB of lines out and as much of answers in, and never more than a few of them in memory."""
        size, wide = 2000, "y" * 4000
        job, source = await planned(ground, numbered(size), pad=wide)
        tracemalloc.start()
        try:
            remote_id = await ground.provider.submit(job, source)
            _, sent = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        job = msgspec.structs.replace(job, remote_id=remote_id)
        look = await ended(ground, job)
        tracemalloc.start()
        try:
            seen = 0
            async for window in ground.provider.answers(job, look, source):
                seen += len(window)
            _, received = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert seen == size
        assert max(sent, received) < MEMORY

    async def test_the_source_may_be_opened_again(self, ground: Ground) -> None:
        """A repeated submit, after one that surely failed, sends the same lines."""
        await ground.disturb("429=1")
        job, source = await planned(ground, numbered(5))
        with pytest.raises(ProviderError):
            await ground.provider.submit(job, source)
        await ground.disturb("")
        job = msgspec.structs.replace(job, remote_id=await ground.provider.submit(job, source))
        found = await answers(ground, job, await ended(ground, job))
        assert sorted(answer.custom_id for answer in found) == sorted(numbered(5))

    async def test_a_job_made_elsewhere_can_be_taken_in(self, ground: Ground) -> None:
        assert isinstance(ground.provider, Adoptable), "the provider has no fetch_input"
        job = await started(ground, numbered(5))
        foreign = msgspec.structs.replace(
            job,
            id=f"job_{new_word()}",
            token=new_word(),
            route=Route(account=ground.account.name, model=""),
            endpoint="",
        )
        look = await ground.provider.look(foreign)
        assert look.endpoint == ground.endpoint
        data = b"".join([chunk async for chunk in ground.provider.fetch_input(look)])
        lines = [input_line.decode(raw) for raw in data.splitlines() if raw.strip()]
        assert [line.custom_id for line in lines] == numbered(5)
        assert {json.loads(bytes(line.body))["model"] for line in lines} == {ground.model}
