"""`batchway receivers`: who is told of events, how far each is, and telling it again; an admin key is needed."""

from __future__ import annotations

import click

from batchway.cli.options import json_option, with_client
from batchway.cli.screen import duration, emit, note, table
from batchway.sdk.client import Client


@click.group("receivers")
def receivers_command() -> None:
    """Show who is told of events, and tell them again."""


@receivers_command.command("list")
@json_option
@with_client
def list_receivers(client: Client, *, as_json: bool) -> int:
    """List the receivers and how far each is behind."""
    page = client.list_receivers()
    if as_json:
        emit(page.to_dict())
        return 0
    rows = [
        (
            one.name,
            str(one.behind),
            duration(one.behind_seconds) if one.behind else "",
            str(one.failures or ""),
            str(one.dead_letters or ""),
            one.last_error or "",
        )
        for one in page.data
    ]
    table(("name", "behind", "since", "failures", "dead letters", "last error"), rows)
    return 0


@receivers_command.command("retry")
@click.argument("name", metavar="NAME")
@json_option
@with_client
def retry_receiver(client: Client, *, name: str, as_json: bool) -> int:
    """Try a failing receiver now, and tell it again of its dead letters."""
    answer = client.retry_receiver(name)
    if as_json:
        emit(answer.to_dict())
    else:
        note(f"{answer.name} is tried now; dead letters told again: {answer.dead_letters}")
    return 0
