"""Who may come in: virtual keys and the master key, by `Authorization: Bearer`, `x-api-key` or `api-key`.

Keys hold 256 random bits, so their sha-256 is all that is stored and needs neither salt nor stretching. A key that was
let in is remembered for a few seconds: a key deleted by another process works that much longer, here not at all.

Without auth (loopback only) a browser is the danger: any web page can post to 127.0.0.1. So then the Host must be a
loopback name (no DNS rebinding) and an Origin, when there is one, must be ours.
"""

from __future__ import annotations

import hmac
import secrets
import time
from hashlib import sha256
from urllib.parse import urlsplit

from sqlalchemy import Connection

from batchway.core.errors import Forbidden, Unauthenticated
from batchway.core.principal import DEFAULT_PROJECT, Principal
from batchway.db import keys
from batchway.db.engine import Database
from batchway.server.operations import ServerSettings

PREFIX = "sk-bw-"
TRUSTED_SECONDS = 5.0
REMEMBERED = 4096

NOBODY = Principal(key_id="", project="")
MASTER = Principal(key_id="master", project=DEFAULT_PROJECT, scopes=frozenset({"admin"}))
LOCAL = Principal(key_id="local", project=DEFAULT_PROJECT, scopes=frozenset({"admin"}))

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

NO_KEY = (
    "You didn't provide an API key. Send it as a bearer token (Authorization: Bearer YOUR_KEY), "
    "or in the header x-api-key or api-key."
)
BAD_KEY = "Incorrect API key provided. Ask the admin of this gateway for a key (POST /v1/keys)."


def new_key() -> str:
    """A fresh secret key."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What is stored of a key."""
    return sha256(key.encode()).hexdigest()


def ensure_master_key(db: Database, settings: ServerSettings) -> str | None:
    """The master key that this call made, to be shown once; None when there is one already, or none is needed."""
    if settings.no_auth or settings.master_key or db.write_now(keys.master_hash):
        return None
    fresh = new_key()
    return fresh if db.write_now(keys.set_master_hash, digest(fresh)) else None


class Keyring:
    """Lets callers in."""

    def __init__(self, db: Database, settings: ServerSettings) -> None:
        self._db = db
        self._no_auth = settings.no_auth
        self._master = digest(settings.master_key) if settings.master_key else None
        self._trusted: dict[str, tuple[Principal, float]] = {}

    async def admit(self, open_to_all: bool, admin: bool, headers: dict[bytes, bytes]) -> Principal:  # noqa: FBT001 - the table's own flags
        """The caller; Unauthenticated or Forbidden."""
        if self._no_auth:
            _refuse_foreign_pages(headers)
            return LOCAL
        if open_to_all:
            return NOBODY
        hashed = sha256(_secret(headers)).hexdigest()
        principal = self._remembered(hashed) or await self._look_up(hashed)
        if admin and not principal.admin:
            raise Forbidden("Only an admin key may do this.", code="insufficient_permissions")
        return principal

    def forget(self) -> None:
        """Every key is looked up again: one was deleted."""
        self._trusted.clear()

    def _remembered(self, hashed: str) -> Principal | None:
        known = self._trusted.get(hashed)
        return known[0] if known is not None and known[1] > time.monotonic() else None

    async def _look_up(self, hashed: str) -> Principal:
        principal = await self._db.read(_find, hashed, self._master)
        if principal is None:
            raise Unauthenticated(BAD_KEY, code="invalid_api_key")
        if len(self._trusted) >= REMEMBERED:
            self._trusted.clear()
        self._trusted[hashed] = (principal, time.monotonic() + TRUSTED_SECONDS)
        return principal


def _find(tx: Connection, hashed: str, master: str | None) -> Principal | None:
    master = master or keys.master_hash(tx)
    if master is not None and hmac.compare_digest(hashed, master):
        return MASTER
    row = keys.by_hash(tx, hashed)
    if row is None or not hmac.compare_digest(hashed, row["hash"]):
        return None
    return Principal(key_id=row["id"], project=row["project"], scopes=frozenset(row["scopes"]))


def _secret(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    found = token.strip() if scheme.lower() == b"bearer" else b""
    found = found or headers.get(b"x-api-key", b"") or headers.get(b"api-key", b"")
    if not found:
        raise Unauthenticated(NO_KEY, code="invalid_api_key")
    return found


def _refuse_foreign_pages(headers: dict[bytes, bytes]) -> None:
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin")
    if _hostname(host) not in LOOPBACK:
        raise Forbidden("Without auth, this gateway answers to loopback names only.", code="forbidden_host")
    if origin is not None and origin.decode("latin-1").lower() != f"http://{host}".lower():
        raise Forbidden("Without auth, this gateway does not answer to other web pages.", code="forbidden_origin")


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
