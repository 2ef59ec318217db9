"""What the receiver suite stands on: the receiver on trial with its peer, and samples of everything that is told."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import count
from secrets import token_hex
from typing import Any, Literal

import msgspec

from batchway.core.events import CALL_TYPES, Event, EventType
from batchway.core.states import BatchState
from batchway.core.usage import Usage
from batchway.integrations.protocol import LineRecord, Receiver

Trouble = Literal["", "away", "busy", "refuses", "hangs"]

CANARY = "canary-4f1d-in-the-data"  # stands in metadata and bodies: no error may show it
RETRY_AFTER = 7.0  # seconds, what a busy peer asks for

_positions = count(1)


class ReceiverGround(ABC):
    """A receiver on trial and the peer that it tells.

    `secrets` are the words that it knows and no error may show: tokens, passwords, keys within URLs. `patience` is how
    long (seconds) one `tell` of it may take at most when the peer hangs.
    """

    receiver: Receiver
    secrets: Sequence[str] = ()
    patience: float = 30.0

    @abstractmethod
    async def taken(self, wanted: int) -> list[str]:
        """The ids of the events that the peer has, in the order it took them, repeats too.

        Waits until there are `wanted` of them where telling does not wait for the peer; answers what there is then.
        """

    @abstractmethod
    async def disturb(self, how: Trouble) -> None:
        """What the peer does from now on, until the next word.

        "": works. "away": cannot be reached. "busy": refuses for now, and asks for RETRY_AFTER seconds where its
        protocol can. "refuses": will never take this. "hangs": takes the connection and answers nothing.
        """

    @abstractmethod
    async def reopened(self) -> Receiver:
        """A second receiver of the same name and options over the same peer, as a new process would open it."""

    def tells(self, event: Event) -> bool:
        """Whether the peer is shown this event at all: a receiver may be for the ends of batches only."""
        del event
        return True

    async def lines_taken(self, wanted: int) -> list[tuple[str, int]]:
        """(job id, line number) of the line records that the peer has, as in `taken`; for receivers that take lines."""
        del wanted
        return []


def event(kind: EventType, subject: str | None = None, **changes: Any) -> Event:
    """A sample of this type, with the next position."""
    subject = subject or f"batch_{token_hex(8)}"
    data = _SAMPLES[kind.partition(".")[0]](kind, subject) | changes
    if kind in CALL_TYPES:
        data["call_type"] = CALL_TYPES[kind]
    return Event(
        id=f"evt_{token_hex(16)}",
        type=kind,
        subject=subject,
        project="default",
        key_id="key_1",
        created_at=time.time(),
        position=next(_positions),
        data=data,
    )


def ends(number: int, subject: str | None = None) -> list[Event]:
    """That many ends of batches, which every receiver is told of: each of a batch of its own, or all of `subject`."""
    return [event(EventType.BATCH_COMPLETED, subject) for _ in range(number)]


def of_every_type() -> list[Event]:
    """One event of each type."""
    return [event(kind) for kind in EventType]


def records(of: Event, numbers: Iterable[int]) -> list[LineRecord]:
    """Line records of the job that this `job.accounted` event is about; every third line failed."""
    return [
        LineRecord(
            batch_id=of.subject,
            job_id=of.data["id"],
            number=number,
            custom_id=f"line-{number}",
            project=of.project,
            key_id=of.key_id,
            provider="main",
            model="gpt-4o-mini",
            ok=number % 3 != 0,
            status=200 if number % 3 else 500,
            usage=Usage(input_tokens=10, output_tokens=5) if number % 3 else Usage(),
            amount=1_500_000 if number % 3 else None,
            request=msgspec.Raw(
                b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%b"}]}' % CANARY.encode()
            ),
            response=msgspec.Raw(b'{"id":"chatcmpl-1","choices":[]}') if number % 3 else None,
            ended_at=of.created_at,
        )
        for number in numbers
    ]


def _amounts(*, known: bool) -> dict[str, Any]:
    if not known:
        return {"usage": None, "amount": None, "amount_usd": None, "amount_status": "pending"}
    usage = msgspec.to_builtins(Usage(input_tokens=100, cached_tokens=10, output_tokens=50, reasoning_tokens=5))
    return {"usage": usage, "amount": 123_000_000, "amount_usd": "0.000123", "amount_status": "final"}


def _batch(kind: EventType, subject: str) -> dict[str, Any]:
    word = kind.partition(".")[2]
    status = word if word in set(BatchState) else "validating"
    ended = status in ("completed", "failed", "expired", "cancelled")
    now = time.time()
    return {
        "id": subject,
        "project": "default",
        "key_id": "key_1",
        "endpoint": "/v1/chat/completions",
        "status": status,
        "metadata": {"team": CANARY},
        "model": None,
        "provider": None,
        "models": ["gpt-4o-mini"],
        "providers": ["main"],
        "input_file_id": "file-1",
        "output_file_id": "file-2" if ended else None,
        "error_file_id": None,
        "total": 12,
        "completed": 12 if status == "completed" else 0,
        "failed": 0,
        **_amounts(known=ended),
        "errors": [{"code": "bad", "message": "Line 3 is bad.", "line": 3}] if status == "failed" else None,
        "times": {"created": now - 60, "in_progress": now - 50, **({status: now} if ended else {})},
        "queued_seconds": 10.0,
        "running_seconds": 50.0 if ended else None,
        "total_seconds": 60.0 if ended else None,
        "pause": {"reason": "budget", "message": "over budget"} if status == "paused" else None,
        "retry_of": None,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


def _job(kind: EventType, subject: str) -> dict[str, Any]:
    ended = kind is not EventType.JOB_SUBMITTED
    now = time.time()
    times = {"planned": now - 60, "submitting": now - 59, "running": now - 58}
    if ended:
        times |= {"ended": now - 2, "collected": now - 1}
    if kind is EventType.JOB_ACCOUNTED:
        times["accounted"] = now
    return {
        "id": f"job_{token_hex(8)}",
        "batch_id": subject,
        "provider": "main",
        "model": "gpt-4o-mini",
        "lane": "native",
        "endpoint": "/v1/chat/completions",
        "status": max(times, key=lambda state: times[state]),
        "outcome": "succeeded" if ended else None,
        "code": None,
        "remote_id": "batch_remote",
        "metadata": {"team": CANARY},
        "first_line": 1,
        "lines": 12,
        "completed": 12 if ended else 0,
        "failed": 0,
        **_amounts(known=kind is EventType.JOB_ACCOUNTED),
        "times": times,
        "queued_seconds": 2.0,
        "running_seconds": 56.0 if ended else None,
        "total_seconds": 60.0 if kind is EventType.JOB_ACCOUNTED else None,
        "traceparent": None,
    }


def _file(kind: EventType, subject: str) -> dict[str, Any]:
    own = {"id": subject, "project": "default", "key_id": "key_1", "purpose": "batch", "filename": "in.jsonl"}
    return {**own, "bytes": 1000, "sha256": "0" * 64, "lines": 12, "fault_count": 0, "models": {}}


def _correction(kind: EventType, subject: str) -> dict[str, Any]:
    told = {"batch_id": subject, "kind": "refund", "reference": "credit-1", "note": "credited", "amount": -5}
    return {**told, "amount_usd": "-0.000000000005", "corrections_usd": "-0.000000000005"}


def _budget(kind: EventType, subject: str) -> dict[str, Any]:
    owner = {"owner": "project:default", "percent": 80, "period": "month", "starts_at": 1.79e9}
    return {**owner, "amount": 10**12, "held": 3 * 10**11, "settled": 5 * 10**11, "remainder": 2 * 10**11}


def _key(kind: EventType, subject: str) -> dict[str, Any]:
    return {"id": "key_2", "project": "default", "name": "nightly", "changed": ["models"]}


def _project(kind: EventType, subject: str) -> dict[str, Any]:
    return {"name": "default", "changed": ["limits"]}


_SAMPLES = {
    "file": _file,
    "batch": _batch,
    "job": _job,
    "cost": _correction,
    "budget": _budget,
    "key": _key,
    "project": _project,
}
