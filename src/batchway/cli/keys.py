"""`batchway keys`: the virtual keys of a gateway; an admin key is needed."""

from __future__ import annotations

import time

import click

from batchway.cli.options import json_option, with_client
from batchway.cli.screen import duration, emit, note, table
from batchway.sdk.client import Client


@click.group("keys")
def keys_command() -> None:
    """Create, list and delete the keys of the gateway."""


@keys_command.command("create")
@click.argument("name", metavar="NAME")
@click.option("--project", default="default", show_default=True, help="The project that owns what the key makes.")
@json_option
@with_client
def create_key(client: Client, *, name: str, project: str, as_json: bool) -> int:
    """Create a key and print it, this once."""
    made = client.create_key(name=name, project=project)
    if as_json:
        emit(made.to_dict())
    else:
        print(made.key)
        note(f"{made.id}: keep it, it is not shown again.")
    return 0


@keys_command.command("list")
@json_option
@with_client
def list_keys(client: Client, *, as_json: bool) -> int:
    """List the live keys, without their secrets."""
    page = client.list_keys()
    if as_json:
        emit(page.to_dict())
        return 0
    now = time.time()
    rows = [(key.id, key.name, key.project, duration(now - key.created_at)) for key in page.data]
    table(("id", "name", "project", "age"), rows)
    return 0


@keys_command.command("delete")
@click.argument("key_id", metavar="ID")
@json_option
@with_client
def delete_key(client: Client, *, key_id: str, as_json: bool) -> int:
    """Delete a key: it lets nobody in any more."""
    gone = client.delete_key(key_id=key_id)
    if as_json:
        emit(gone.to_dict())
    else:
        print(f"{gone.id} deleted")
    return 0
