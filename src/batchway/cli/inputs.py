"""What `run`, `submit` and `estimate` send: JSONL as it is, or each row of a CSV or Parquet file as one request line.

A row's custom_id is `row-<n>`, counted from 1, so that answers find their rows again. Files are read row by row: memory
does not grow with the file.
"""

from __future__ import annotations

import csv
import difflib
import io
import string
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

from batchway.cli.failures import CommandError
from batchway.sdk.lines import CHAT, COMPLETIONS, RESPONSES, Lines

Format = Literal["jsonl", "csv", "parquet"]
SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
PARQUET_ROWS = 1_000  # read at a time
LONGEST_CELL = 1 << 27  # characters: the csv module's own limit is a guard of 131,072


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How rows become requests. `body` holds further fields of every request."""

    prompt: str | None = None
    system: str | None = None
    model: str | None = None
    endpoint: str | None = None
    body: dict[str, Any] = field(default_factory=dict[str, Any])


def format_of(path: Path) -> Format:
    """The format that a file's suffix stands for; wrong use for any other suffix."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise CommandError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}.")
    return found


def is_table(given: str) -> bool:
    """Whether IN is a table of rows, not a file of request lines."""
    return given != "-" and format_of(Path(given)) != "jsonl"


def lines_of(given: str, shape: Shape) -> Lines:
    """What the SDK takes for IN: the file itself, stdin for `-`, or a request line for each row of a table."""
    if given != "-" and not Path(given).is_file():
        raise CommandError(f"{given}: there is no such file.")
    if is_table(given):
        return _request_lines(Path(given), shape)
    for name in ("prompt", "system", "body"):
        if getattr(shape, name):
            raise CommandError(f"--{name} is for rows of CSV or Parquet; JSONL lines hold whole requests.")
    # By its number: the file then has no name, such as "<stdin>", that the gateway would refuse.
    return open(sys.stdin.fileno(), "rb", closefd=False) if given == "-" else Path(given)


def _request_lines(path: Path, shape: Shape) -> Iterator[dict[str, Any]]:
    if shape.prompt is None or not shape.model:
        raise CommandError(f"{path}: rows need --prompt 'Classify: {{column}}' and --model.")
    template, endpoint = Template(shape.prompt, columns(path)), shape.endpoint or CHAT
    for number, row in enumerate(rows(path), 1):
        body = {"model": shape.model, **_content(endpoint, template.fill(row), shape.system), **shape.body}
        yield {"custom_id": row_id(number), "method": "POST", "url": endpoint, "body": body}


def row_id(number: int) -> str:
    """The custom_id of a row, counted from 1."""
    return f"row-{number}"


def _content(endpoint: str, text: str, system: str | None) -> dict[str, Any]:
    if endpoint == CHAT:
        before = [{"role": "system", "content": system}] if system else []
        return {"messages": [*before, {"role": "user", "content": text}]}
    if endpoint == RESPONSES:
        return {"input": text} | ({"instructions": system} if system else {})
    if system:
        raise CommandError(f"--system has no place in requests to {endpoint}.")
    return {"prompt": text} if endpoint == COMPLETIONS else {"input": text}


class Template:
    """A prompt with `{column}` places; `{{` and `}}` stand for braces. Wrong use when a place is no column."""

    def __init__(self, text: str, known: list[str]) -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise CommandError(f"--prompt: {error}; a brace of the text itself is written twice.") from None
        self._parts = [(literal, name) for literal, name, _, _ in parts]
        for _, name, spec, conversion in parts:
            if name is None:
                continue
            if name not in known or spec or conversion:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {{{near[0]}}}?" if near else f"columns: {', '.join(known)}"
                raise CommandError(f"--prompt: no column {{{name}}}; {hint}")

    def fill(self, row: dict[str, Any]) -> str:
        """The prompt of one row; an empty cell is an empty text."""
        return "".join(literal + (_text(row[name]) if name is not None else "") for literal, name in self._parts)


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def columns(path: Path) -> list[str]:
    """The names of a table's columns, in order."""
    if format_of(path) == "parquet":
        return list(parquet().ParquetFile(path).schema_arrow.names)
    with _open_text(path) as file:
        return list(_reader(file, path).fieldnames or ())


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a CSV or Parquet file, in order."""
    if format_of(path) == "parquet":
        for batch in parquet().ParquetFile(path).iter_batches(batch_size=PARQUET_ROWS):
            yield from cast("Iterable[dict[str, Any]]", batch.to_pylist())
        return
    with _open_text(path) as file:
        reader = _reader(file, path)
        try:
            for row in reader:
                if len(row) > len(reader.fieldnames or ()):
                    raise CommandError(f"{path}: line {reader.line_num} has more cells than there are columns.")
                yield row
        except (UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{path}: behind line {reader.line_num}: {error}") from None


def _open_text(path: Path) -> io.TextIOWrapper:
    return path.open(encoding="utf-8-sig", newline="")  # Excel writes a byte order mark


def _reader(file: Iterable[str], path: Path) -> csv.DictReader[str]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.DictReader(file)
    try:
        names = list(reader.fieldnames or ())
    except UnicodeDecodeError:
        raise CommandError(f"{path}: is not UTF-8.") from None
    if not names or len(set(names)) < len(names):
        raise CommandError(f"{path}: the first line must name the columns, each once.")
    return reader


def parquet() -> Any:
    """The module `pyarrow.parquet`; wrong use, with the remedy, where pyarrow is not installed."""
    try:
        return import_module("pyarrow.parquet")
    except ImportError:
        raise CommandError("Parquet files need pyarrow: pip install 'batchway[parquet]'.") from None
