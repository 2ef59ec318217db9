"""What commands put on the screen. stdout holds data, stderr everything said beside it (progress, notes).

A person's terminal gets tables, bars and colours (NO_COLOR is obeyed by rich); a pipe gets plain lines: a table is one
row a line, parted by tabs. With `--json` stdout holds one JSON document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def emit(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def note(text: str) -> None:
    """One line beside the data, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout: drawn for a person, tab-separated in a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in (columns, *rows):
            print("\t".join(_one_line(cell) for cell in row))
        return
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(column, no_wrap=column == "id")
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row))
    console.print(drawn)


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


def figures(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values on stdout, one pair a line; pairs whose value is None are left out."""
    console = Console(highlight=False, soft_wrap=True)
    known = [(name, str(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        if console.is_terminal:
            console.print(f"[bold]{escape(name.ljust(width))}[/]  {escape(value)}")
        else:
            print(f"{name.ljust(width)}  {value}")


def duration(seconds: float) -> str:
    """A span of time as people say it, in its largest unit: `45 s`, `12 min`, `3 h`, `9 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(int(seconds), 0)} s"


def size(count: int) -> str:
    """Bytes as people say them."""
    amount, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
