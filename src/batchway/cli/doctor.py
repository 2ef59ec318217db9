"""`batchway doctor`: whether this installation can work, and what to mend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from batchway.cli import checkup
from batchway.cli.checkup import Finding
from batchway.cli.failures import Exit
from batchway.cli.options import config_option, json_option, nearby
from batchway.cli.screen import emit
from batchway.core.errors import ConfigError
from batchway.settings import load

COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command("doctor")
@config_option
@json_option
def doctor_command(config: Path | None, *, as_json: bool) -> int:
    """Check this installation and say what to mend.

    Looks at the settings, the credentials, the database, the storage, the clock, the disk, the port and the packages,
    and changes nothing. The exit code is 1 when there is a problem; a warning is none.
    """
    found: list[Finding] = []
    console = Console(highlight=False, soft_wrap=True)
    for finding in _findings(config):
        found.append(finding)
        if not as_json:
            _show(console, finding)
    fine = all(finding.status != "problem" for finding in found)
    if as_json:
        emit({"object": "doctor.report", "ok": fine, "checks": [asdict(finding) for finding in found]})
    return Exit.DONE if fine else Exit.SOME_FAILED


def _findings(config: Path | None) -> Iterator[Finding]:
    yield checkup.check_python()
    path = config or nearby()
    try:
        settings = load(path)
    except ConfigError as error:
        yield Finding("settings", "problem", str(error), "Mend this; the other checks need good settings.")
        return
    source = f"{path} and the environment" if path else "the environment; there is no batchway.yaml"
    yield Finding("settings", "ok", f"from {source}")
    yield checkup.check_credentials(settings, path)
    yield from checkup.run(settings)


def _show(console: Console, finding: Finding) -> None:
    colour = COLOURS[finding.status]
    console.print(f"[{colour}]{finding.status:<8}[/] {escape(finding.name)}: {escape(finding.message)}")
    if finding.mend:
        console.print(f"         {escape(finding.mend)}")
