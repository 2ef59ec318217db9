"""`batchway run` and `batchway submit`: a file becomes a batch; `run` stays and writes the answers."""

from __future__ import annotations

from typing import Any

import click

from batchway.cli import outputs
from batchway.cli.follow import conclude, follow, outcome
from batchway.cli.inputs import lines_of
from batchway.cli.options import (
    amounts_option,
    batch_options,
    in_process,
    json_option,
    pairs,
    shape,
    source_options,
    watch_command_of,
    with_client,
)
from batchway.cli.screen import emit, note
from batchway.sdk.client import Client
from batchway.sdk.run import Run


@click.command("run")
@source_options
@click.option("-o", "--output", metavar="OUT", help="Where the answers go; without it, JSON lines on stdout.")
@amounts_option
@batch_options
@json_option
@with_client
def run_command(client: Client, *, source: str, output: str | None, amounts: bool, as_json: bool, **given: Any) -> int:
    """Send a file as a batch, wait, and write the answers.

    IN is a file of request lines (JSONL, or `-` for stdin), or a CSV or Parquet file with --prompt and --model. OUT is
    JSONL, CSV or Parquet by its suffix; a table holds the columns of the input, `answer`, `error`, the tokens and the
    amount. Every line of the input is there, in its order.

    Interrupting leaves the batch running and tells how to follow it.
    """
    if as_json and output is None:
        raise click.UsageError("--json needs --output: stdout holds either the answers or the summary.")
    outputs.check(output)
    job = submit(client, source, **given)
    batch = follow(client, job.batch, watch_command_of(job.batch_id), quiet=as_json)
    if batch.status != "failed":
        outputs.write(job, batch.endpoint, source, output, amounts=amounts)
    if as_json:
        emit({**batch.to_dict(), "output": output})
    else:
        conclude(batch)
    return outcome(batch)


@click.command("submit")
@source_options
@batch_options
@json_option
@with_client
def submit_command(client: Client, *, source: str, as_json: bool, **given: Any) -> int:
    """Send a file as a batch and print its id.

    The options are those of `batchway run`; `batchway watch ID` follows the batch.
    """
    batch = submit(client, source, **given).batch
    if as_json:
        emit(batch.to_dict())
    else:
        print(batch.id)
        if in_process(client):
            note("No gateway is serving here: it goes on while `batchway serve` or `batchway watch` runs.")
    return 0


def submit(
    client: Client, source: str, *, window: str, metadata: tuple[str, ...], provider: str | None, **rest: Any
) -> Run:
    """Uploads the lines and makes the batch of them."""
    wanted = shape(rest)
    return client.run(
        lines_of(source, wanted),
        model=wanted.model,
        endpoint=wanted.endpoint,
        completion_window=window,
        metadata=pairs(metadata) or None,
        custom_llm_provider=provider,
    )
