"""`batchway keys`: the virtual keys of a gateway; an admin key is needed."""

from __future__ import annotations

import time
from typing import Any

import click

from batchway.cli.options import json_option, with_client
from batchway.cli.rules import clear_option, moment, rule_options, shown, taken
from batchway.cli.screen import duration, emit, figures, note, table
from batchway.sdk.client import Client
from batchway.sdk.objects import Key

ID = click.argument("key_id", metavar="ID")


@click.group("keys")
def keys_command() -> None:
    """Create, change, rotate and delete the keys of the gateway."""


def key_options(function: Any) -> Any:
    """What a key may be told besides the rules that projects have too."""
    for option in (
        click.option("--private/--shared", default=None, help="Whether other keys of the project see what it makes."),
        click.option("--expires", metavar="TIME", help="<n>m, <n>h or <n>d from now, or unix seconds."),
        click.option("--cidr", multiple=True, metavar="NETWORK", help="Only from there, as 10.0.0.0/8; repeatable."),
        click.option(
            "--on-budget", type=click.Choice(["reject", "pause"]), help="A batch over budget is refused, or waits."
        ),
        rule_options,
        click.option(
            "--scope", multiple=True, type=click.Choice(["read", "write", "admin"]), help="What it may do; repeatable."
        ),
    ):
        function = option(function)
    return function


@keys_command.command("create")
@click.argument("name", metavar="NAME")
@click.option("--project", default="default", show_default=True, help="The project that owns what the key makes.")
@key_options
@json_option
@with_client
def create_key(client: Client, *, name: str, project: str, as_json: bool, **given: Any) -> int:
    """Create a key and print it, this once.

    A project that does not exist yet is made with it.
    """
    return _tell_secret(client.create_key(name=name, project=project, **_fields(given)), as_json=as_json)


@keys_command.command("list")
@click.option("--project", metavar="NAME", help="Only keys of this project.")
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True, help="Keys on the page.")
@click.option("--after", metavar="ID", help="Begin behind this key: the next page.")
@json_option
@with_client
def list_keys(client: Client, *, as_json: bool, **given: Any) -> int:
    """List the keys that are not deleted, without their secrets."""
    page = client.list_keys(**given)
    if as_json:
        emit(page.to_dict())
        return 0
    now = time.time()
    rows = [
        (key.id, key.name, key.project, ",".join(key.scopes), _state(key, now), duration(now - key.created_at))
        for key in page.data
    ]
    table(("id", "name", "project", "scopes", "state", "age"), rows)
    if page.has_more:
        note(f"There are more: --after {page.data[-1].id}")
    return 0


@keys_command.command("show")
@ID
@json_option
@with_client
def show_key(client: Client, *, key_id: str, as_json: bool) -> int:
    """Show a key, its rules and what is left of its budget."""
    return _tell(client.retrieve_key(key_id=key_id), as_json=as_json)


@keys_command.command("update")
@ID
@click.option("--name", metavar="TEXT", help="What people know it by.")
@key_options
@clear_option("models", "providers", "cidrs", "limits", "budget", "expires_at")
@json_option
@with_client
def update_key(client: Client, *, key_id: str, as_json: bool, **given: Any) -> int:
    """Change the rules of a key; what is not named stays."""
    return _tell(client.update_key(key_id=key_id, **_fields(given)), as_json=as_json)


@keys_command.command("rotate")
@ID
@click.option(
    "--grace", type=click.IntRange(0, 30 * 86400), default=3600, show_default=True, metavar="SECONDS",
    help="How long the old secret still lets in.",
)  # fmt: skip
@json_option
@with_client
def rotate_key(client: Client, *, key_id: str, grace: int, as_json: bool) -> int:
    """Give a key a new secret and print it, this once."""
    return _tell_secret(client.rotate_key(key_id=key_id, grace_seconds=grace), as_json=as_json)


@keys_command.command("disable")
@ID
@json_option
@with_client
def disable_key(client: Client, *, key_id: str, as_json: bool) -> int:
    """Let a key in no more until it is enabled."""
    return _tell(client.update_key(key_id=key_id, disabled=True), as_json=as_json)


@keys_command.command("enable")
@ID
@json_option
@with_client
def enable_key(client: Client, *, key_id: str, as_json: bool) -> int:
    """Let a disabled key in again."""
    return _tell(client.update_key(key_id=key_id, disabled=False), as_json=as_json)


@keys_command.command("delete")
@ID
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


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    expires = given.pop("expires")
    fields = taken(given)
    return fields if expires is None else {**fields, "expires_at": moment(expires)}


def _tell_secret(made: Key, *, as_json: bool) -> int:
    if as_json:
        emit(made.to_dict())
    else:
        print(made.key)
        note(f"{made.id}: keep it, it is not shown again.")
    return 0


def _tell(key: Key, *, as_json: bool) -> int:
    if as_json:
        emit(key.to_dict())
        return 0
    figures(
        [
            ("id", key.id),
            ("name", key.name),
            ("project", key.project),
            ("scopes", ", ".join(key.scopes)),
            ("state", _state(key, time.time())),
            ("private", "yes" if key.private else None),
            ("networks", ", ".join(key.cidrs or ()) or None),
            *shown(key),
            ("over budget", "its batches wait" if key.on_budget == "pause" else None),
        ]
    )
    return 0


def _state(key: Key, now: float) -> str:
    if key.disabled:
        return "disabled"
    if key.expires_at is None:
        return "on"
    return "expired" if key.expires_at <= now else f"on for {duration(key.expires_at - now)}"
