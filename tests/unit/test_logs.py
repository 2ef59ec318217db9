"""Lines of the log: one an event, with the ids of their scope, without line breaks, secrets and strangers' words."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import warnings
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchway import logs
from batchway.core.errors import BatchwayError

log = logging.getLogger("batchway.test")
foreign = logging.getLogger("somebody.else")


@contextmanager
def written(form="json", level="debug", **options):
    """The stream that the log goes to."""
    root, ours = logging.getLogger(), logging.getLogger("batchway")
    before = list(root.handlers), root.level, ours.level
    stream = io.StringIO()
    logs.setup(form, level, stream=stream, **options)
    try:
        yield stream
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], (root.level, ours.level) = before[0], before[1:]
        logging.getLogger().manager._clear_cache()


def told(stream) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_line_carries_the_ids_of_its_own_task_and_of_no_other():
    async def work(batch_id):
        logs.note(batch_id=batch_id)
        for number in range(3):
            await asyncio.sleep(0)
            with logs.within(job_id=f"job_{batch_id}_{number}"):
                await asyncio.sleep(0)
                log.info("at work")
        log.info("done")

    with written() as stream:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(work(f"batch_{number}"))
        log.info("outside")
    lines = told(stream)
    assert len(lines) == 41
    assert all(line["job_id"].startswith(f"job_{line['batch_id']}_") for line in lines if line["message"] == "at work")
    assert [line.get("batch_id") for line in lines if line["message"] == "outside"] == [None]
    assert not [line for line in lines if line["message"] == "done" and "job_id" in line]


def test_what_was_noted_inside_a_block_ends_with_it():
    with written() as stream:
        with logs.within(request_id="r"):
            logs.note(key_id="key_1")
            log.info("inside")
        log.info("after")
    inside, after = told(stream)
    assert (inside["request_id"], inside["key_id"]) == ("r", "key_1")
    assert not {"request_id", "key_id"} & set(after)


@pytest.mark.parametrize("form", ["text", "json"])
@given(text=st.text(max_size=60))
@example("a\nb\r\nERROR forged\x1b[2J\u2028\u2029\x85\x00")
def test_one_event_is_one_line_whatever_a_client_sent(form, text):
    with written(form) as stream, logs.within(request_id=text):
        log.error("path %s", text, extra={"fields": {"path": text}})
    lines = stream.getvalue()
    assert lines.endswith("\n")
    assert len(lines.splitlines()) == 1
    assert lines[:-1].isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in lines[:-1])
    if form == "json":
        assert json.loads(lines)["path"] == text or "***" in lines


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("message", "secret"),
    [
        ("key sk-bw-abcDEF123_-x is wrong", "abcDEF123"),
        ("Authorization: Bearer eyJhbGciOi.J9x", "eyJhbGciOi"),
        ("authorization=basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("webhook whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqr"),
        ("stored sealed:v1:AbCdEf0123==", "AbCdEf0123"),
        ("upstream sk-proj-0123456789abcdef", "0123456789abcdef"),
        ("at postgresql://batchway:hunter22@db:5432/x", "hunter22"),
        ("the master key is correct-horse", "correct-horse"),
    ],
)
def test_what_looks_like_a_secret_is_never_written(form, message, secret):
    with written(form, secrets=("correct-horse", None)) as stream, logs.within(request_id="r"):
        log.error(message, extra={"fields": {"again": message}}, exc_info=BatchwayError(message))
    assert "***" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_what_is_no_secret_stays():
    with written("text") as stream:
        log.info("POST http://127.0.0.1:4000/v1/files task-123456789 for disk-full basic")
    assert "POST http://127.0.0.1:4000/v1/files task-123456789 for disk-full basic" in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_told_by_type_and_place_and_by_its_words_only_where_they_are_ours(form):
    def fail():
        try:
            int("the prompt was: private")
        except ValueError as error:
            raise BatchwayError("the file is gone") from error

    with written(form) as stream:
        try:
            fail()
        except BatchwayError:
            log.exception("it failed")
        log.error("disk", exc_info=OSError(28, "No space left on device", "/private/path"))
        log.error("many", exc_info=ExceptionGroup("private", [KeyError("private"), BatchwayError("known")]))
    text = stream.getvalue()
    assert len(text.splitlines()) == 3
    assert "private" not in text
    for words in ("BatchwayError", "the file is gone", "ValueError", "test_logs.py", " fail", "No space left", "known"):
        assert words in text
    if form == "json":
        error = told(stream)[0]["error"]
        assert (error["type"], error["message"], error["cause"]["type"]) == (
            "BatchwayError",
            "the file is gone",
            "ValueError",
        )


def test_others_are_heard_from_warnings_on_and_only_their_first_line():
    with written() as stream:
        foreign.info("headers: secret")
        foreign.debug("body: secret")
        foreign.warning("it broke\nbody: secret")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("deprecated\nwith secret", DeprecationWarning, stacklevel=1)
        log.debug("ours")
    lines = told(stream)
    assert [line["logger"] for line in lines] == ["somebody.else", "py.warnings", "batchway.test"]
    assert "secret" not in stream.getvalue()


async def test_what_nobody_caught_in_a_loop_is_told_without_its_values():
    asyncio.get_running_loop().set_exception_handler(logs.of_loop)

    async def broken():
        raise ValueError("private")

    with written() as stream:
        task = asyncio.create_task(broken())
        await asyncio.wait([task])
        del task
        asyncio.get_running_loop().call_soon(lambda: {}["private"])
        await asyncio.sleep(0)
    assert "private" not in stream.getvalue()
    assert {line["error"]["type"] for line in told(stream)} == {"ValueError", "KeyError"}


def test_setting_it_up_again_writes_no_line_twice():
    with written() as stream:
        logs.setup("text", "info", stream=stream)
        log.info("once")
        log.debug("not at this level")
    assert len(stream.getvalue().splitlines()) == 1
