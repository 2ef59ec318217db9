"""How a command ends: the exit codes, and any failure as one sentence or as OpenAI's error envelope.

With `--json` the envelope goes to stdout, so stdout holds exactly one JSON document however a command ends; without it
the sentence goes to stderr and stdout holds data only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import click

from batchway.core.errors import BatchwayError, ConfigError
from batchway.sdk.errors import APIConnectionError, APIError, BadRequestError


class Exit(IntEnum):
    """Exit codes; `MEANINGS` documents them in `--help` and docs/cli.md."""

    DONE = 0
    SOME_FAILED = 1
    WRONG_USE = 2
    REFUSED = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done: all lines answered, no fault found",
    Exit.SOME_FAILED: "some lines failed, or a check found faults",
    Exit.WRONG_USE: "wrong use: options, settings, or a file that cannot be read or written",
    Exit.REFUSED: "the gateway or a provider refused, or could not be reached",
    Exit.INTERRUPTED: "interrupted; a batch that was sent goes on",
    Exit.PIPE_CLOSED: "nobody reads the output any more",
}


class CommandError(Exception):
    """A command that cannot go on: one sentence, an exit code, and a code for programs."""

    def __init__(self, message: str, exit_code: Exit = Exit.WRONG_USE, *, code: str = "wrong_use") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code


@dataclass(frozen=True)
class Told:
    """A failure in words: `hint` is for people only, `envelope` for programs."""

    exit_code: Exit
    message: str
    envelope: dict[str, Any]
    hint: str = ""


def tell(error: Exception) -> Told | None:
    """The failure in words; None for one that nobody foresaw, whose traceback is wanted."""
    told: Told | None = None
    match error:
        case CommandError():
            told = _told(error.exit_code, str(error), error.code)
        case click.Abort():  # what click makes of Ctrl-C
            told = _told(Exit.INTERRUPTED, "Interrupted.", "interrupted")
        case click.ClickException():
            told = _told(Exit.WRONG_USE, error.format_message(), "wrong_use", _hint(error))
        case ConfigError():
            told = _told(Exit.WRONG_USE, str(error), "invalid_config")
        case APIError():
            told = _refused(error)
        case BatchwayError():
            told = _told(Exit.REFUSED, str(error), "refused")
        case OSError() if error.strerror:
            where = f"{error.filename}: " if error.filename is not None else ""
            told = _told(Exit.WRONG_USE, f"{where}{error.strerror}", "file_error")
        case _:
            pass
    return told


def _hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"See '{context.command_path if context else 'batchway'} --help'."


def _told(exit_code: Exit, message: str, code: str, hint: str = "") -> Told:
    kind = "server_error" if exit_code == Exit.REFUSED else "invalid_request_error"
    return Told(exit_code, message, {"error": {"message": message, "type": kind, "param": None, "code": code}}, hint)


def _refused(error: APIError) -> Told:
    body: dict[str, Any] = {
        "message": error.message,
        "type": error.type or "server_error",
        "param": error.param,
        "code": error.code,
    }
    if error.request_id:
        body["request_id"] = error.request_id
    hint = ""
    if error.status_code == 401:
        hint = "Give a key with --api-key or BATCHWAY_API_KEY."
    elif isinstance(error, APIConnectionError):
        hint = "Does the gateway run at the address of --base-url or BATCHWAY_BASE_URL? `batchway doctor` may help."
    sent = error.request_id is not None or not isinstance(error, BadRequestError)
    return Told(Exit.REFUSED if sent else Exit.WRONG_USE, error.message, {"error": body}, hint)
