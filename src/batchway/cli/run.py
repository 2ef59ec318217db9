"""`batchway run` and `batchway submit`: a file becomes a batch; `run` stays and writes the answers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from batchway.cli import outputs
from batchway.cli.follow import conclude, follow, outcome
from batchway.cli.inputs import Ready, Shape, prepared
from batchway.cli.options import batch_options, json_option, pairs, shape, source_options, watch_command_of, with_client
from batchway.cli.screen import emit
from batchway.sdk.client import Client
from batchway.sdk.errors import APIError, APIStatusError
from batchway.sdk.objects import Batch


@click.command("run")
@source_options
@click.option("-o", "--output", metavar="OUT", help="Where the answers go; without it, JSON lines on stdout.")
@batch_options
@json_option
@with_client
def run_command(client: Client, *, source: str, output: str | None, as_json: bool, **given: Any) -> int:
    """Send a file as a batch, wait, and write the answers.

    IN is a file of request lines (JSONL, or `-` for stdin), or a CSV or Parquet file with --prompt and --model. OUT is
    JSONL, CSV or Parquet by its suffix; a table holds the columns of the input, `answer`, `error` and the tokens. Every
    line of the input is there, in its order.

    Interrupting leaves the batch running and tells how to follow it.
    """
    if as_json and output is None:
        raise click.UsageError("--json needs --output: stdout holds either the answers or the summary.")
    outputs.check(output)
    wanted = shape(given)
    with prepared(source, wanted) as ready:
        batch = create(client, ready, wanted, **given)
        batch = follow(client, batch, watch_command_of(batch.id), quiet=as_json)
        if batch.status != "failed":
            outputs.write(client, batch, ready.path if source == "-" else Path(source), output)
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
    wanted = shape(given)
    with prepared(source, wanted) as ready:
        batch = create(client, ready, wanted, **given)
    if as_json:
        emit(batch.to_dict())
    else:
        print(batch.id)
    return 0


def create(
    client: Client, ready: Ready, wanted: Shape, *, window: str, metadata: tuple[str, ...], provider: str | None
) -> Batch:
    """Uploads the lines and makes the batch of them; an upload that no batch was made of is deleted again."""
    tags = pairs(metadata)
    with ready.path.open("rb") as lines:
        uploaded = client.create_file(file=(ready.filename, lines), purpose="batch")
    try:
        return client.create_batch(
            input_file_id=uploaded.id,
            endpoint=ready.endpoint,
            completion_window=window,
            metadata=tags or None,
            model=wanted.model,
            custom_llm_provider=provider,
        )
    except APIStatusError:
        with suppress(APIError):  # the refusal is what the user must hear of
            client.file_delete(file_id=uploaded.id)
        raise
