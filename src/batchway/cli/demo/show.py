"""What the demo puts on the screen: a live bar where a person looks, plain lines in a pipe, one object with `--json`.

With `--json` stdout holds that object and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Report = Callable[[int, int, int], None]
"""Told of a batch's counts: lines in all, answered, failed."""


class Screen:
    """The demo's output; every method is silent with `as_json` but `summary` and `error`."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(quiet=as_json, highlight=False)

    def say(self, text: str) -> None:
        self._console.print(escape(text), soft_wrap=True)

    def loud(self, text: str) -> None:
        self._console.print(f"[bold red]{escape(text)}[/]", soft_wrap=True)

    def error(self, text: str) -> None:
        Console(stderr=True, highlight=False).print(escape(text), soft_wrap=True)

    @contextmanager
    def progress(self, label: str) -> Generator[Report]:
        """Shows a batch's counts while the block runs; what is said meanwhile appears above the bar."""
        if not self._console.is_terminal or self._as_json:
            yield self._plain_progress(label)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, TimeElapsedColumn(), console=self._console) as bars:
            bar = bars.add_task(label, total=None, note="")

            def report(total: int, completed: int, failed: int) -> None:
                note = f"[red]{failed} failed[/]" if failed else ""
                bars.update(bar, total=total or None, completed=completed + failed, note=note)

            yield report

    def _plain_progress(self, label: str) -> Report:
        shown = -1

        def report(total: int, completed: int, failed: int) -> None:
            nonlocal shown
            tenth = 10 * (completed + failed) // total if total else 0
            if tenth > shown:
                shown = tenth
                self.say(f"  {label}: {completed + failed}/{total} lines, {failed} failed")

        return report

    def answers(self, samples: list[dict[str, Any]]) -> None:
        """A table of some answers: what was asked, what came back, tokens in and out."""
        table = Table(title="Some of the answers (real ones; a model this small is often wrong)", title_justify="left")
        table.add_column("line", no_wrap=True)
        table.add_column("asked", ratio=5)
        table.add_column("answered", ratio=5)
        table.add_column("tokens", justify="right", no_wrap=True)
        for sample in samples:
            tokens = f"{sample['input_tokens']} + {sample['output_tokens']}"
            table.add_row(sample["custom_id"], escape(sample["asked"]), escape(sample["answered"]), tokens)
        self._console.print(table)

    def summary(self, summary: dict[str, Any]) -> None:
        """The figures at the end: one to a line, or the JSON object."""
        if self._as_json:
            print(json.dumps(summary, indent=2, ensure_ascii=False))
            return
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in _figures(summary):
            table.add_row(f"[bold]{name}[/]", escape(value))
        self._console.print(table)


def _figures(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "lines", f"{summary['lines']}: {summary['answered']} answered, {summary['failed']} failed"
    yield "in the files", summary["files_hold"]
    yield "JSON answers", f"{summary['json_valid']} of {summary['json_asked']} are the JSON that was asked for"
    yield "embeddings", f"{summary['embeddings']} vectors of {summary['embedding_size']} numbers"
    yield "tokens", f"{summary['input_tokens']} in, {summary['output_tokens']} out"
    amount = summary["amount_usd"]
    yield "amount", f"${amount}" if amount is not None else "unknown (no price is configured for this model)"
    if summary["killed_pid"]:
        yield "killed", f"process {summary['killed_pid']} at {summary['seen_before_kill']} lines"
        yield "came back", f"in {summary['restart_seconds']} s, with {summary['safe_after_kill']} lines safe"
    else:
        yield "killed", "no: the batch ended before its turn came"
    yield "repeated", f"{summary['requests_repeated']} of the {summary['requests_begun']} requests that the model saw"
    yield "time", f"{summary['seconds']} s"
    yield "kept in", summary["folder"] or "nothing was kept (--keep leaves the files)"
