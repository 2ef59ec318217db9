"""`batchway serve`: the gateway in the foreground. Everything that cannot work is told before anything listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batchway.settings import ROLES, load

NEARBY = Path("batchway.yaml")

config_option = click.option(
    "--config",
    envvar="BATCHWAY_CONFIG",
    show_envvar=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The settings; without it ./batchway.yaml, where there is one.",
)


@click.command("serve")
@click.option("--host", metavar="ADDRESS", help="Where it listens; 127.0.0.1 unless the settings say otherwise.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="4000 unless the settings say otherwise; 0 takes a free one."
)
@config_option
@click.option("--roles", metavar="NAMES", help=f"By commas: {', '.join(ROLES)}. All of them by default.")
@click.option("--no-auth", is_flag=True, default=None, help="Let everybody in; on a loopback address only.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="info by default.")
def serve_command(config: Path | None, **overrides: Any) -> int:
    """Run the gateway.

    It serves until it is interrupted or gets SIGTERM, finishing what is on its way first. Every option is also a setting
    in batchway.yaml and a BATCHWAY_ variable; an option wins over a variable, a variable over the file.
    """
    if overrides["roles"] is not None:
        overrides["roles"] = [name.strip() for name in overrides["roles"].split(",")]
    settings = load(config or nearby(), overrides=overrides)
    return serve(settings)


def nearby() -> Path | None:
    """The settings of the present folder, where there are any."""
    return NEARBY if NEARBY.is_file() else None
