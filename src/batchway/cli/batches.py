"""Commands over batches that are there: watch, results, cancel, retry, list, get, adopt."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from batchway.cli import outputs
from batchway.cli.follow import amount, conclude, follow, outcome
from batchway.cli.options import amounts_option, json_option, metadata_option, pairs, watch_command_of, with_client
from batchway.cli.screen import duration, emit, figures, note, table
from batchway.sdk.client import Client
from batchway.sdk.objects import Batch
from batchway.sdk.results import Result
from batchway.sdk.run import ENDED

TABLES = (".csv", ".parquet")
STATUSES = (
    "validating", "paused", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled",
)  # fmt: skip


@click.command("watch")
@click.argument("batch_id", metavar="ID")
@json_option
@with_client
def watch_command(client: Client, *, batch_id: str, as_json: bool) -> int:
    """Follow a batch until it ends.

    Interrupting leaves the batch running. The exit code tells how it ended.
    """
    batch = client.retrieve_batch(batch_id=batch_id)
    batch = follow(client, batch, watch_command_of(batch_id), quiet=as_json)
    if as_json:
        emit(batch.to_dict())
    else:
        conclude(batch)
    return outcome(batch)


@click.command("results")
@click.argument("batch_id", metavar="ID")
@click.option("-o", "--output", metavar="OUT", help="A file for the lines: JSONL, or a table by its suffix (.csv).")
@click.option("--after", metavar="CURSOR", help="Only lines behind this one; each line has its `cursor`.")
@click.option("--status", type=click.Choice(["completed", "failed"]), help="Only answered, or only failed lines.")
@click.option("--order", type=click.Choice(["finished", "input"]), help="input: as sent; of an ended batch.")
@amounts_option
@json_option
@with_client
def results_command(
    client: Client, *, batch_id: str, output: str | None, amounts: bool, as_json: bool, **given: Any
) -> int:
    """Fetch the lines of a batch that are there.

    One JSON line each, in the order they finished unless --order says otherwise, also while the batch runs. With --json
    and no OUT they are one JSON list; with OUT, --json tells how many lines were written.
    """
    found = (_told(result, amounts=amounts) for result in client.batch_results(batch_id, **given))
    if output is not None:
        count = _write(client, batch_id, found, output, amounts=amounts)
        if as_json:
            emit({"batch_id": batch_id, "lines": count, "output": output})
        else:
            note(f"{count} lines of {batch_id} are in {output}")
    elif as_json:
        sys.stdout.writelines(_as_list(result.to_json() for result in found))
    else:
        sys.stdout.writelines(result.to_json() + "\n" for result in found)
    return 0


def _told(result: Result, *, amounts: bool) -> Result:
    return result if amounts else Result({name: value for name, value in result.line.items() if name != "amount_usd"})


def _write(client: Client, batch_id: str, results: Iterator[Result], output: str, *, amounts: bool) -> int:
    """How many lines are now in the file: rows of a table where its suffix says so, else JSONL with the cursors."""
    count = 0

    def counted() -> Iterator[Result]:
        nonlocal count
        for result in results:
            count += 1
            yield result

    if Path(output).suffix.lower() in TABLES:
        endpoint = client.retrieve_batch(batch_id=batch_id).endpoint
        outputs.write(counted(), endpoint, "-", output, amounts=amounts)
        return count
    with Path(output).open("w", encoding="utf-8") as file:
        file.writelines(result.to_json() + "\n" for result in counted())
    return count


def _as_list(lines: Iterator[str]) -> Iterator[str]:
    """The pieces of one JSON list; none before the first line is there, so that a refusal stands alone."""
    first = next(lines, None)
    yield '{"object": "list", "data": ['
    if first is not None:
        yield first
        yield from (",\n" + line for line in lines)
    yield "]}\n"


@click.command("cancel")
@click.argument("batch_id", metavar="ID")
@json_option
@with_client
def cancel_command(client: Client, *, batch_id: str, as_json: bool) -> int:
    """End a batch early; what is answered stays.

    A batch that is cancelled already stays as it is; one that ended otherwise is refused.
    """
    batch = client.cancel_batch(batch_id=batch_id)
    return _show_short(batch, as_json=as_json)


@click.command("resume")
@click.argument("batch_id", metavar="ID")
@json_option
@with_client
def resume_command(client: Client, *, batch_id: str, as_json: bool) -> int:
    """Let a paused batch go on.

    It does so by itself when its budget has room for it; without that room it is refused.
    """
    return _show_short(client.resume_batch(batch_id=batch_id), as_json=as_json)


@click.command("retry")
@click.argument("batch_id", metavar="ID")
@json_option
@with_client
def retry_command(client: Client, *, batch_id: str, as_json: bool) -> int:
    """Make a new batch of the lines that failed or expired.

    Prints the id of the new batch.
    """
    return _show_id(client.retry_batch(batch_id=batch_id), as_json=as_json)


@click.command("adopt")
@click.argument("provider", metavar="PROVIDER")
@click.argument("remote_id", metavar="REMOTE_ID")
@metadata_option
@json_option
@with_client
def adopt_command(client: Client, *, provider: str, remote_id: str, metadata: tuple[str, ...], as_json: bool) -> int:
    """Take in a batch that was made at a provider.

    PROVIDER is an account or a kind, REMOTE_ID the id that the provider gave the batch. Prints the id it has here.
    """
    batch = client.adopt_batch(provider, remote_id, metadata=pairs(metadata) or None)
    return _show_id(batch, as_json=as_json)


@click.command("get")
@click.argument("batch_id", metavar="ID")
@json_option
@with_client
def get_command(client: Client, *, batch_id: str, as_json: bool) -> int:
    """Show one batch: its counts, jobs and amount."""
    batch = client.retrieve_batch(batch_id=batch_id)
    if as_json:
        emit(batch.to_dict())
        return 0
    figures(_details(batch))
    jobs = batch.batchway.jobs if batch.batchway else []
    if jobs:
        print()
        columns = ("job", "provider", "model", "lane", "status", "lines", "remote id")
        table(columns, [
            (job.id, job.provider, job.model, job.lane, job.outcome or job.status,
             f"{job.request_counts.completed + job.request_counts.failed}/{job.request_counts.total}",
             job.remote_id or "-")
            for job in jobs
        ])  # fmt: skip
    for fault in batch.errors.data if batch.errors else ():
        print(f"line {fault.line}: {fault.message}" if fault.line else fault.message)
    return 0


def _details(batch: Batch) -> Iterator[tuple[str, object]]:
    counts, usage = batch.request_counts, batch.usage
    yield "id", batch.id
    yield "status", batch.status
    pause = batch.batchway.pause if batch.batchway else None
    yield "paused", pause.message if pause else None
    yield "endpoint", batch.endpoint
    yield "model", batch.model
    yield "lines", f"{counts.total}: {counts.completed} answered, {counts.failed} failed"
    yield "tokens", f"{usage.input_tokens} in, {usage.output_tokens} out" if usage else None
    yield "amount", amount(batch)
    yield "created", _moment(batch.created_at)
    yield "window", batch.completion_window
    end = batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at
    yield "ended", _moment(end) if end else None
    expected = batch.batchway.estimated_end if batch.batchway else None
    yield "expected", _moment(expected) if expected and batch.status not in ENDED else None
    yield "input file", batch.input_file_id
    yield "output file", batch.output_file_id
    yield "error file", batch.error_file_id
    yield "metadata", json.dumps(batch.metadata, ensure_ascii=False) if batch.metadata else None


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _unix_seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """A time given as unix seconds, or as a date and time of this machine's zone unless it names another."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise click.BadParameter("write 2026-01-31, 2026-01-31T09:00, or unix seconds.") from None


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only batches in this status.")
@click.option("--model", metavar="NAME", help="Only batches of this model.")
@click.option("--provider", "custom_llm_provider", metavar="NAME", help="Only batches at this provider.")
@metadata_option
@click.option(
    "--created-after", metavar="TIME", callback=_unix_seconds, help="A date, a date and time, or unix seconds."
)
@click.option("--created-before", metavar="TIME", callback=_unix_seconds, help="As --created-after.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Batches on the page.")
@click.option("--after", metavar="ID", help="Begin behind this batch: the next page.")
@click.option("--order", type=click.Choice(["asc", "desc"]), help="asc: oldest first.")
@json_option
@with_client
def list_command(client: Client, *, as_json: bool, metadata: tuple[str, ...], **given: Any) -> int:
    """List batches, newest first.

    With --metadata only batches that have this pair.
    """
    page = client.list_batches(metadata=pairs(metadata) or None, **given)
    if as_json:
        emit(page.to_dict())
        return 0
    now = time.time()
    columns = ("id", "status", "lines", "answered", "failed", "age", "amount")
    table(columns, [_row(batch, now) for batch in page.data])
    if page.has_more:
        note(f"There are more: --after {page.data[-1].id}")
    return 0


def _row(batch: Batch, now: float) -> tuple[str, ...]:
    counts = batch.request_counts
    lines = (str(counts.total), str(counts.completed), str(counts.failed))
    return (batch.id, batch.status, *lines, duration(now - batch.created_at), amount(batch))


def _show_id(batch: Batch, *, as_json: bool) -> int:
    if as_json:
        emit(batch.to_dict())
    else:
        print(batch.id)
    return 0


def _show_short(batch: Batch, *, as_json: bool) -> int:
    if as_json:
        emit(batch.to_dict())
    else:
        print(f"{batch.id} {batch.status}")
    return 0
