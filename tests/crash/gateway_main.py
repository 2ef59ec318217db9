"""Forks gateways that can be told where to kill themselves; everything is imported once, before the first.

For each line it reads, `{"config", "log", "points", "die"}`, it forks a `batchway serve` and answers with its pid.
`points` is a file that every passed point is appended to; `die` is the point at which the process kills itself, such as
`after db collect._collected #1`.

Points stand before and after each commit of our database, each call of a provider, each object made in the storage, and
each hand-over to the engine. Nothing of the gateway knows of them: they are wrapped around it here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from batchway import logs
from batchway.cli import serving
from batchway.db.engine import Database
from batchway.engine import Engine
from batchway.http import Http
from batchway.providers import registry
from batchway.settings import load
from batchway.storage.local import LocalStorage

IDS = re.compile(r"(batch_|file-|job_)[0-9a-f]{8,}")


class Points:
    """Counts what passes, writes it down, and ends the process at the one it was told."""

    def __init__(self, notes: str | None, die: str | None) -> None:
        self._notes = None if notes is None else os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._die = die
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, label: str) -> None:
        with self._lock:
            self._seen[label] += 1
            point = f"{label} #{self._seen[label]}"
        if self._notes is not None:
            os.write(self._notes, f"{point}\n".encode())
        if point == self._die:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, label: Any) -> None:
        """Puts a point before and after an async method; `label` makes its name of the arguments."""
        inner = getattr(owner, name)

        async def watched(*args: Any, **kwargs: Any) -> Any:
            word = label(*args)
            self(f"before {word}")
            answer = await inner(*args, **kwargs)
            self(f"after {word}")
            return answer

        setattr(owner, name, watched)


def place_points(points: Points) -> None:
    points.around(Database, "write", lambda _self, statement, *_: f"db {_statement(statement)}")
    points.around(Http, "_persist", lambda _self, call, _attempt: f"call {call.method} {_path(call.url)}")
    points.around(Http, "post", lambda _self, url, *_: f"send {_path(url)}")
    points.around(Engine, "ensure", lambda _self, name, _key: f"engine {name}")
    commit = LocalStorage._commit

    def watched(self: LocalStorage, file: Any, temporary: Path, path: Path) -> None:
        folder = path.relative_to(self._root).parts[0] + path.suffix
        points(f"before storage {folder}")
        commit(self, file, temporary, path)
        points(f"after storage {folder}")

    LocalStorage._commit = watched  # type: ignore[method-assign]


def _statement(statement: Any) -> str:
    return f"{statement.__module__.rpartition('.')[2]}.{statement.__name__}"


def _path(url: str) -> str:
    return IDS.sub(":id", url.partition("/v1")[2].partition("?")[0])


def nursery() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    registry.kinds()  # imports every provider
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be_born(wanted)
        print(pid, flush=True)


def _be_born(wanted: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    out = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, handle in enumerate((nothing, out, out)):
        os.dup2(handle, number)
    place_points(Points(wanted["points"], wanted["die"]))
    try:
        settings = load(Path(wanted["config"]))
        logs.setup(settings.log_format, settings.log_level)
        serving.serve(settings, lambda _started: None)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


if __name__ == "__main__":
    nursery()
