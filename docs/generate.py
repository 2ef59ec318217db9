"""Writes the documents that are made from code, or with --check says which of them are stale (exit code 1).

Run by `make docs` and `make check`. A document is one function here that answers its whole text, so what stands in the
file can never be older than the tables it was made from.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cli_page as commands
import events_page as events
import metrics_page as metrics
import parameter_page as parameters

from batchway.core import states

Table = Mapping[states.BatchState, frozenset[states.BatchState]] | Mapping[states.JobState, frozenset[states.JobState]]

DOCS = Path(__file__).resolve().parent
MADE_FROM = "<!-- Made from `src/batchway/{source}` by `make docs`; edit that. -->"


def drawing(table: Table, start: str) -> str:
    """A Mermaid picture of a table of steps."""
    steps = [f"    {old} --> {new}" for old, after in table.items() for new in sorted(after)]
    ends = [f"    {state} --> [*]" for state, after in table.items() if not after]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {start}", *steps, *ends, "```"])


def rows(table: Table) -> str:
    """The same table to read: a state, and what may follow it."""
    lines = [
        f"| `{old}` | {', '.join(f'`{new}`' for new in sorted(after)) or 'final'} |" for old, after in table.items()
    ]
    return "\n".join(["| state | may become |", "|---|---|", *lines])


def states_page() -> str:
    """docs/states.md: what the states mean, and both tables, drawn and written."""
    meaning = inspect.getdoc(states) or ""
    return "\n\n".join([
        "# The life of a batch and of a job",
        MADE_FROM.format(source="core/states.py"),
        meaning.split("\n\n", 1)[1],
        "## Batch",
        drawing(states.BATCH_STEPS, states.BatchState.VALIDATING),
        rows(states.BATCH_STEPS),
        "## Job",
        drawing(states.JOB_STEPS, states.JobState.PLANNED),
        rows(states.JOB_STEPS),
        "An ended job's `outcome` is one of " + ", ".join(f"`{outcome}`" for outcome in states.Outcome) + ".",
    ])  # fmt: skip


def cli_page() -> str:
    """docs/cli.md: every command, as its own `--help` tells it."""
    opening, rest = commands.page().split("\n\n", 1)
    return "\n\n".join([opening, MADE_FROM.format(source="cli/"), rest])


def events_page() -> str:
    """docs/events.md: what is told, in which order, and what it holds."""
    opening, rest = events.page().split("\n\n", 1)
    return "\n\n".join([opening, MADE_FROM.format(source="core/event_data.py"), rest])


def parameters_page() -> str:
    """docs/parameters.md: what becomes of each OpenAI parameter in each dialect."""
    opening, rest = parameters.page().split("\n\n", 1)
    return "\n\n".join([opening, MADE_FROM.format(source="dialects/"), rest])


def metrics_page() -> str:
    """docs/metrics.md: every metric, and every alert with what to do."""
    opening, rest = metrics.page().split("\n\n", 1)
    return "\n\n".join([opening, MADE_FROM.format(source="metrics.py"), rest])


PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "events.md": events_page,
    "events.schema.json": events.schema,
    "metrics.md": metrics_page,
    "parameters.md": parameters_page,
    "states.md": states_page,
}


def main(arguments: list[str]) -> int:
    """The exit code: 1 when --check found a stale page."""
    check = "--check" in arguments
    stale = [name for name, page in PAGES.items() if not is_current(DOCS / name, page())]
    for name in stale:
        if not check:
            (DOCS / name).write_text(PAGES[name]() + "\n")
        print(f"docs/{name}: {'stale, run `make docs`' if check else 'written'}")
    return 1 if check and stale else 0


def is_current(path: Path, text: str) -> bool:
    """Whether the file holds this text."""
    return path.is_file() and path.read_text() == text + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
