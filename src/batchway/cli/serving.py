"""The gateway in the foreground: bound, built, working, announced, served; and all of it undone in the other order.

The port is bound first and listened on last, so whatever cannot work is told before a client gets in. The first SIGINT
or SIGTERM ends it politely; the second at once, which loses nothing either.

`server.json` in the home folder tells this user's other commands where the gateway is and gives them a key of their
own, which ends with this process (`local.py` reads it; the two change together).
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec
import uvloop
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from batchway import app, logs, metrics
from batchway.app import Gateway
from batchway.core.errors import ConfigError
from batchway.core.principal import DEFAULT_PROJECT
from batchway.db import keys
from batchway.server.app import create_app, server
from batchway.server.auth import digest, ensure_master_key, new_key
from batchway.server.routes import OPERATIONS, PROBES
from batchway.settings import Settings
from batchway.worker import Worker

STOP_SECONDS = 10.0
STOPPING = (signal.SIGINT, signal.SIGTERM)
ANNOUNCED = "server.json"
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - how such a host is reached from here


@dataclass(frozen=True)
class Started:
    """What the user is told at the start. `master_key` is set when this start made it; `url` when something listens."""

    url: str | None
    master_key: str | None
    accounts: int


class Announced(msgspec.Struct):
    """The content of server.json."""

    url: str
    pid: int
    key: str | None = None


def serve(settings: Settings, tell: Callable[[Started], None]) -> int:
    """Serves until a signal ends it; the exit code. ConfigError when it cannot start. `tell` is called once."""
    with _bound(settings) as listening:
        if listening is not None:
            field = "port" if "api" in settings.roles else "metrics_port"
            settings = msgspec.structs.replace(settings, **{field: listening.getsockname()[1]})
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, listening, tell))
    return 0


async def _serve(settings: Settings, listening: socket.socket | None, tell: Callable[[Started], None]) -> None:
    gateway = await _built(settings)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.of_loop)
    watching = loop.create_task(metrics.watch_loop())
    try:
        fresh = ensure_master_key(gateway.db, settings)
        worker = Worker(gateway)
        await worker.start()
        try:
            url = address(settings) if "api" in settings.roles else None
            await _until_stopped(
                gateway, listening, partial(tell, Started(url, fresh, len(list(gateway.trip.accounts))))
            )
        finally:
            await worker.stop(STOP_SECONDS)
    finally:
        watching.cancel()
        await gateway.close()


async def _until_stopped(gateway: Gateway, listening: socket.socket | None, tell: Callable[[], None]) -> None:
    """Serves the API, or the probes of a process without it, or nothing."""
    if listening is None:
        stopping = asyncio.Event()
        _on_signal(stopping.set)
        tell()
        await stopping.wait()
        return
    settings = gateway.settings
    whole = "api" in settings.roles
    http = server(create_app(gateway, operations=OPERATIONS if whole else PROBES), settings.host, settings.port)

    def stop() -> None:
        http.should_exit = True

    _on_signal(stop)
    async with _announced(gateway, address(settings)) if whole else nullcontext():
        listening.listen(2048)
        tell()
        await http.serve(sockets=[listening])


async def _built(settings: Settings) -> Gateway:
    try:
        return await app.build(settings)
    except SQLAlchemyError as error:
        told = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigError(f"database_url: the database cannot be opened: {told}") from None


def address(settings: Settings) -> str:
    """The URL by which this machine reaches a gateway with these settings."""
    host = ANYWHERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


@contextmanager
def _bound(settings: Settings) -> Generator[socket.socket | None]:
    """The socket, bound and not listening yet; None when this process serves neither the API nor probes."""
    port = settings.port if "api" in settings.roles else settings.metrics_port
    if port is None:
        yield None
        return
    try:
        place = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ConfigError(f"host: {settings.host} is no address: {error.strerror}") from None
    with socket.socket(place[0], place[1], place[2]) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(place[4])
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"host: cannot listen on {settings.host}:{port}: {error.strerror}") from None
            hint = "stop what listens there, or choose another with --port"
            raise ConfigError(f"port: {port} on {settings.host} is in use; {hint}") from None
        yield made


def _on_signal(stop: Callable[[], None]) -> None:
    """Calls `stop` at the first SIGINT or SIGTERM; the second has its usual effect.

    While the server serves it takes the signals itself, and sends itself the same one again once it has ended: that one
    ends here, so that the worker can still stop in peace.
    """
    loop = asyncio.get_running_loop()

    def first(_number: int, _frame: FrameType | None) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(stop)

    for number in STOPPING:
        signal.signal(number, first)


@asynccontextmanager
async def _announced(gateway: Gateway, url: str) -> AsyncGenerator[None]:
    """Tells this user's other commands of the gateway, with a key for them, while the block runs."""
    path = gateway.settings.folder / ANNOUNCED
    key = None if gateway.settings.no_auth else new_key()
    await gateway.db.write(_change_key, _left_behind(path), key, gateway.new_id("key_"), gateway.clock())
    _write_private(path, msgspec.json.encode(Announced(url, os.getpid(), key)))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        await gateway.db.write(_change_key, key, None, "", gateway.clock())


def _change_key(tx: Connection, old: str | None, new: str | None, new_id: str, now: float) -> None:
    row = keys.by_hash(tx, digest(old)) if old else None
    if row is not None and row["deleted_at"] is None:
        keys.end(tx, row["id"], now)
    if new is not None:
        values = {"id": new_id, "name": f"commands beside process {os.getpid()}", "project": DEFAULT_PROJECT}
        keys.add(tx, {**values, "hash": digest(new), "scopes": ["admin"], "created_at": now})


def _left_behind(path: Path) -> str | None:
    """The key that a killed process announced here and could not end."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Announced).key
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write_private(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    partial.replace(path)
