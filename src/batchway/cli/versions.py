"""`batchway version`: what this installation is made of."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from batchway.cli.options import json_option
from batchway.cli.screen import emit, figures

PARTS = ("dbos", "sqlalchemy", "psycopg", "obstore", "pyreqwest", "starlette", "uvicorn", "msgspec")
MISSING = "not installed"


@click.command("version")
@json_option
def version_command(*, as_json: bool) -> int:
    """Show the versions of Batchway and its parts."""
    found = {"batchway": installed("batchway"), "python": platform.python_version(), "platform": platform.platform()}
    found |= {part: installed(part) for part in PARTS}
    if as_json:
        emit(found)
    else:
        figures(found.items())
    return 0


def installed(package: str) -> str:
    """The version of an installed package; `MISSING` also for Batchway itself when it runs from its source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING
