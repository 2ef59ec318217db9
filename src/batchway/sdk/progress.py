"""How far a batch is, on the standard error: a bar where a person looks, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from batchway.sdk.objects import Batch

Report = Callable[[Batch], object]


@contextmanager
def reporting(progress: bool | Report) -> Generator[Report]:  # noqa: FBT001 - the user's own word
    """What is called with the batch at every look."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _plain_lines()


@contextmanager
def _bar() -> Generator[Report]:
    from rich.console import Console  # noqa: PLC0415 - only where a bar is shown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("batch", total=None)

        def report(batch: Batch) -> None:
            counts = batch.request_counts
            failed = f", {counts.failed} failed" if counts.failed else ""
            shown.update(
                task,
                description=f"{batch.status}{failed}",
                total=counts.total or None,
                completed=counts.completed + counts.failed,
            )

        yield report


def _plain_lines() -> Report:
    """A line at each new status and each further twentieth."""
    told: tuple[str, int] | None = None

    def report(batch: Batch) -> None:
        nonlocal told
        counts = batch.request_counts
        done = counts.completed + counts.failed
        now = (batch.status, done * 20 // counts.total if counts.total else 0)
        if now != told:
            told = now
            line = f"{batch.id}: {batch.status}, {done} of {counts.total} lines, {counts.failed} failed"
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - what `progress=True` asks for

    return report
