"""The checks of `batchway doctor`. Each answers what it found and, where something is wrong, what to mend.

A checkup changes nothing: it opens an existing database without bringing its tables up to date, makes no folder, and
asks providers for nothing but their models. The storage is probed with one small object that is deleted again. No key
is ever part of a finding.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import SystemRandom
from typing import Literal

import msgspec
from sqlalchemy import Connection, create_engine, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from batchway.cli.versions import MISSING, PARTS, installed
from batchway.core.errors import ConfigError, Fault, ProviderError
from batchway.core.retry import NO_RETRY
from batchway.db.engine import driver_url
from batchway.db.migrations import VERSION
from batchway.db.schema import meta
from batchway.http import Http
from batchway.providers import registry
from batchway.providers.protocol import Account, Tools
from batchway.settings import Settings, plain_credentials
from batchway.storage import StorageError, open_storage
from batchway.vault import KEY_FILE

OLDEST_PYTHON = (3, 11)
FEW_BYTES, TOO_FEW_BYTES = 5 << 30, 512 << 20
SKEW = 60.0  # seconds that our clock may be wrong
ASKING = 20.0  # seconds that a provider or a storage may take

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found; `mend` says what to do about it."""

    name: str
    status: Status
    message: str
    mend: str | None = None


def check_python() -> Finding:
    """The interpreter and the packages."""
    missing = [part for part in PARTS if installed(part) == MISSING]
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "problem", f"Python {platform.python_version()}", "Use Python 3.11 or later.")
    if missing:
        return Finding("python", "problem", f"not installed: {', '.join(missing)}", "Install batchway again.")
    return Finding("python", "ok", f"Python {platform.python_version()}, batchway {installed('batchway')}")


def check_credentials(settings: Settings, path: Path | None) -> Finding:
    """Whether credentials can be read by other users of this machine."""
    try:
        key_file = settings.folder / KEY_FILE
        settings.vault  # noqa: B018 - it says what is wrong with the key
        if _others_read(key_file):
            return Finding("credentials", "problem", f"others may read {key_file}", f"chmod 600 {key_file}")
    except ConfigError as error:
        return Finding("credentials", "problem", str(error), "Mend secret_key.")
    plain = plain_credentials(path) if path else []
    if path and plain and _others_read(path):
        told = f"others may read {path}, where these stand as they are: {', '.join(plain)}"
        mend = f"chmod 600 {path}, or write them as `batchway seal`, ${{VARIABLE}} or ${{file:PATH}} makes them."
        return Finding("credentials", "problem", told, mend)
    return Finding(
        "credentials",
        "ok",
        f"{len(plain)} in plain text, readable by this user only" if plain else "none in plain text",
    )


def _others_read(path: Path) -> bool:
    """Whether the file is there and more than its owner may read it."""
    return os.name == "posix" and path.exists() and bool(path.stat().st_mode & 0o044)


def check_disk(settings: Settings) -> Finding:
    """Room, and the right to write, where the state lives."""
    folder = settings.folder
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding("disk", "problem", f"{folder} cannot be written to", "Set BATCHWAY_HOME, or change its rights.")
    free = shutil.disk_usage(folder).free
    told = f"{free / 1e9:.1f} GB free at {folder}"
    if free < FEW_BYTES:
        mend = "Make room, or move BATCHWAY_HOME or BATCHWAY_STORAGE_URL."
        return Finding("disk", "problem" if free < TOO_FEW_BYTES else "warning", told, mend)
    return Finding("disk", "ok", told)


def check_port(settings: Settings) -> Finding:
    """Whether the gateway could listen, or who does."""
    place = f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and _is_gateway(settings):
                return Finding("port", "ok", f"a Batchway gateway answers at {place}")
            mend = "Choose another with --port or --host."
            return Finding("port", "problem", f"{place}: {error.strerror or error}", mend)
    return Finding("port", "ok", f"{place} is free")


def _is_gateway(settings: Settings) -> bool:
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=3)
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        return answer.status == 200 and answer.getheader("x-request-id") is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check_database(settings: Settings) -> Finding:
    """Whether the database opens, and whose tables it holds."""
    try:
        url = driver_url(settings.database)
        path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        if path is not None and not path.exists():
            return Finding("database", "ok", f"{path} is not there yet; the first start makes it")
        return _look_into(url)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        told = str(getattr(error, "orig", None) or error).splitlines()[0]
        return Finding("database", "problem", told, "Check BATCHWAY_DATABASE_URL, and that the server runs.")


def _look_into(url: URL) -> Finding:
    engine = create_engine(url)
    try:
        with engine.connect() as tx:
            told, present = _server(tx), _schema(tx)
    finally:
        engine.dispose()
    if present is not None and present > VERSION:
        message = f"{told}, tables of a newer Batchway (version {present}, this one knows {VERSION})"
        return Finding("database", "problem", message, "Upgrade this Batchway.")
    tables = "no tables yet" if present is None else f"tables of version {present}"
    if "journal delete" in told:
        return Finding("database", "warning", f"{told}, {tables}", "The next start sets WAL; is it on a network disk?")
    return Finding("database", "ok", f"{told}, {tables}")


def _server(tx: Connection) -> str:
    if tx.dialect.name == "sqlite":
        number = tx.execute(text("SELECT sqlite_version()")).scalar_one()
        return f"SQLite {number}, journal {tx.execute(text('PRAGMA journal_mode')).scalar_one()}"
    return f"PostgreSQL {tx.execute(text('SHOW server_version')).scalar_one()}"


def _schema(tx: Connection) -> int | None:
    if not inspect(tx).has_table("meta"):
        return None
    found = tx.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar_one_or_none()
    return None if found is None else int(found)


async def check_storage(settings: Settings) -> Finding:
    """Whether the storage can be written to and read."""
    if settings.storage_url is None and not settings.folder.exists():
        return Finding("storage", "ok", f"{settings.storage} is not there yet; the first start makes it")
    try:
        storage = open_storage(settings.storage, home=settings.folder)
        try:
            async with asyncio.timeout(ASKING):
                await storage.check()
        finally:
            await storage.close()
    except (ConfigError, StorageError, TimeoutError) as error:
        told = str(error) or f"no answer within {ASKING:.0f} s"
        return Finding("storage", "problem", told, "Check BATCHWAY_STORAGE_URL and its credentials.")
    return Finding("storage", "ok", f"{settings.storage} takes and gives bytes")


async def check_accounts(settings: Settings) -> list[Finding]:
    """The configured accounts: whether each lets us in; and the clock, against theirs."""
    http_client = Http(user_agent="batchway", random=SystemRandom())
    try:
        storage = open_storage(settings.storage, home=settings.folder)
        tools = Tools(http=http_client, storage=storage, clock=time.time, random=SystemRandom())
        accounts = registry.open_accounts(registry.entries(settings.providers, os.environ), tools)
        if not accounts:
            kinds = ", ".join(sorted(registry.kinds()))
            mend = f"Set a provider's usual variables, or `providers` in batchway.yaml. Kinds: {kinds}."
            return [Finding("providers", "warning", "no account is configured", mend)]
        found = await asyncio.gather(*(_ask(account) for account in accounts))
        return [*found, await _compare_clocks(http_client, accounts)]
    except ConfigError as error:
        return [Finding("providers", "problem", str(error), "Mend this entry.")]
    finally:
        await http_client.close()


async def _ask(account: Account) -> Finding:
    name = f"provider {account.name}"
    if account.list_models is None:
        return Finding(name, "ok", f"{account.kind}: configured; it has no list of models to ask for")
    try:
        async with asyncio.timeout(ASKING):
            models = await account.list_models()
    except ProviderError as error:
        denied = error.fault == Fault.DENIED
        mend = "Check its credentials." if denied else "Check its base_url, and that it can be reached from here."
        return Finding(name, "problem", f"{account.kind}: {error.message}", mend)
    except TimeoutError:
        return Finding(name, "problem", f"{account.kind}: no answer within {ASKING:.0f} s", "Check its base_url.")
    except msgspec.DecodeError:
        return Finding(name, "warning", f"{account.kind}: its list of models is not OpenAI's", "Check its base_url.")
    return Finding(name, "ok", f"{account.kind}: lets us in, {len(models)} models")


async def _compare_clocks(client: Http, accounts: list[Account]) -> Finding:
    """Our clock against the Date of the first endpoint that tells one."""
    for account in accounts:
        if account.endpoint is None:
            continue
        try:
            url = f"{account.endpoint.base_url}/models"
            reply = await client.request(
                "GET", url, headers=account.endpoint.headers, timeout=ASKING, retry=NO_RETRY, ok=range(100, 600)
            )
            theirs = parsedate_to_datetime(reply.headers["date"]).timestamp()
        except (ProviderError, KeyError, ValueError):
            continue
        skew = time.time() - theirs
        if abs(skew) > SKEW:
            told = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {account.name}'s"
            return Finding(
                "clock", "problem", told, "Set this machine's clock (NTP): windows and signatures hang on it."
            )
        return Finding("clock", "ok", f"agrees with {account.name}'s")
    return Finding("clock", "ok", "nobody to compare it with")


def run(settings: Settings) -> Iterator[Finding]:
    """Every check over good settings."""
    yield check_disk(settings)
    yield check_database(settings)
    yield check_port(settings)
    yield asyncio.run(check_storage(settings))
    yield from asyncio.run(check_accounts(settings))
