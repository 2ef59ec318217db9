"""Following a batch to its end: a live bar on stderr where a person looks, a plain line for each tenth in a pipe.

A gateway that is away for a while (a restart) is waited for; the batch is the gateway's, so nothing is lost by asking
again. Interrupting the command leaves the batch alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Thread

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from batchway.cli.failures import CommandError, Exit
from batchway.cli.options import in_process
from batchway.cli.screen import note
from batchway.sdk.client import Client
from batchway.sdk.errors import APIError
from batchway.sdk.objects import Batch, StreamEvent
from batchway.sdk.run import ENDED

SHORTEST, LONGEST = 0.25, 3.0  # seconds between two looks; they grow from one to the other
PATIENT = 10  # retries of a look: a gateway that restarts takes its time

Report = Callable[[Batch], None]


def follow(client: Client, batch: Batch, hint: str, *, quiet: bool) -> Batch:
    """The batch after its end. `hint` is the command that follows it again; `quiet` keeps a pipe free of lines."""
    try:
        with _progress(quiet=quiet) as report:
            return _wait(client, batch, report)
    except KeyboardInterrupt:
        how = "goes on while a gateway runs" if in_process(client) else "goes on"
        message = f"Interrupted. Batch {batch.id} {how}; follow it with: {hint}"
        raise CommandError(message, Exit.INTERRUPTED, code="interrupted") from None


def _wait(client: Client, batch: Batch, report: Report) -> Batch:
    """Told by the gateway's stream of events; when that breaks off, by looking and listening again."""
    pause = SHORTEST
    report(batch)
    while batch.status not in ENDED:
        for event in _heard(client, batch.id):
            if event.status is not None and event.request_counts is not None:
                batch.status, batch.request_counts = event.status, event.request_counts
                report(batch)
                pause = SHORTEST
        if batch.status not in ENDED:
            time.sleep(pause)
            pause = min(pause * 1.2, LONGEST)
        batch = client.retrieve_batch(batch.id, max_retries=PATIENT)
        report(batch)
    return batch


def _heard(client: Client, batch_id: str) -> Iterator[StreamEvent]:
    """The progress in a batch's events, until they end or break off: read in a thread, so that Ctrl-C ends the wait."""
    heard: SimpleQueue[StreamEvent | None] = SimpleQueue()

    def listen() -> None:
        with suppress(APIError):
            for event in client.batch_events(batch_id, max_retries=0):
                if event.type == "batch":
                    heard.put(event)
        heard.put(None)

    Thread(target=listen, name="events", daemon=True).start()
    return iter(heard.get, None)


@contextmanager
def _progress(*, quiet: bool) -> Generator[Report]:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield (lambda _: None) if quiet else _plain()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        bar = bars.add_task("", total=None, failed="")

        def report(batch: Batch) -> None:
            counts = batch.request_counts
            bars.update(
                bar,
                description=batch.status,
                total=counts.total or None,
                completed=counts.completed + counts.failed,
                failed=f"[red]{counts.failed} failed[/]" if counts.failed else "",
            )

        yield report


def _plain() -> Report:
    shown: tuple[str, int] = ("", -1)

    def report(batch: Batch) -> None:
        nonlocal shown
        counts = batch.request_counts
        done = counts.completed + counts.failed
        now = (batch.status, 10 * done // counts.total if counts.total else 0)
        if now != shown:
            shown = now
            note(f"{batch.id}: {batch.status}, {done}/{counts.total} lines, {counts.failed} failed")

    return report


def outcome(batch: Batch) -> Exit:
    """The exit code that an ended batch stands for."""
    if batch.status == "failed":
        return Exit.REFUSED
    counts = batch.request_counts
    whole = batch.status == "completed" and counts.failed == 0
    return Exit.DONE if whole else Exit.SOME_FAILED


def conclude(batch: Batch) -> None:
    """Tells on stderr how an ended batch ended: counts, tokens and amount, or why its input was refused."""
    counts = batch.request_counts
    told = [f"{batch.status}: {counts.total} lines, {counts.completed} answered, {counts.failed} failed"]
    if batch.usage:
        told.append(f"{batch.usage.input_tokens} + {batch.usage.output_tokens} tokens")
    note(f"{batch.id} {'; '.join([*told, amount(batch)])}")
    for fault in batch.errors.data if batch.errors else ():
        note(f"  line {fault.line}: {fault.message}" if fault.line else f"  {fault.message}")


def amount(batch: Batch) -> str:
    """What the batch has cost so far in US dollars; in a word where that is not known."""
    own = batch.batchway
    if own is None:
        return "-"
    return own.amount_status if own.amount_usd is None else f"${own.amount_usd}"
