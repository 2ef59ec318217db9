"""`batchway serve`: the options and the first lines; `serving.py` does the work."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from batchway import logs
from batchway.cli import serving
from batchway.cli.options import config_option, json_option, nearby
from batchway.cli.screen import emit, note
from batchway.cli.serving import Started
from batchway.settings import ROLES, load


@click.command("serve")
@click.option("--host", metavar="ADDRESS", help="Where it listens; 127.0.0.1 unless the settings say otherwise.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="4000 unless the settings say otherwise; 0 takes a free one."
)
@config_option
@click.option("--roles", metavar="NAMES", help=f"By commas: {', '.join(ROLES)}. All of them by default.")
@click.option("--no-auth", is_flag=True, default=None, help="Let everybody in; on a loopback address only.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="info by default.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="text by default.")
@json_option
def serve_command(config: Path | None, *, as_json: bool, **overrides: Any) -> int:
    """Run the gateway.

    It serves until it is interrupted or gets SIGTERM, finishing what is on its way first. Every option is also a
    setting in batchway.yaml and a BATCHWAY_ variable; an option wins over a variable, a variable over the file.

    The first start makes the master key and shows it once, unless BATCHWAY_MASTER_KEY is set. Settings that cannot
    work are told in one line, with exit code 2, before anything listens.
    """
    if overrides["roles"] is not None:
        overrides["roles"] = [name.strip() for name in overrides["roles"].split(",")]
    path = config or nearby()
    settings = load(path, overrides=overrides)
    logs.setup(settings.log_format, settings.log_level, secrets=(settings.master_key, settings.secret_key))
    return serving.serve(settings, partial(_tell, path, as_json=as_json))


def _tell(path: Path | None, started: Started, *, as_json: bool) -> None:
    if as_json:
        settings = None if path is None else str(path)
        emit({"url": started.url, "pid": os.getpid(), "settings": settings, "master_key": started.master_key})
        return
    if started.master_key:
        print(f"The master key, shown this once: {started.master_key}")
    source = f"; settings from {path}" if path else ""
    if started.url:
        print(f"Batchway is running on {started.url}  (docs at /docs{source})", flush=True)
    else:
        print(f"Batchway is working; it serves no API{source}", flush=True)
    if not started.accounts:
        note("No provider is configured: set its usual variables, or see `batchway doctor`.")
