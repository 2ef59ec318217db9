"""`batchway simulate`: a provider's API imitated over real HTTP, for tests and for trying things out.

Simulators are found by folder: a provider that has one keeps it in its `simulator.py`, with a `main(arguments)` of its
own options. No provider is named here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

import click

from batchway.cli.screen import emit
from batchway.providers.registry import FOLDER


@click.command(
    "simulate",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
    options_metavar="",
)
@click.argument("name", metavar="[NAME]", required=False)
@click.argument("arguments", metavar="[OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def simulate_command(context: click.Context, name: str | None, arguments: tuple[str, ...]) -> int:
    """Run a simulator of a provider's API.

    Without NAME it lists the simulators there are (with --json as JSON). What follows NAME goes to the simulator;
    `batchway simulate NAME --help` tells its options, which are at least --port N (0 takes a free one) and
    --print-config, which prints the provider entry that points a gateway at it.
    """
    known = simulators()
    if name in ("-h", "--help"):
        click.echo(context.get_help())
        return 0
    if name is None or name == "--json":
        if name:
            emit({"object": "list", "data": known})
        else:
            print("\n".join(known))
        return 0
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise click.UsageError(
            f"No simulator '{name}'; " + (f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}.")
        )
    return _play(name, arguments)


def simulators() -> list[str]:
    """The names of the providers that bring a simulator."""
    return sorted(path.parent.name for path in FOLDER.glob("*/simulator.py"))


def _play(name: str, arguments: Sequence[str]) -> int:
    module = import_module(f"batchway.providers.{name}.simulator")
    main = cast("Callable[[Sequence[str]], int | None]", module.main)
    try:
        return main(arguments) or 0
    except SystemExit as end:  # argparse: --help, or an option it does not know
        return end.code if isinstance(end.code, int) else 2
