"""`batchway files`: the files of the gateway, uploaded or produced."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from batchway.cli.options import json_option, with_client
from batchway.cli.screen import duration, emit, figures, note, size, table
from batchway.sdk.client import Client


@click.group("files")
def files_command() -> None:
    """List, show, upload, download and delete files."""


@files_command.command("list")
@click.option("--purpose", metavar="NAME", help="Only files of this purpose, such as batch or batch_output.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Files on the page.")
@click.option("--after", metavar="ID", help="Begin behind this file: the next page.")
@click.option("--order", type=click.Choice(["asc", "desc"]), help="asc: oldest first.")
@json_option
@with_client
def list_files(client: Client, *, as_json: bool, **given: Any) -> int:
    """List files, newest first."""
    page = client.file_list(**given)
    if as_json:
        emit(page.to_dict())
        return 0
    now = time.time()
    columns = ("id", "purpose", "size", "age", "name")
    rows = [(one.id, one.purpose, size(one.bytes), duration(now - one.created_at), one.filename) for one in page.data]
    table(columns, rows)
    if page.has_more:
        note(f"There are more: --after {page.data[-1].id}")
    return 0


@files_command.command("get")
@click.argument("file_id", metavar="ID")
@json_option
@with_client
def get_file(client: Client, *, file_id: str, as_json: bool) -> int:
    """Show a file and what was found in it."""
    found = client.file_retrieve(file_id=file_id)
    if as_json:
        emit(found.to_dict())
        return 0
    own = found.batchway
    figures(
        [
            ("id", found.id),
            ("name", found.filename),
            ("purpose", found.purpose),
            ("size", size(found.bytes)),
            ("status", found.status),
            ("sha256", own.sha256 if own else None),
            ("lines", own.lines if own else None),
            ("models", ", ".join(f"{name}: {lines}" for name, lines in own.models.items()) or None if own else None),
            ("faults", own.fault_count if own else None),
        ]
    )
    for fault in own.faults if own else ():
        print(f"line {fault.line}: {fault.message}" if fault.line else fault.message)
    return 0


@files_command.command("upload")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--purpose", default="batch", show_default=True, help="What the file is for.")
@click.option("--strict", is_flag=True, help="Refuse a batch file that has faults.")
@json_option
@with_client
def upload_file(client: Client, *, path: Path, purpose: str, strict: bool, as_json: bool) -> int:
    """Upload a file and print its id."""
    with path.open("rb") as file:
        stored = client.create_file(file=(path.name, file), purpose=purpose, strict=strict)
    if as_json:
        emit(stored.to_dict())
    else:
        print(stored.id)
    return 0


@files_command.command("download")
@click.argument("file_id", metavar="ID")
@click.option("-o", "--output", metavar="OUT", help="Where the bytes go; without it, stdout.")
@json_option
@with_client
def download_file(client: Client, *, file_id: str, output: str | None, as_json: bool) -> int:
    """Download the content of a file.

    --json needs OUT, and tells what was written.
    """
    if as_json and output is None:
        raise click.UsageError("--json needs --output: stdout holds either the content or the summary.")
    with client.file_content(file_id=file_id) as content:
        if output is None:
            sys.stdout.buffer.writelines(content.iter_bytes())
            return 0
        content.write_to_file(output)
    if as_json:
        emit({"id": file_id, "output": output, "bytes": Path(output).stat().st_size})
    else:
        note(f"{file_id} is in {output}")
    return 0


@files_command.command("delete")
@click.argument("file_id", metavar="ID")
@json_option
@with_client
def delete_file(client: Client, *, file_id: str, as_json: bool) -> int:
    """Delete a file.

    A file that a live batch reads is refused.
    """
    gone = client.file_delete(file_id=file_id)
    if as_json:
        emit(gone.to_dict())
    else:
        print(f"{gone.id} deleted")
    return 0
