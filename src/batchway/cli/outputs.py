"""What `run` writes: the gateway's lines as JSONL, or CSV or Parquet with the input's columns and the answers beside them.

The gateway's output and error files are each in input order, so reading the two beside the input gives every line its
place with one line of each in memory. A file is written beside its place and moved there when it is whole.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

import msgspec

from batchway.cli import inputs
from batchway.cli.failures import CommandError, Exit
from batchway.sdk.client import Client
from batchway.sdk.objects import Batch
from batchway.sdk.results import Result

ROWS = 1_000  # written to Parquet at a time


class Named(msgspec.Struct, gc=False):
    """A line's custom_id; the rest is skipped."""

    custom_id: str


class Answer(NamedTuple):
    """One output or error line, undecoded."""

    custom_id: str
    line: str


_named = msgspec.json.Decoder(Named)


def check(output: str | None) -> None:
    """Wrong use when OUT could not be written later, found before anything is sent."""
    if output is None:
        return
    path = Path(output)
    if inputs.format_of(path) == "parquet":
        inputs.parquet()
    if not os.access(path.parent, os.W_OK):
        raise CommandError(f"{path}: the folder {path.parent} is not there, or cannot be written to.")


def write(client: Client, batch: Batch, source: Path, output: str | None) -> None:
    """Writes every line of an ended batch in input order; `source` is the file the user gave, or its JSONL."""
    tabular = inputs.format_of(source) != "jsonl"
    ids = map(inputs.row_id, range(1, sys.maxsize)) if tabular else ids_of(source)
    if output is None:
        sys.stdout.writelines(answer.line + "\n" for answer in in_order(client, batch, ids, endless=tabular))
        return
    path = Path(output)
    answers = in_order(client, batch, ids, endless=tabular)
    with _beside(path) as partial:
        match inputs.format_of(path):
            case "jsonl":
                with partial.open("w", encoding="utf-8") as file:
                    file.writelines(answer.line + "\n" for answer in answers)
            case "csv":
                with partial.open("w", encoding="utf-8", newline="") as file:
                    _write_csv(file, Joined(source, batch.endpoint), answers)
            case "parquet":
                _write_parquet(partial, Joined(source, batch.endpoint), answers)


@contextmanager
def _beside(path: Path) -> Generator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def ids_of(source: Path) -> Iterator[str]:
    """The custom_ids of a JSONL input, in order."""
    with source.open("rb") as file:
        for line in file:
            if not line.isspace():
                yield _named.decode(line).custom_id


def in_order(client: Client, batch: Batch, ids: Iterable[str], *, endless: bool = False) -> Iterator[Answer]:
    """The lines of both files by the order of `ids`; with `endless`, ids behind the last line are not missed."""
    streams = [_lines(client, batch.output_file_id), _lines(client, batch.error_file_id)]
    heads = [next(stream, None) for stream in streams]
    for custom_id in ids:
        place = next((place for place, head in enumerate(heads) if head and head.custom_id == custom_id), None)
        if place is None:
            if endless or not any(heads):
                break
            raise CommandError(f"{batch.id}: the answer of '{custom_id}' is not at its place.", Exit.REFUSED)
        yield cast("Answer", heads[place])
        heads[place] = next(streams[place], None)
    if any(heads):
        raise CommandError(f"{batch.id}: it holds answers that are not of this input.", Exit.REFUSED)


def _lines(client: Client, file_id: str | None) -> Iterator[Answer]:
    if file_id is None:
        return
    with client.file_content(file_id=file_id) as content:
        for line in content.iter_lines():
            yield Answer(_named.decode(line).custom_id, line)


class Joined:
    """The rows of the input with the columns of the answers; a column that the input has already gets a prefix."""

    def __init__(self, source: Path, endpoint: str) -> None:
        self._source = source
        self._tabular = inputs.format_of(source) != "jsonl"
        self.given = inputs.columns(source) if self._tabular else ["custom_id"]
        self.embeds = endpoint == "/v1/embeddings"
        wanted = ("embedding" if self.embeds else "answer", "error", "input_tokens", "output_tokens", "cost")
        self.added = [f"batchway_{name}" if name in self.given else name for name in wanted]

    def parquet_schema(self) -> Any:
        """The input's own schema; None when it is no Parquet file."""
        if inputs.format_of(self._source) != "parquet":
            return None
        return inputs.parquet().read_schema(self._source)

    def rows(self, answers: Iterator[Answer]) -> Iterator[dict[str, Any]]:
        """One joined row for each answer."""
        if not self._tabular:
            yield from ({"custom_id": answer.custom_id} | self._cells(answer) for answer in answers)
            return
        for row, answer in zip(inputs.rows(self._source), answers, strict=True):
            yield row | self._cells(answer)

    def _cells(self, answer: Answer) -> dict[str, Any]:
        result = Result(msgspec.json.decode(answer.line))
        usage = result.usage.to_dict() if result.usage else {}
        values = (
            result.embedding if self.embeds else result.text,
            str(result.error) if result.error else None,
            usage.get("input_tokens", usage.get("prompt_tokens")),
            usage.get("output_tokens", usage.get("completion_tokens")),
            None if result.cost is None else str(result.cost),
        )
        return dict(zip(self.added, values, strict=True))


def _write_csv(file: TextIO, joined: Joined, answers: Iterator[Answer]) -> None:
    writer = csv.DictWriter(file, [*joined.given, *joined.added])
    writer.writeheader()
    for row in joined.rows(answers):
        if joined.embeds:
            row[joined.added[0]] = json.dumps(row[joined.added[0]])
        writer.writerow(row)


def _write_parquet(path: Path, joined: Joined, answers: Iterator[Answer]) -> None:
    parquet = inputs.parquet()
    arrow = import_module("pyarrow")
    first = arrow.list_(arrow.float32()) if joined.embeds else arrow.string()
    types = (first, arrow.string(), arrow.int64(), arrow.int64(), arrow.string())
    schema = joined.parquet_schema() or arrow.schema([(name, arrow.string()) for name in joined.given])
    for name, kind in zip(joined.added, types, strict=True):
        schema = schema.append(arrow.field(name, kind))
    rows = joined.rows(answers)
    with parquet.ParquetWriter(path, schema) as writer:
        while window := list(islice(rows, ROWS)):
            writer.write_batch(arrow.RecordBatch.from_pylist(window, schema=schema))
