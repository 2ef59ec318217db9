"""`batchway seal`: a secret goes in, what may stand in batchway.yaml comes out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from batchway.cli.options import config_option, json_option, nearby
from batchway.cli.screen import emit, note
from batchway.settings import load
from batchway.vault import KEY_FILE


@click.command("seal")
@config_option
@json_option
def seal_command(config: Path | None, *, as_json: bool) -> int:
    """Seal a secret for batchway.yaml.

    Reads a secret (hidden while it is typed, or from a pipe) and prints `sealed:v1:...`, which may stand wherever the
    secret itself could. It is sealed with BATCHWAY_SECRET_KEY, or with the file secret.key in the home folder, which is
    made when it is not there: keep either apart from the settings, and a copy of it safe.
    """
    settings = load(config or nearby())
    secret = _read()
    if not secret:
        raise click.UsageError("There is no secret to seal.")
    sealed = settings.vault.seal(secret)
    if as_json:
        emit({"object": "secret.sealed", "sealed": sealed})
    else:
        print(sealed)
    if not settings.secret_key:
        note(f"Sealed with {settings.folder / KEY_FILE}: without that file nobody can read it again.")
    return 0


def _read() -> str:
    if sys.stdin.isatty():
        return click.prompt("Secret", hide_input=True, err=True, confirmation_prompt=True)
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")
