"""Who may come in: virtual keys and the master key, by `Authorization: Bearer`, `x-api-key` or `api-key`.

Keys hold 256 random bits, so their sha-256 is all that is stored and needs neither salt nor stretching. A key that was
let in is remembered for a few seconds: a key that another process changes works that much longer as it was, here not at
all. A key's networks are held against the client's address: the connection's, or, when that is a trusted proxy's, the
last one in X-Forwarded-For that no trusted proxy has.

Without auth (loopback only) a browser is the danger: any web page can post to 127.0.0.1. So then the Host must be a
loopback name (no DNS rebinding) and an Origin, when there is one, must be ours.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, RowMapping
from starlette.types import Scope as Connected

from batchway.core.errors import Forbidden, Unauthenticated
from batchway.core.principal import DEFAULT_PROJECT, NO_LIMITS, Limits, Policy, Principal, Scope
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

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


OWNERS = ("", "project_")  # prefixes of the columns with rules: the key's own, its project's


class Admission(msgspec.Struct, frozen=True):
    """Who a key lets in, until when (unix seconds) and from where (None: from everywhere)."""

    principal: Principal
    until: float = math.inf
    networks: tuple[Network, ...] | None = None


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
    """Lets callers in. `clock` answers unix seconds."""

    def __init__(self, db: Database, settings: ServerSettings, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock
        self._no_auth = settings.no_auth
        self._master = digest(settings.master_key) if settings.master_key else None
        self._proxies = networks(settings.trusted_proxies)
        self._trusted: dict[str, tuple[Admission, float]] = {}
        self._changes = 0

    async def admit(self, connected: Connected, headers: Mapping[bytes, bytes], needs: Scope | None) -> Principal:
        """The caller, who has the scope that is needed; None lets everybody in. Unauthenticated or Forbidden."""
        if self._no_auth:
            _refuse_foreign_pages(headers)
            return LOCAL
        if needs is None:
            return NOBODY
        hashed = sha256(_secret(headers)).hexdigest()
        admission = self._remembered(hashed) or await self._look_up(hashed)
        if admission.networks is not None:
            _refuse_elsewhere(client_address(connected, self._proxies), admission.networks)
        if not admission.principal.may(needs):
            raise Forbidden(_missing(needs), code="insufficient_permissions")
        return admission.principal

    def forget(self) -> None:
        """Every key is looked up again: a key or a project was changed."""
        self._changes += 1
        self._trusted.clear()

    def _remembered(self, hashed: str) -> Admission | None:
        known = self._trusted.get(hashed)
        if known is None or known[1] <= time.monotonic() or known[0].until <= self._clock():
            return None
        return known[0]

    async def _look_up(self, hashed: str) -> Admission:
        changes = self._changes
        admission = await self._db.read(_find, hashed, self._master, self._clock())
        if changes != self._changes:
            return admission  # read before the change perhaps: good for this once
        if len(self._trusted) >= REMEMBERED:
            self._trusted.clear()
        self._trusted[hashed] = (admission, time.monotonic() + TRUSTED_SECONDS)
        return admission


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of CIDR texts; ValueError when one is none."""
    return tuple(ipaddress.ip_network(text.strip(), strict=False) for text in texts)


def client_address(connected: Connected, proxies: tuple[Network, ...]) -> Address | None:
    """Where the request comes from; None when that cannot be told.

    X-Forwarded-For is believed from the right as far as trusted proxies wrote it: what stands left of the first address
    that is none of theirs is the client's own claim.
    """
    address = _address(connected["client"][0]) if connected.get("client") else None
    values = [value for name, value in connected["headers"] if name == b"x-forwarded-for"]
    hops = b",".join(values).decode("latin-1").split(",") if values else []
    while hops and address is not None and _within(address, proxies):
        address = _address(hops.pop().strip())
    return address


def _address(text: str) -> Address | None:
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: Address, places: Iterable[Network]) -> bool:
    return any(address in place for place in places)  # an address of the other version is in none


def _refuse_elsewhere(address: Address | None, places: tuple[Network, ...]) -> None:
    if address is None or not _within(address, places):
        message = f"This API key may not be used from your network address ({address or 'unknown'})."
        raise Forbidden(message, code="ip_not_allowed")


def _missing(scope: Scope) -> str:
    if scope == "admin":
        return "Only an admin key may do this."
    return f"This API key lacks the scope '{scope}': ask the admin of this gateway to add it (POST /v1/keys/{{id}})."


def _find(tx: Connection, hashed: str, master: str | None, now: float) -> Admission:
    """Unauthenticated, saying why, when the key lets nobody in."""
    master = master or keys.master_hash(tx)
    if master is not None and hmac.compare_digest(hashed, master):
        return Admission(MASTER)
    row = keys.by_hash(tx, hashed)
    if row is None or not hmac.compare_digest(hashed, row["hash"]):
        raise Unauthenticated(BAD_KEY, code="invalid_api_key")
    _refuse_ended(row, now)
    ends = [end for end in (row["expires_at"], row["valid_until"]) if end is not None]
    cidrs: list[str] | None = row["cidrs"]
    return Admission(_principal(row), min(ends, default=math.inf), None if cidrs is None else networks(cidrs))


def _refuse_ended(row: RowMapping, now: float) -> None:
    for ended, why in (
        (row["deleted_at"] is not None, "This API key has been deleted."),
        (row["disabled_at"] is not None, "This API key is disabled."),
        (row["expires_at"] is not None and row["expires_at"] <= now, "This API key has expired."),
        (row["valid_until"] is not None and row["valid_until"] <= now, "This API key was rotated: use the new one."),
    ):
        if ended:
            raise Unauthenticated(f"{why} The admin of this gateway can help.", code="invalid_api_key")


def _principal(row: RowMapping) -> Principal:
    policies = [Policy(models=_tuple(row[f"{of}models"]), providers=_tuple(row[f"{of}providers"])) for of in OWNERS]
    limits, project_limits = (
        msgspec.convert(row[f"{of}limits"], Limits) if row[f"{of}limits"] else NO_LIMITS for of in OWNERS
    )
    return Principal(
        key_id=row["id"],
        project=row["project"],
        scopes=frozenset(row["scopes"]),
        private=row["private"] or row["project_sharing"] is False,
        policies=tuple(policy for policy in policies if policy != Policy()),
        limits=limits,
        project_limits=project_limits,
        pauses=row["on_budget"] == "pause",
    )


def _tuple(names: Any) -> tuple[str, ...] | None:
    return None if names is None else tuple(cast("list[str]", names))


def _secret(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    found = token.strip() if scheme.lower() == b"bearer" else b""
    found = found or headers.get(b"x-api-key", b"") or headers.get(b"api-key", b"")
    if not found:
        raise Unauthenticated(NO_KEY, code="invalid_api_key")
    return found


def _refuse_foreign_pages(headers: Mapping[bytes, bytes]) -> None:
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
