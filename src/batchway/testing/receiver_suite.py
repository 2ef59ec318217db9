"""What every receiver must do: subclass `ReceiverSuite` and provide a fixture `ground`.

The tests tell the receiver over its real protocol to a peer of yours. In ten lines:

    class MyGround(ReceiverGround):
        secrets = ("the-token",)
        async def taken(self, wanted): return [event["id"] for event in self.peer.bodies]
        async def disturb(self, how): self.peer.answer = {"": 200, "busy": 503, "refuses": 400}.get(how, how)
        async def reopened(self): return open_receiver("mine", self.options, self.tools)

    class TestMine(ReceiverSuite):
        gaps = {"test_a_busy_peer_is_given_the_time_it_asks_for": "the protocol has no word for it"}

        @pytest.fixture
        async def ground(self, tools): ...   # yields a MyGround with `receiver` open, and closes it

They need pytest and pytest-asyncio (mode "auto"). What the receiver cannot do is declared in `gaps`, by the test's
name, with its reason; the test must then fail, and fails the suite on the day that it passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest

from batchway.core.events import Event, EventType
from batchway.integrations.protocol import Receiver, ReceiverError, TakesLines
from batchway.testing.receiver_ground import (
    CANARY,
    RETRY_AFTER,
    ReceiverGround,
    Trouble,
    ends,
    event,
    of_every_type,
    records,
)

__all__ = ["ReceiverGround", "ReceiverSuite"]

SLACK = 5.0  # seconds beyond a ground's patience: a busy machine


async def told(receiver: Receiver, events: Sequence[Event]) -> None:
    """Tells all of them, a window at a time, as the teller does."""
    for start in range(0, len(events), receiver.window):
        await receiver.tell(events[start : start + receiver.window])


async def refused(ground: ReceiverGround, how: Trouble, events: Sequence[Event]) -> ReceiverError:
    """The error with which the first window is refused by a peer in this trouble."""
    await ground.disturb(how)
    with pytest.raises(ReceiverError) as caught:
        await told(ground.receiver, events)
    return caught.value


def in_order(ids: Sequence[str], events: Sequence[Event]) -> bool:
    """Whether all of these and no others were taken, those of each subject in order, repeats aside."""
    place = {one.id: (one.subject, number) for number, one in enumerate(events)}
    taken = [place[one] for one in dict.fromkeys(ids) if one in place]
    by_subject = {subject: [number for of, number in taken if of == subject] for subject, _ in taken}
    orderly = all(numbers == sorted(numbers) for numbers in by_subject.values())
    return set(ids) == set(place) and orderly


class ReceiverSuite:
    """Everything arrives at least once and in order, repeats can be dropped, errors are told apart and keep secrets."""

    gaps: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest) -> None:
        name: str = request.node.originalname
        if reason := self.gaps.get(name):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture(autouse=True)
    async def _undisturbed(self, ground: ReceiverGround) -> None:
        await ground.disturb("")

    @pytest.fixture(autouse=True)
    def _discreet(self, ground: ReceiverGround, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        """Whatever a test does: the log shows no secret and no data."""
        caplog.set_level(logging.DEBUG, logger="batchway")
        yield
        written = [record.getMessage() for when in ("setup", "call") for record in caplog.get_records(when)]
        for word in (CANARY, *ground.secrets):
            assert word not in "\n".join(written)

    async def test_its_window_is_at_least_one_event(self, ground: ReceiverGround) -> None:
        assert ground.receiver.window >= 1

    async def test_what_it_was_told_has_arrived_in_order(self, ground: ReceiverGround) -> None:
        events = ends(2 * min(ground.receiver.window, 50) + 1)
        await told(ground.receiver, events)
        assert in_order(await ground.taken(len(events)), events)

    async def test_events_of_one_subject_stay_in_order(self, ground: ReceiverGround) -> None:
        events = ends(9, "batch_one")
        await told(ground.receiver, events)
        assert in_order(await ground.taken(len(events)), events)

    async def test_every_type_of_event_can_be_told(self, ground: ReceiverGround) -> None:
        events = of_every_type()
        await told(ground.receiver, events)
        wanted = [one for one in events if ground.tells(one)]
        assert in_order(await ground.taken(len(wanted)), wanted)

    async def test_fields_that_it_does_not_know_do_no_harm(self, ground: ReceiverGround) -> None:
        odd = event(EventType.BATCH_COMPLETED, news={"deep": [1, None, "x"]}, metadata=None, usage=None, models=[])
        await told(ground.receiver, [odd])
        assert await ground.taken(1) == [odd.id]

    async def test_odd_words_arrive_and_break_nothing(self, ground: ReceiverGround) -> None:
        words = {"a": 'quote " newline \n\r <b>&amp; {{x}} \u2028 ö 漢 😀', "b\nBcc: x@example.com": "c" * 512}
        events = [event(EventType.BATCH_COMPLETED, metadata=words), *ends(1)]
        await told(ground.receiver, events)
        assert in_order(await ground.taken(2), events)

    async def test_a_repeat_carries_the_same_id(self, ground: ReceiverGround) -> None:
        events = ends(3)
        await told(ground.receiver, events)
        await told(ground.receiver, events)
        await told(ground.receiver, last := ends(1))
        assert in_order(await ground.taken(4), [*events, *last])

    async def test_a_new_process_may_repeat_and_goes_on(self, ground: ReceiverGround) -> None:
        before, after = ends(2), ends(2)
        await told(ground.receiver, before)
        await ground.receiver.close()
        again = await ground.reopened()
        try:
            await told(again, before)
            await told(again, after)
            assert in_order(await ground.taken(4), [*before, *after])
        finally:
            await again.close()

    async def test_a_peer_that_is_away_is_told_later(self, ground: ReceiverGround) -> None:
        events = ends(2)
        assert not (await refused(ground, "away", events)).permanent
        await ground.disturb("")
        await told(ground.receiver, events)
        assert in_order(await ground.taken(2), events)

    async def test_a_busy_peer_is_told_later(self, ground: ReceiverGround) -> None:
        events = ends(2)
        assert not (await refused(ground, "busy", events)).permanent
        await ground.disturb("")
        await told(ground.receiver, events)
        assert in_order(await ground.taken(2), events)

    async def test_a_busy_peer_is_given_the_time_it_asks_for(self, ground: ReceiverGround) -> None:
        assert (await refused(ground, "busy", ends(1))).retry_after == pytest.approx(RETRY_AFTER, abs=1.0)

    async def test_what_the_peer_will_never_take_is_permanent(self, ground: ReceiverGround) -> None:
        assert (await refused(ground, "refuses", ends(1))).permanent
        await ground.disturb("")
        await told(ground.receiver, after := ends(1))
        assert (await ground.taken(1))[-1] == after[0].id

    @pytest.mark.parametrize("how", ["away", "busy", "refuses"])
    async def test_errors_show_no_secret_and_no_data(self, ground: ReceiverGround, how: Trouble) -> None:
        error = await refused(ground, how, ends(1))
        assert str(error) == error.message != ""
        for word in (CANARY, *ground.secrets):
            assert word not in repr(error)

    async def test_a_hanging_peer_is_given_up(self, ground: ReceiverGround) -> None:
        """By itself, or when the teller's patience ends: then it still works."""
        await ground.disturb("hangs")
        with pytest.raises((TimeoutError, ReceiverError)) as caught:
            async with asyncio.timeout(1.0):  # the teller's, in small
                await told(ground.receiver, ends(1))
        assert not getattr(caught.value, "permanent", False)
        await ground.disturb("")
        await told(ground.receiver, after := ends(1))
        assert (await ground.taken(1))[-1] == after[0].id

    async def test_it_ends_when_it_is_closed_even_while_the_peer_hangs(self, ground: ReceiverGround) -> None:
        await ground.disturb("hangs")
        telling = asyncio.create_task(told(ground.receiver, ends(1)))
        await asyncio.sleep(0.05)  # so that it may have begun: there is nothing of every receiver to wait on
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        async with asyncio.timeout(ground.patience + SLACK):
            await ground.receiver.close()
            await ground.receiver.close()

    async def test_lines_arrive_in_order_and_may_be_repeated(self, ground: ReceiverGround) -> None:
        receiver = ground.receiver
        if not (isinstance(receiver, TakesLines) and receiver.lines):
            pytest.skip("it takes no lines")
        accounted = event(EventType.JOB_ACCOUNTED)
        parts = [records(accounted, range(1, 6)), records(accounted, range(6, 11))]
        for part in (parts[0], parts[0], parts[1]):
            await receiver.tell_lines(accounted, part)
        wanted = [(accounted.data["id"], number) for number in range(1, 11)]
        assert list(dict.fromkeys(await ground.lines_taken(10))) == wanted
