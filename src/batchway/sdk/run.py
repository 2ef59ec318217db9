"""A whole job: lines in, results out. Submitting, waiting and reading are written once, for both flavours.

Results come in input order after the end, or as lines finish; a stream that breaks off goes on where it stopped. A
batch is left running when its follower is interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Unpack

from batchway.sdk import calls
from batchway.sdk.call import KEY_HEADER, Call, Options
from batchway.sdk.caller import Caller
from batchway.sdk.errors import APIConnectionError, BatchFailedError
from batchway.sdk.lines import Input, Lines, prepared
from batchway.sdk.objects import Batch
from batchway.sdk.progress import reporting
from batchway.sdk.results import Result
from batchway.sdk.transport import play, play_all

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
FIRST_LOOK, LONGEST_LOOK, PACE = 0.25, 10.0, 0.05
PATIENT = 10  # retries of a look: a gateway that restarts takes its time

Progress = bool | Callable[[Batch], object]
Order = Literal["finished", "input"]

log = logging.getLogger("batchway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job as data: checked, its lines readable, nothing sent."""

    input: Input
    model: str | None
    completion_window: str
    metadata: Mapping[str, str] | None
    ordered: bool
    progress: Progress
    poll: float | None
    options: Options

    @property
    def base_url(self) -> str | None:
        """The gateway that the caller named."""
        return self.options.get("base_url") or self.options.get("api_base")


def submission(  # noqa: PLR0913 - public API
    source: Lines,
    *,
    model: str | None = None,
    endpoint: str | None = None,
    completion_window: str = "24h",
    metadata: Mapping[str, str] | None = None,
    ordered: bool = True,
    progress: Progress = False,
    poll: float | None = None,
    **options: Unpack[Options],
) -> Submission:
    """Submits lines as a batch, waits for its end and streams the results.

    Iterate over what is returned; a result has `custom_id`, `text`, `embedding`, `body`, `usage`, `cost`, `error`.
    The batch is submitted when this returns (its `batch_id` says which one); the waiting is in the iteration.

    Args:
        source: A path or binary file of JSONL, or prompts, bodies or whole lines (those have a `custom_id`).
        model: For lines that name none; overrides the models of a file.
        endpoint: The first line's by default, else `/v1/chat/completions`.
        completion_window: `24h`, or any `<n>m`, `<n>h`, `<n>d`.
        metadata: At most 16 pairs of texts.
        ordered: In input order after the end; False for each line as it finishes.
        progress: True shows it on the standard error; a function is called with the batch at every look.
        poll: Seconds between two looks; by default they grow from 0.25 to 10.
        options: See `Options`.
    """
    made = Submission(
        input=prepared(source, model, endpoint),
        model=model,
        completion_window=completion_window,
        metadata=metadata,
        ordered=ordered,
        progress=progress,
        poll=poll,
        options=options,
    )
    _create(made, "file-unknown")  # its arguments are checked before anything is sent
    return made


async def submitted(caller: Caller, job: Submission) -> Followed:
    """Uploads the lines and creates the batch."""
    file = await caller.perform(calls.create_file(job.input.source, "batch", **_for_upload(job.options)))
    return Followed(caller, job, await caller.perform(_create(job, file.id)))


def _create(job: Submission, file_id: str) -> Call[Batch]:
    return calls.create_batch(
        job.completion_window, job.input.endpoint, file_id, metadata=job.metadata, model=job.model, **job.options
    )


def _for_upload(options: Options) -> Options:
    """The options without what is meant for the batch; an Idempotency-Key names one thing, so the file gets its own."""
    headers = {name.lower(): value for name, value in (options.get("extra_headers") or {}).items()}
    if key := headers.get(KEY_HEADER):
        headers[KEY_HEADER] = f"{key}-file"
    return {**options, "extra_body": None, "extra_headers": headers}


def _for_looks(options: Options) -> Options:
    retries = options.get("max_retries")
    return {
        **options,
        "extra_body": None,
        "custom_llm_provider": None,
        "max_retries": PATIENT if retries is None else retries,
    }


class Followed:
    """A submitted batch; `batch` is how it was at the last look."""

    def __init__(self, caller: Caller, job: Submission, batch: Batch) -> None:
        self._caller = caller
        self._job = job
        self._looks = _for_looks(job.options)
        self.batch = batch

    async def wait(self) -> Batch:
        """The batch after its end."""
        with _left_running(self.batch.id):
            await self._wait()
        return self.batch

    async def results(self) -> AsyncGenerator[Result]:
        """Every line once; BatchFailedError when the input was refused."""
        found = self._in_order() if self._job.ordered else self._as_they_finish()
        with _left_running(self.batch.id):
            async for result in found:
                yield result

    async def _wait(self) -> None:
        with reporting(self._job.progress) as report:
            async for _ in self._looking(report):
                pass

    async def _looking(self, report: Callable[[Batch], object]) -> AsyncGenerator[None]:
        """Yields after every look, the last one after the end."""
        waited = 0.0
        while True:
            self.batch = await self._caller.perform(calls.retrieve_batch(self.batch.id, **self._looks))
            report(self.batch)
            yield
            if self.batch.status in ENDED:
                return
            wait = self._job.poll or min(LONGEST_LOOK, max(FIRST_LOOK, PACE * waited))
            waited += wait
            await self._caller.sleep(wait)

    async def _as_they_finish(self) -> AsyncGenerator[Result]:
        cursor: str | None = None
        with reporting(self._job.progress) as report:
            async for _ in self._looking(report):
                async for result in self._finished(cursor):
                    cursor = result.cursor
                    yield result
        self._refuse_failed()

    async def _finished(self, after: str | None, order: Order | None = None) -> AsyncGenerator[Result]:
        """What has finished so far; a stream that breaks off goes on where it stopped."""
        breaks = 0
        while True:
            try:
                asked = calls.batch_results(self.batch.id, after, order=order, **self._looks)
                async for line in self._caller.lines(asked):
                    result = Result(line)
                    after, breaks = result.cursor, 0
                    yield result
                return
            except APIConnectionError:
                breaks += 1
                if breaks > PATIENT:
                    raise
            await self._caller.sleep(FIRST_LOOK * breaks)

    async def _in_order(self) -> AsyncGenerator[Result]:
        await self._wait()
        self._refuse_failed()
        async for result in self._finished(None, "input"):
            yield result

    def _refuse_failed(self) -> None:
        if self.batch.status == "failed":
            raise BatchFailedError(self.batch)


@contextmanager
def _left_running(batch_id: str) -> Generator[None]:
    """Tells whoever interrupts the waiting (Ctrl-C, a cancelled task) that the batch goes on."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception | GeneratorExit):
            log.warning("Batch %s was not cancelled. To follow it: batchway watch %s", batch_id, batch_id)
        raise


class Run:
    """A submitted job: iterate for its results, each time anew from the first."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    @property
    def batch(self) -> Batch:
        """The batch as it was at the last look."""
        return self._followed.batch

    @property
    def batch_id(self) -> str:
        """Its id."""
        return self.batch.id

    def wait(self) -> Batch:
        """Waits for the end and returns the batch."""
        return play(self._followed.wait())

    def __iter__(self) -> Generator[Result]:
        return play_all(self._followed.results())

    def __repr__(self) -> str:
        return f"Run(batch_id={self.batch_id!r}, status={self.batch.status!r})"


class AsyncRun:
    """A submitted job: `async for` gives its results, each time anew from the first."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    @property
    def batch(self) -> Batch:
        """The batch as it was at the last look."""
        return self._followed.batch

    @property
    def batch_id(self) -> str:
        """Its id."""
        return self.batch.id

    async def wait(self) -> Batch:
        """Waits for the end and returns the batch."""
        return await self._followed.wait()

    def __aiter__(self) -> AsyncGenerator[Result]:
        return self._followed.results()

    def __repr__(self) -> str:
        return f"AsyncRun(batch_id={self.batch_id!r}, status={self.batch.status!r})"
