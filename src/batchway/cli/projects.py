"""`batchway projects` and `batchway budget`: who owns keys, files and batches together; an admin key is needed."""

from __future__ import annotations

import time
from typing import Any

import click

from batchway.cli.options import json_option, with_client
from batchway.cli.rules import budget, budget_line, budget_option, clear_option, rule_options, shown, taken
from batchway.cli.screen import duration, emit, figures, note, table
from batchway.sdk.client import Client
from batchway.sdk.objects import Project

NAME = click.argument("project", metavar="NAME")


@click.group("projects")
def projects_command() -> None:
    """Create, change and delete the projects of the gateway."""


def project_options(function: Any) -> Any:
    """What a project may be told."""
    for option in (
        rule_options,
        click.option(
            "--redaction",
            type=click.Choice(["none", "hash", "drop"]),
            help="What receivers of line records see of requests and responses.",
        ),
        click.option("--sharing/--no-sharing", default=None, help="Whether its keys see what other keys of it make."),
    ):
        function = option(function)
    return function


@projects_command.command("create")
@NAME
@project_options
@json_option
@with_client
def create_project(client: Client, *, project: str, as_json: bool, **given: Any) -> int:
    """Create a project."""
    return _tell(client.create_project(name=project, **taken(given)), as_json=as_json)


@projects_command.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True, help="Projects on the page.")
@click.option("--after", metavar="NAME", help="Begin behind this project: the next page.")
@json_option
@with_client
def list_projects(client: Client, *, as_json: bool, **given: Any) -> int:
    """List projects, newest first."""
    page = client.list_projects(**given)
    if as_json:
        emit(page.to_dict())
        return 0
    now = time.time()
    rows = [
        (
            one.name,
            "yes" if one.sharing else "no",
            budget_line(one.budget) if one.budget else "",
            duration(now - one.created_at) if one.created_at else "",
        )
        for one in page.data
    ]
    table(("name", "sharing", "budget", "age"), rows)
    if page.has_more:
        note(f"There are more: --after {page.data[-1].id}")
    return 0


@projects_command.command("show")
@NAME
@json_option
@with_client
def show_project(client: Client, *, project: str, as_json: bool) -> int:
    """Show a project, its rules and what is left of its budget."""
    return _tell(client.retrieve_project(project=project), as_json=as_json)


@projects_command.command("update")
@NAME
@project_options
@clear_option("models", "providers", "limits", "budget")
@json_option
@with_client
def update_project(client: Client, *, project: str, as_json: bool, **given: Any) -> int:
    """Change the rules of a project; what is not named stays."""
    return _tell(client.update_project(project=project, **taken(given)), as_json=as_json)


@projects_command.command("delete")
@NAME
@json_option
@with_client
def delete_project(client: Client, *, project: str, as_json: bool) -> int:
    """Delete a project that has neither keys nor live batches."""
    gone = client.delete_project(project=project)
    if as_json:
        emit(gone.to_dict())
    else:
        print(f"{gone.id} deleted")
    return 0


@click.command("budget")
@budget_option
@click.option("--clear", is_flag=True, help="Take the budget away.")
@json_option
@with_client
def budget_command(client: Client, *, clear: bool, as_json: bool, **given: str | None) -> int:
    """Show, set or take away the budget of the whole gateway."""
    text = given["budget"]
    if text is not None and clear:
        raise click.UsageError("Give either --budget or --clear.")
    if text is None and not clear:
        found = client.retrieve_budget()
    else:
        found = client.set_budget(None if text is None else budget(text))
    if as_json:
        emit(found.to_dict())
    else:
        print("The gateway has no budget." if found.budget is None else budget_line(found.budget))
    return 0


def _tell(project: Project, *, as_json: bool) -> int:
    if as_json:
        emit(project.to_dict())
        return 0
    figures(
        [
            ("name", project.name),
            ("sharing", "yes" if project.sharing else "no"),
            ("redaction", project.redaction),
            *shown(project),
        ]
    )
    return 0
