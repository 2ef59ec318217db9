"""How a line of the log is written: one line an event, as text or JSON, with the ids of what it is about.

Whoever starts on a request, batch or job says so with `note` or `within`; every line logged in that scope, by whatever
module, carries the ids. Nothing else is added by hand.

What no line holds, whatever was logged: a line break or another control character of a client's (one event is one
line), and anything that looks like a secret (the second net: messages of ours hold none). Of an exception the type and
the places are told; its message only where its author is known to put no body there: our own errors, the operating
system's and the database's first line.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TextIO, cast

import msgspec

from batchway.core.errors import BatchwayError

Ids = Mapping[str, str]

OURS = "batchway"
FRAMES = 20  # of an exception, the innermost
CAUSES = 4
DATABASE_WORDS = 200  # characters of a database's own message

SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SECRET = re.compile(
    r"(?P<kept>\b(?:Bearer|Basic)\s+|://)[^\s\"'@/]{6,}(?P<at>@)?"  # an Authorization header, the user part of a URL
    r"|\b(?:sk-|whsec_|sealed:)[\w.+/=:-]{6,}",
    re.IGNORECASE,
)

MARKS = ("bearer", "basic", "://", "sk-", "whsec_", "sealed:")  # one of them is in whatever SECRET finds

log = logging.getLogger(OURS)

_scope: ContextVar[Ids] = ContextVar("batchway_log_scope", default=MappingProxyType({}))


def note(**ids: str) -> None:
    """From here on, lines of this task carry these ids too: `request_id`, `batch_id`, `job_id`, `key_id`."""
    _scope.set({**_scope.get(), **ids})


def enter(ids: Ids) -> None:
    """From here on, lines of this task carry exactly these ids: for a task that works for one batch after another."""
    _scope.set(ids)


@contextmanager
def within(**ids: str) -> Generator[None]:
    """Lines of the block carry these ids too, and what was noted inside ends with it."""
    token = _scope.set({**_scope.get(), **ids})
    try:
        yield
    finally:
        _scope.reset(token)


def setup(
    form: Literal["text", "json"], level: str, *, secrets: Iterable[str | None] = (), stream: TextIO | None = None
) -> None:
    """Writes this process's log to `stream` (stderr): ours from `level` on, of others warnings and worse.

    Others stay at warnings because some of them tell bodies and headers below. `secrets` are never written.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter(form, secrets))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one.formatter, Formatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level.upper())
    logging.captureWarnings(capture=True)


def of_loop(_loop: object, context: Mapping[str, Any]) -> None:
    """An event loop's handler of what nobody caught; its own would print values."""
    log.error("%s", context["message"], exc_info=context.get("exception"))


class Formatter(logging.Formatter):
    """A record as one line. A record's `fields` (by `extra=`) stand beside the ids in JSON, and in text not at all."""

    def __init__(self, form: Literal["text", "json"], secrets: Iterable[str | None] = ()) -> None:
        super().__init__()
        self._as_json = form == "json"
        named = [re.escape(secret) for secret in secrets if secret and len(secret) >= 8]
        self._named = re.compile("|".join(named)) if named else None

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        line = self._json(record, error) if self._as_json else _text(record, error)
        low = line.lower()
        if any(mark in low for mark in MARKS):
            line = SECRET.sub(_hidden, line)
        return line if self._named is None else self._named.sub("***", line)

    def _json(self, record: logging.LogRecord, error: BaseException | None) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        told = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_scope.get(),
            **fields,
        }
        if error is not None:
            told["error"] = _error(error)
        return _plain(msgspec.json.encode(told).decode())


def _text(record: logging.LogRecord, error: BaseException | None) -> str:
    ids = "".join(f" {name}={value}" for name, value in _scope.get().items() if value)
    line = f"{_time(record.created)} {record.levelname} {record.name}: {_message(record)}{ids}"
    if error is not None:
        line += f" error: {_in_words(_error(error))}"
    return _plain(line)


def _plain(line: str) -> str:
    return CONTROLS.sub(_escaped, line)


def _escaped(match: re.Match[str]) -> str:
    return SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"


def _time(at: float) -> str:
    return f"{_second(int(at))}.{int(at % 1 * 1000):03d}Z"


@lru_cache(1)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _message(record: logging.LogRecord) -> str:
    """Ours as it is; of others the first line, since asyncio and warnings show values in those that follow."""
    message = record.getMessage()
    if record.name.partition(".")[0] == OURS or not message:
        return message
    return message.splitlines()[0]


def _error(error: BaseException, depth: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(error).__name__}
    if words := _words_of(error):
        told["message"] = words
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    told["at"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    if depth == CAUSES:
        return told
    if isinstance(error, BaseExceptionGroup):
        parts = cast("tuple[BaseException, ...]", error.exceptions)
        told["parts"] = [_error(part, depth + 1) for part in parts[:CAUSES]]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        told["cause"] = _error(cause, depth + 1)
    return told


def _words_of(error: BaseException) -> str | None:
    if isinstance(error, BatchwayError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror
    database: object = getattr(error, "orig", None)  # an SQLAlchemy error's: its own words may hold parameters
    if database is not None:
        return str(database).partition("\n")[0][:DATABASE_WORDS]
    return None


def _in_words(told: Mapping[str, Any]) -> str:
    message = f": {told['message']}" if "message" in told else ""
    words = f"{told['type']}{message} at {' > '.join(told['at']) or 'an unknown place'}"
    for part in told.get("parts", ()):
        words += f"; of it {_in_words(part)}"
    return words + (f"; after {_in_words(told['cause'])}" if "cause" in told else "")


def _hidden(match: re.Match[str]) -> str:
    if match["kept"] is None:
        return "***"
    if match["kept"] == "://":
        return f"://***{match['at']}" if match["at"] else match[0]
    return f"{match['kept']}***{match['at'] or ''}"
