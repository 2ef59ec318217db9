"""What `run` writes: the gateway's lines as JSONL, or the input's columns and the answers as CSV or Parquet.

Results are written as they come, so memory does not grow with the file; a file is written beside its place and moved
there when it is whole.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TextIO

from batchway.cli import inputs
from batchway.cli.failures import CommandError
from batchway.sdk.lines import EMBEDDINGS
from batchway.sdk.results import Result

ROWS = 1_000  # written to Parquet at a time


def check(output: str | None) -> None:
    """Wrong use when OUT could not be written later, found before anything is sent."""
    if output is None:
        return
    path = Path(output)
    if inputs.format_of(path) == "parquet":
        inputs.parquet()
    if not os.access(path.parent, os.W_OK):
        raise CommandError(f"{path}: the folder {path.parent} is not there, or cannot be written to.")


def write(results: Iterable[Result], endpoint: str, source: str, output: str | None, *, amounts: bool = True) -> None:
    """Writes the results; `source` is IN as the user gave it. Those of a table's rows come in input order.

    `amounts` adds what each line cost: a column `amount_usd`, or a field of that name.
    """
    if output is None:
        sys.stdout.writelines(_line(result, amounts=amounts) for result in results)
        return
    path = Path(output)
    with _beside(path) as partial:
        match inputs.format_of(path):
            case "jsonl":
                with partial.open("w", encoding="utf-8") as file:
                    file.writelines(_line(result, amounts=amounts) for result in results)
            case "csv":
                with partial.open("w", encoding="utf-8", newline="") as file:
                    _write_csv(file, Joined(source, endpoint, amounts=amounts), results)
            case "parquet":
                _write_parquet(partial, Joined(source, endpoint, amounts=amounts), results)


def _line(result: Result, *, amounts: bool) -> str:
    """OpenAI's line, maybe with its amount; the cursor is a place in the gateway's stream and no use in a file."""
    left_out = {"cursor"} if amounts else {"cursor", "amount_usd"}
    return Result({name: value for name, value in result.line.items() if name not in left_out}).to_json() + "\n"


@contextmanager
def _beside(path: Path) -> Generator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Joined:
    """The columns of the input with those of the answers; a column that the input has already gets a prefix."""

    def __init__(self, source: str, endpoint: str, *, amounts: bool = True) -> None:
        self._table = Path(source) if inputs.is_table(source) else None
        self.given = inputs.columns(self._table) if self._table else ["custom_id"]
        self.embeds = endpoint == EMBEDDINGS
        wanted = ["embedding" if self.embeds else "answer", "error", "input_tokens", "output_tokens"]
        wanted += ["amount_usd"] if amounts else []
        self.added = [f"batchway_{name}" if name in self.given else name for name in wanted]

    def parquet_schema(self) -> Any:
        """The input's own schema; None when it is no Parquet file."""
        if self._table is None or inputs.format_of(self._table) != "parquet":
            return None
        return inputs.parquet().read_schema(self._table)

    def rows(self, results: Iterable[Result]) -> Iterator[dict[str, Any]]:
        """One joined row for each result."""
        if self._table is None:
            yield from ({"custom_id": result.custom_id} | self._cells(result) for result in results)
            return
        for number, (row, result) in enumerate(zip_longest(inputs.rows(self._table), results), 1):
            if row is None or result is None or result.custom_id != inputs.row_id(number):
                hint = "`batchway results` has the answers"
                raise CommandError(f"{self._table}: it was changed while the batch ran; {hint}.")
            yield row | self._cells(result)

    def _cells(self, result: Result) -> dict[str, Any]:
        usage = result.usage.to_dict() if result.usage else {}
        values = (
            result.embedding if self.embeds else result.text,
            str(result.error) if result.error else None,
            usage.get("input_tokens", usage.get("prompt_tokens")),
            usage.get("output_tokens", usage.get("completion_tokens")),
            result.line.get("amount_usd"),
        )
        return dict(zip(self.added, values, strict=False))  # the amount comes last, and may not be wanted


def _write_csv(file: TextIO, joined: Joined, results: Iterable[Result]) -> None:
    writer = csv.DictWriter(file, [*joined.given, *joined.added])
    writer.writeheader()
    for row in joined.rows(results):
        if joined.embeds:
            row[joined.added[0]] = json.dumps(row[joined.added[0]])
        writer.writerow(row)


def _write_parquet(path: Path, joined: Joined, results: Iterable[Result]) -> None:
    parquet = inputs.parquet()
    arrow = import_module("pyarrow")
    first = arrow.list_(arrow.float32()) if joined.embeds else arrow.string()
    types = (first, arrow.string(), arrow.int64(), arrow.int64(), arrow.string())
    schema = joined.parquet_schema() or arrow.schema([(name, arrow.string()) for name in joined.given])
    for name, kind in zip(joined.added, types, strict=False):
        schema = schema.append(arrow.field(name, kind))
    rows = joined.rows(results)
    with parquet.ParquetWriter(path, schema) as writer:
        while window := list(islice(rows, ROWS)):
            writer.write_batch(arrow.RecordBatch.from_pylist(window, schema=schema))
