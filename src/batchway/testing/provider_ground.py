"""What the provider suite stands on: the provider on trial, and how the suite's jobs are made, watched and read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any

import msgspec

from batchway.core.jobs import JobSpec, Look, Route, Span
from batchway.core.spans import Line
from batchway.providers.protocol import Account, Answer, Provider, Source
from batchway.wire.lines import input_line

DAY = 86400
ASKED_AT_MOST = 60  # looks at a job whose provider's time is moved on between them


def chat(number: int) -> dict[str, Any]:
    """The body of a line, without its model."""
    return {"messages": [{"role": "user", "content": f"say {number} ö 漢"}], "max_tokens": 20}


async def _as_it_is(job: JobSpec, data: bytes) -> JobSpec:
    del data
    return job


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A provider on trial.

    `passes(seconds)` lets the provider's time go by. `disturb(spec)` replaces what goes wrong there, as `--fail` of the
    simulators does: `"line=0.5"`, `"429=1"`, `"500=1"`, `"accept_then_500=1"`, `"fail_batch=1"`, `"expire=1"`, `""`.
    `puzzled` is the account behind something that answers a look with a status nobody knows. `store` puts a job where
    this provider reads it from, when that is not the source it is given.
    """

    account: Account
    denied: Account
    model: str
    passes: Callable[[float], Awaitable[None]]
    disturb: Callable[[str], Awaitable[None]]
    puzzled: Account | None = None
    endpoint: str = "/v1/chat/completions"
    body: Callable[[int], Mapping[str, Any]] = chat
    store: Callable[[JobSpec, bytes], Awaitable[JobSpec]] = _as_it_is
    sources: dict[str, Source] = field(default_factory=dict)  # what opens the lines of each job of the suite, by its id

    @property
    def provider(self) -> Provider:
        """The lane on trial."""
        return lane(self.account)


async def planned(ground: Ground, names: Iterable[str], **extra: Any) -> tuple[JobSpec, Source]:
    """A job of one line a name, whose lines ask for an alias of the model; and what opens them."""
    lines: list[bytes] = []
    for name in names:
        # The question follows from the name, so that equal names ask the same.
        body = {**ground.body(sum(name.encode())), "model": f"{ground.account.name}/{ground.model}", **_padding(extra)}
        line = {"custom_id": name, "method": "POST", "url": ground.endpoint, "body": body}
        lines.append(json.dumps(line, ensure_ascii=False).encode())
    data = b"".join(line + b"\n" for line in lines)
    job = JobSpec(
        id=f"job_{new_word()}",
        batch_id=f"batch_{new_word()}",
        token=new_word(),
        route=Route(account=ground.account.name, model=ground.model),
        endpoint=ground.endpoint,
        span=Span(file_key="files/f", start=0, end=len(data), first_line=1, models=frozenset()),
        lines=len(lines),
        bytes=len(data),
        window=DAY,
        deadline=4e9,
        submitted_at=0.0,
    )

    async def windows() -> AsyncIterator[list[Line]]:
        for start in range(0, len(lines), 50):
            yield [
                Line(start + number, input_line.decode(raw), raw)
                for number, raw in enumerate(lines[start : start + 50], 1)
            ]

    ground.sources[job.id] = windows
    return await ground.store(job, data), windows


async def started(ground: Ground, names: Iterable[str]) -> JobSpec:
    """A job that runs at the provider."""
    job, source = await planned(ground, names)
    return msgspec.structs.replace(job, remote_id=await ground.provider.submit(job, source))


async def looks(ground: Ground, job: JobSpec, step: float = 100.0) -> AsyncIterator[Look]:
    """Looks at a job until it has ended, `step` seconds of the provider's time apart."""
    look = None
    for _ in range(ASKED_AT_MOST):
        look = await ground.provider.look(job)
        assert look.remote_id == job.remote_id
        yield look
        if look.outcome is not None:
            return
        await ground.passes(step)
    raise AssertionError(f"the job has not ended: {look}")


async def ended(ground: Ground, job: JobSpec, step: float = 1000.0) -> Look:
    """The look that sees the job's end."""
    *_, last = [look async for look in looks(ground, job, step)]
    return last


async def answers(ground: Ground, job: JobSpec, look: Look) -> list[Answer]:
    """All answers at once: for small jobs."""
    windows = ground.provider.answers(job, look, ground.sources[job.id])
    return [answer async for window in windows for answer in window]


def lane(account: Account) -> Provider:
    """The native lane."""
    assert account.native is not None, f"{account.name} has no native lane"
    return account.native


def numbered(size: int) -> list[str]:
    """Custom ids."""
    return [f"line-{number}" for number in range(size)]


def _padding(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {"user": extra["pad"]} if "pad" in extra else {}


def told(found: list[Answer]) -> dict[str, Any]:
    """What each line was told, without what differs from call to call."""
    texts: dict[str, Any] = {}
    for answer in found:
        body = json.loads(answer.line)["response"]["body"]
        texts[answer.custom_id] = body.get("choices") or body.get("output") or body.get("data")
    return texts


_numbers: Iterator[int] = count(1)


def new_word() -> str:
    """A word that nothing else is called by."""
    return f"{next(_numbers)}{token_hex(12)}"
