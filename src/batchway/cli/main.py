"""The command `batchway`: the table of commands, and what becomes of a command that fails.

A command's module is imported when it is chosen; its one line of help stands here, so that `--help`, completion and
"did you mean" cost nothing. `tests/unit/test_cli.py` holds each line equal to the command's own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from batchway.cli.failures import MEANINGS, Exit, Told, tell


@dataclass(frozen=True)
class Entry:
    """Where a command lives: its module in this folder, and the command's own first line of help."""

    module: str
    help: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Batches": {
        "run": Entry("run", "Send a file as a batch, wait, and write the answers."),
        "submit": Entry("run", "Send a file as a batch and print its id."),
        "watch": Entry("batches", "Follow a batch until it ends."),
        "results": Entry("batches", "Fetch the lines of a batch that are there."),
        "cancel": Entry("batches", "End a batch early; what is answered stays."),
        "resume": Entry("batches", "Let a paused batch go on."),
        "retry": Entry("batches", "Make a new batch of the lines that failed or expired."),
        "list": Entry("batches", "List batches, newest first."),
        "get": Entry("batches", "Show one batch: its counts, jobs and amount."),
        "adopt": Entry("batches", "Take in a batch that was made at a provider."),
    },
    "Before anything is spent": {
        "estimate": Entry("check", "Tell the tokens, amount and routes of a file."),
        "validate": Entry("check", "Find every fault of a file, without a gateway."),
    },
    "Gateway": {
        "serve": Entry("serve", "Run the gateway."),
        "doctor": Entry("doctor", "Check this installation and say what to mend."),
        "seal": Entry("seal", "Seal a secret for batchway.yaml."),
        "files": Entry("files", "List, show, upload, download and delete files."),
        "keys": Entry("keys", "Create, change, rotate and delete the keys of the gateway."),
        "receivers": Entry("receivers", "Show who is told of events, and tell them again."),
        "webhooks": Entry("webhooks", "Create, test, change and delete webhooks, and send again what did not arrive."),
        "projects": Entry("projects", "Create, change and delete the projects of the gateway."),
        "costs": Entry("costs", "Show what was spent by day and group, or used."),
        "budget": Entry("projects", "Show, set or take away the budget of the whole gateway."),
    },
    "Trying it out": {
        "demo": Entry("demonstrate", "Run a real batch on a small model, here and now."),
        "simulate": Entry("simulate", "Run a simulator of a provider's API."),
        "version": Entry("versions", "Show the versions of Batchway and its parts."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Commands(click.Group):
    """The group whose commands are light stand-ins until one is chosen."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and load(found.name or ""), rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes stdout once more at its end, and would complain there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.PIPE_CLOSED
        return answer

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(8), entry.help) for name, entry in entries.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)).ljust(8), meaning) for code, meaning in MEANINGS.items()])
        formatter.write_paragraph()
        formatter.write_text("'batchway COMMAND --help' tells everything about a command.")


def load(name: str) -> click.Command:
    """The command itself."""
    module = import_module(f"batchway.cli.{COMMANDS[name].module}")
    command: click.Command = getattr(module, f"{name}_command")
    return command


def _group() -> Commands:
    stand_ins = {name: click.Command(name, help=entry.help) for name, entry in COMMANDS.items()}
    text = "The batch gateway for LLMs: one OpenAI-compatible Files and Batches API in front of every provider."
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    shown = click.Option(["--version"], is_flag=True, expose_value=False, callback=_version, help="As the command.")
    return Commands("batchway", commands=stand_ins, help=text, context_settings=settings, params=[shown])


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted:
        context.invoke(load("version"), as_json=False)
        context.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code (see `failures.py`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        answer: Any = _group().main(arguments or ["--help"], prog_name="batchway", standalone_mode=False)
    except Exception as error:
        told = tell(error)
        if told is None:
            raise
        _show(told, as_json="--json" in arguments)
        return told.exit_code
    return answer if isinstance(answer, int) else Exit.DONE


def _show(told: Told, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told.envelope, ensure_ascii=False))
        return
    sys.stderr.write(f"batchway: {told.message}\n" + (f"{told.hint}\n" if told.hint else ""))
