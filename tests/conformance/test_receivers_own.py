"""The receivers of this process: your own Python code, and the standard output."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from batchway.core.events import Event, EventType
from batchway.integrations import python, stdout
from batchway.integrations.protocol import ReceiverError
from batchway.integrations.python.callbacks import arguments
from batchway.integrations.python.receiver import hook_of, named
from batchway.testing.receiver_ground import RETRY_AFTER, ReceiverGround, Trouble, ends, event
from batchway.testing.receiver_suite import ReceiverSuite

# A hook that is asked by its trouble ----------------------------------------------------------------------------------

LETTER = "a-secret-of-the-hook"


class Mood:
    """What the hooks of a test do, and have heard."""

    trouble: Trouble = ""
    heard: list[str]

    def __init__(self) -> None:
        self.heard = []
        self.released = threading.Event()

    def be(self, trouble: Trouble) -> None:
        self.released.set()  # whoever hangs is let go
        self.released = threading.Event()
        self.trouble = trouble

    def take(self, event: Event) -> None:
        if self.trouble == "away":
            raise ConnectionError(f"{LETTER}: {event.data}")
        if self.trouble == "busy":
            raise ReceiverError("busy", retry_after=RETRY_AFTER)
        if self.trouble == "refuses":
            raise ReceiverError("never", permanent=True)
        self.heard.append(event.id)


MOOD = Mood()


class Plain:
    def on_event(self, event: Event) -> None:
        if MOOD.trouble == "hangs":
            MOOD.released.wait(30)
            return
        MOOD.take(event)


class Async:
    async def on_event(self, event: Event) -> None:
        if MOOD.trouble == "hangs":
            await asyncio.Event().wait()
        MOOD.take(event)


def function(event: Event) -> None:
    Plain().on_event(event)


class HookGround(ReceiverGround):
    secrets = (LETTER,)

    def __init__(self, name: str) -> None:
        MOOD.__init__()
        self.path = f"tests.conformance.test_receivers_own:{name}"
        self.receiver = self.open()

    def open(self):
        return python.open_receiver("hook", python.Options(path=self.path), SimpleNamespace())

    async def taken(self, wanted: int) -> list[str]:
        return MOOD.heard

    async def disturb(self, how: Trouble) -> None:
        MOOD.be(how)

    async def reopened(self):
        return self.open()


class TestPython(ReceiverSuite):
    @pytest.fixture(params=["Plain", "Async", "function"])
    async def ground(self, request):
        # The module that the receiver imports is the one whose MOOD it hears.
        sys.modules["tests.conformance.test_receivers_own"] = sys.modules[__name__]
        made = HookGround(request.param)
        yield made
        MOOD.be("")
        await made.receiver.close()


# The standard output --------------------------------------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """A pipe whose reader is moody."""

    def __init__(self) -> None:
        self.mood = Mood()
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.mood.trouble == "away":
            raise BrokenPipeError(LETTER)
        if self.mood.trouble == "hangs":
            self.mood.released.wait(30)
            return len(data)
        self.data += bytes(data)
        return len(data)


class StdoutGround(ReceiverGround):
    secrets = (LETTER,)

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.receiver = self.open()

    def open(self):
        return stdout.open_receiver("out", stdout.Options(lines=True), SimpleNamespace())

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.pipe.data.splitlines()]

    async def taken(self, wanted: int) -> list[str]:
        return [one["id"] for one in self.objects if one["type"] != "line"]

    async def lines_taken(self, wanted: int) -> list[tuple[str, int]]:
        return [(one["job_id"], one["number"]) for one in self.objects if one["type"] == "line"]

    async def disturb(self, how: Trouble) -> None:
        self.pipe.mood.be(how)

    async def reopened(self):
        return self.open()


class TestStdout(ReceiverSuite):
    gaps = dict.fromkeys(
        (
            "test_a_busy_peer_is_told_later",
            "test_a_busy_peer_is_given_the_time_it_asks_for",
            "test_what_the_peer_will_never_take_is_permanent",
        ),
        "a pipe is full, closed or fine: it knows no busy and refuses nothing",
    )

    @pytest.fixture
    async def ground(self, monkeypatch):
        pipe = Pipe()
        monkeypatch.setattr(stdout, "sys", SimpleNamespace(stdout=SimpleNamespace(buffer=pipe)))
        made = StdoutGround(pipe)
        yield made
        pipe.mood.be("")
        await made.receiver.close()

    @pytest.mark.parametrize("how", ["away"])
    async def test_errors_show_no_secret_and_no_data(self, ground, how) -> None:
        await super().test_errors_show_no_secret_and_no_data(ground, how)


# Hooks ----------------------------------------------------------------------------------------------------------------


async def test_a_hook_that_blocks_its_thread_does_not_block_the_loop() -> None:
    began, release = threading.Event(), threading.Event()

    class Blocking:
        def on_event(self, event: Event) -> None:
            began.set()
            release.wait(30)

    receiver = python.receiver.Python("blocking", Blocking())
    telling = asyncio.create_task(receiver.tell(ends(1)))
    assert await asyncio.to_thread(began.wait, 10)
    assert not telling.done()
    started = time.perf_counter()
    await asyncio.sleep(0)
    assert time.perf_counter() - started < 5
    release.set()
    await telling
    await receiver.close()


async def test_what_a_hook_raises_is_told_by_its_kind_and_place_only(caplog) -> None:
    class Broken:
        def on_event(self, event: Event) -> None:
            raise KeyError(f"{LETTER} {event.data}")

    receiver = python.receiver.Python("broken", Broken())
    with pytest.raises(ReceiverError, match="its code raised KeyError") as caught:
        await receiver.tell(ends(1))
    assert not caught.value.permanent
    assert Path(__file__).name in caplog.text
    assert LETTER not in caplog.text
    await receiver.close()


@pytest.mark.parametrize("path", ["nothing", "no.such.module:Hook", "json:Nothing", ":", "json:"])
def test_a_path_that_leads_nowhere_is_told_before_anything_starts(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        named(path)


def test_something_that_cannot_be_called_is_no_hook() -> None:
    with pytest.raises(ValueError, match="on_event"):
        hook_of(SimpleNamespace)
    assert named("json.dumps") is named("json:dumps") is json.dumps


# LiteLLM's callbacks --------------------------------------------------------------------------------------------------


class CustomLogger:
    """The base class of theirs: every method is there and does nothing."""

    def log_success_event(self, kwargs, response_obj, start_time, end_time): ...
    def log_failure_event(self, kwargs, response_obj, start_time, end_time): ...
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time): ...
    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time): ...


def logger(*methods: str, also: type = CustomLogger) -> Any:
    calls: list[tuple[str, dict, Any]] = []

    def method(name: str):
        def plain(self, kwargs, response_obj, start_time, end_time):
            assert start_time <= end_time
            calls.append((name, kwargs, response_obj))

        async def later(self, kwargs, response_obj, start_time, end_time):
            plain(self, kwargs, response_obj, start_time, end_time)

        return later if name.startswith("async") else plain

    made = type("Mine", (also,), {name: method(name) for name in methods})()
    made.calls = calls
    return made


async def heard(hook: Any, *events: Event) -> list[str]:
    receiver = python.receiver.Python("theirs", hook)
    await receiver.tell(events)
    await receiver.close()
    return [name for name, _, _ in hook.calls]


@pytest.mark.parametrize(
    ("methods", "called"),
    [
        (("async_log_success_event",), ["async_log_success_event"] * 2),
        (("log_success_event",), ["log_success_event"] * 2),
        (("log_success_event", "async_log_success_event"), ["async_log_success_event"] * 2),  # never both
        (("async_log_failure_event",), ["async_log_failure_event"] * 3),
        (("log_failure_event",), ["log_failure_event"] * 3),
    ],
)
@pytest.mark.parametrize("also", [CustomLogger, object])
async def test_the_method_that_somebody_wrote_is_called_for_the_events_it_is_for(methods, called, also) -> None:
    kinds = "created in_progress completed failed expired cancelled".split()
    events = [event(EventType(f"batch.{kind}")) for kind in kinds] + [event(EventType.JOB_ACCOUNTED)]
    assert await heard(logger(*methods, also=also), *events) == called


async def test_on_event_and_their_methods_are_both_called() -> None:
    hook = logger("async_log_success_event")
    every = []
    hook.on_event = every.append
    events = [event(EventType.BATCH_CREATED), event(EventType.JOB_ENDED)]
    assert await heard(hook, *events) == ["async_log_success_event"]
    assert every == events


def test_their_usual_keys_are_there() -> None:
    told = event(EventType.BATCH_COMPLETED)
    kwargs, response, start, end = arguments(told)
    payload = kwargs["standard_logging_object"]
    assert kwargs["call_type"] == payload["call_type"] == "batch_success"
    assert kwargs["response_cost"] == payload["response_cost"] == pytest.approx(0.000123)
    assert kwargs["model"] == payload["model"] == "gpt-4o-mini"
    assert kwargs["litellm_params"]["metadata"]["team"]
    assert payload["metadata"]["user_api_key_team_id"] == "default"
    assert (payload["status"], payload["id"], payload["custom_llm_provider"]) == ("success", told.id, "main")
    assert (payload["prompt_tokens"], payload["completion_tokens"], payload["total_tokens"]) == (100, 50, 150)
    assert response.id == response["id"] == told.subject
    assert response.usage.total_tokens == response["usage"]["total_tokens"] == 150
    assert (end - start).total_seconds() == pytest.approx(payload["response_time"]) == pytest.approx(60, abs=5)


def test_an_unknown_amount_is_none_and_a_failure_says_so() -> None:
    unknown = {"amount": None, "amount_usd": None, "amount_status": "unknown"}
    kwargs, *_ = arguments(event(EventType.BATCH_EXPIRED, **unknown))
    payload = kwargs["standard_logging_object"]
    assert kwargs["response_cost"] is None
    assert (payload["status"], payload["error_str"], payload["call_type"]) == (
        "failure", "the batch ended as expired", "batch_failure",
    )  # fmt: skip
    created, *_ = arguments(event(EventType.BATCH_CREATED))
    assert created["call_type"] == "acreate_batch"


def test_an_event_of_another_version_is_refused_for_good() -> None:
    with pytest.raises(ReceiverError) as caught:
        arguments(msgspec.structs.replace(event(EventType.BATCH_CREATED), data={"project": "p"}))
    assert caught.value.permanent
