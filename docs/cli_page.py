"""docs/cli.md out of the parser itself, so that it can name no option that is not there.

`generate.py` writes it. A command's text is its own help; a test runs `--help` of every command.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from batchway.cli.failures import MEANINGS
from batchway.cli.main import SECTIONS, load

OPENING = """\
# The command line

`batchway COMMAND --help` tells the same as this page. stdout holds data; progress, notes and errors go to stderr.

Client commands speak to the gateway of `--base-url` or `BATCHWAY_BASE_URL`, with the key of `--api-key` or
`BATCHWAY_API_KEY`. Without an address they speak to the gateway that this user's `batchway serve` runs on the same
`BATCHWAY_HOME`, and where none runs, to one inside their own process, on the same state: a batch that such a command
leaves behind goes on with the next one.

- `--json` (every command's, but not a simulator's): one JSON document on stdout and nothing else, however the command
  ends; an error is OpenAI's envelope `{"error": {"message", "type", "param", "code"}}`, with `request_id` where the
  gateway gave one.
- A terminal gets a live bar, tables and colours (none with `NO_COLOR`); a pipe gets plain lines, tables with tabs.
- Ctrl-C leaves a batch running and tells how to follow it."""

SHARED = {"as_json", "base_url", "api_key"}  # told once, in OPENING

COMPLETION = """\
## Completion

```sh
eval "$(_BATCHWAY_COMPLETE=bash_source batchway)"                  # ~/.bashrc
eval "$(_BATCHWAY_COMPLETE=zsh_source batchway)"                   # ~/.zshrc
_BATCHWAY_COMPLETE=fish_source batchway | source                   # ~/.config/fish/completions/batchway.fish
```"""


def page() -> str:
    """The whole page."""
    codes = "\n".join(f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items())
    parts = [OPENING, f"## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}"]
    for title, entries in SECTIONS.items():
        parts.append(f"## {title}")
        for name in entries:
            parts += described(load(name), click.Context(click.Command("batchway"), info_name="batchway"))
    return "\n\n".join([*parts, COMPLETION])


def described(command: click.Command, parent: click.Context) -> Iterator[str]:
    """A command: how it is written, what it does, its options; then the commands below it."""
    context = click.Context(command, info_name=command.name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"{'###' if parent.parent is None else '####'} `{usage}`"
    yield inspect.cleandoc(command.help or "")
    options = [row for parameter in command.get_params(context) if (row := option(parameter, context))]
    if options:
        yield "\n".join(["| option | meaning |", "|---|---|", *options])
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from described(below, context)


def option(parameter: click.Parameter, context: click.Context) -> str | None:
    """The row of an option; None for an argument, which stands in the usage, for a shared option and for --help."""
    record = parameter.get_help_record(context)
    known = parameter.name in SHARED or "--help" in parameter.opts
    if record is None or known or isinstance(parameter, click.Argument):
        return None
    spelled, meaning = (text.replace("|", "\\|").replace("<", "&lt;") for text in record)
    return f"| `{spelled}` | {' '.join(meaning.split())} |"
