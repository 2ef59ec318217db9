"""Options that many commands share: `--json`, where the gateway is, what is sent to it.

A command decorated with `with_client` gets an open `Client` as its first argument. Without `--base-url` (or
BATCHWAY_BASE_URL) that is the gateway inside this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from batchway.cli.inputs import Shape
from batchway.sdk.client import Client
from batchway.sdk.inprocess import InProcess

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, errors too.")
metadata_option = click.option(
    "--metadata", multiple=True, metavar="KEY=VALUE", help="A pair of the batch's metadata; may be repeated."
)
window_option = click.option(
    "--window", default="24h", show_default=True, metavar="TIME", help="When it must have ended: <n>m, <n>h or <n>d."
)
config_option = click.option(
    "--config",
    envvar="BATCHWAY_CONFIG",
    show_envvar=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The settings; without it ./batchway.yaml, where there is one.",
)


amounts_option = click.option(
    "--amounts/--no-amounts", default=True, show_default=True, help="Whether each line tells its amount: `amount_usd`."
)


def nearby() -> Path | None:
    """The settings of the present folder, where there are any."""
    path = Path("batchway.yaml")
    return path if path.is_file() else None


def with_client(function: Callable[..., int]) -> Callable[..., int]:
    """Adds `--base-url` and `--api-key`, and opens the client that they describe."""

    @click.option(
        "--base-url",
        envvar="BATCHWAY_BASE_URL",
        show_envvar=True,
        metavar="URL",
        help="The gateway; without it, the one inside this process.",
    )
    @click.option(
        "--api-key",
        envvar="BATCHWAY_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="The key to come in with; better set the variable, as others can see a command's arguments.",
    )
    @wraps(function)
    def opened(base_url: str | None, api_key: str | None, **given: Any) -> int:
        with Client(base_url=base_url or None, api_key=api_key or None) as client:
            return function(client, **given)

    return opened


def in_process(client: Client) -> bool:
    """Whether the gateway is the one of this process, which ends with the command."""
    return isinstance(client.caller.transport, InProcess)


def watch_command_of(batch_id: str) -> str:
    """The command that follows a batch at the gateway that the present command speaks to."""
    context = click.get_current_context()
    told = context.get_parameter_source("base_url") == ParameterSource.COMMANDLINE
    return f"batchway watch {batch_id}" + (f" --base-url {context.params['base_url']}" if told else "")


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` texts as a dict; wrong use when one is not."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"'{text}' must be written KEY=VALUE.")
        found[key] = value
    return found


def source_options(function: F) -> F:
    """What describes the input: IN itself, and how the rows of a table become requests (see `shape`)."""
    for option in (
        click.option("--body", metavar="JSON", help="Further fields of every row's request, such as max_tokens."),
        click.option(
            "--endpoint", metavar="PATH", help="The endpoint; without it, what the first line names, or chat."
        ),
        click.option("--system", metavar="TEXT", help="The system message of every row's request."),
        click.option("--model", metavar="NAME", help="The model; for JSONL it overrides the lines' own."),
        click.option("--prompt", metavar="TEXT", help="A row's request: 'Classify: {column}'."),
        click.argument("source", metavar="IN"),
    ):
        function = option(function)
    return function


def batch_options(function: F) -> F:
    """What a new batch is told besides its lines."""
    for option in (
        click.option("--provider", metavar="NAME", help="Force a provider on all lines."),
        metadata_option,
        window_option,
    ):
        function = option(function)
    return function


def shape(given: dict[str, Any]) -> Shape:
    """Takes the options of `source_options`, all but IN, out of what a command was given."""
    texts = {name: given.pop(name) for name in ("prompt", "system", "model", "endpoint")}
    body = given.pop("body")
    try:
        fields: object = json.loads(body) if body else {}
    except ValueError as error:
        raise click.UsageError(f"--body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise click.UsageError("--body must be a JSON object.")
    return Shape(**texts, body=cast("dict[str, Any]", fields))
