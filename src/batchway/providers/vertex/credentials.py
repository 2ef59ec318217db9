"""Access tokens of Google Cloud: a given one, or whatever `google-auth` can make of a key, a file or this machine.

`google-auth` is an optional extra, imported when an account needs it. Its calls go through the gateway's own HTTP
client, so they have its proxies and its rules; its work is blocking and runs in a thread. A token is kept until five
minutes before its end. No token and no part of a key ever stands in a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from batchway.core.errors import ConfigError, Fault, ProviderError
from batchway.core.retry import NO_RETRY
from batchway.http import Http

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
EARLY = 300.0  # seconds before its end in which a token is renewed
TIMEOUT = 30.0
EXTRA = "install the extra: pip install 'batchway[vertex]'"


class Tokens(Protocol):
    """Where access tokens come from."""

    async def token(self) -> str:
        """One that is valid now. ProviderError when there is none."""
        ...

    def renew(self) -> bool:
        """Forgets the present one, since it was refused; False when there can be no other."""
        ...


class GivenToken:
    """One token, as it stands in the settings: for tests, simulators and short runs."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token

    def renew(self) -> bool:
        return False


class _Answer(NamedTuple):
    """What google-auth reads of an HTTP answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class AuthTokens:
    """Tokens by google-auth. `find` answers its credentials; it may ask the network, so it is called on first use."""

    def __init__(self, find: Callable[[Any], Any], http: Http, clock: Callable[[], float]) -> None:
        self._find = find
        self._http = http
        self._clock = clock
        self._credentials: Any = None
        self._token: str | None = None
        self._ends = 0.0
        self._turn = asyncio.Lock()

    async def token(self) -> str:
        async with self._turn:
            if self._token is None or self._ends - self._clock() < EARLY:
                await self._refresh()
            return cast("str", self._token)

    def renew(self) -> bool:
        self._token = None
        return True

    async def _refresh(self) -> None:
        ask = _transport(self._http, asyncio.get_running_loop())
        errors: Any = import_module("google.auth.exceptions")
        failure: ProviderError | None = None
        try:
            await asyncio.to_thread(self._refreshed, ask)
        except errors.GoogleAuthError as error:  # its text may quote the whole answer of the token service
            passing = bool(getattr(error, "retryable", False)) or isinstance(error, errors.TransportError)
            fault = Fault.TRANSIENT if passing else Fault.DENIED
            failure = ProviderError(f"no access token for Google Cloud: {type(error).__name__}", fault=fault)
        if failure is not None:
            raise failure
        self._token = str(self._credentials.token)
        expiry = self._credentials.expiry
        self._ends = expiry.replace(tzinfo=UTC).timestamp() if expiry else float("inf")

    def _refreshed(self, ask: Callable[..., _Answer]) -> None:
        if self._credentials is None:
            self._credentials = self._find(ask)
        self._credentials.refresh(ask)


def open_tokens(source: str | dict[str, Any] | None, http: Http, clock: Callable[[], float]) -> Tokens:
    """Tokens from a key or credential configuration (a path, JSON text, a table), else from this machine (ADC)."""
    if source is None:
        return AuthTokens(_machine(), http, clock)
    info = _info(source)
    return AuthTokens(_from_info(info), http, clock)


def project_of(source: str | dict[str, Any] | None) -> str | None:
    """The project that a service-account key names."""
    found = None if source is None else _info(source).get("project_id")
    return found if isinstance(found, str) else None


def _info(source: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(source, dict):
        return source
    try:
        text = source if source.lstrip().startswith("{") else Path(source).expanduser().read_text(encoding="utf-8")
        parsed: object = msgspec.json.decode(text)
    except OSError as error:
        raise ConfigError(f"credentials: the file cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError("credentials: is neither JSON nor the path of a JSON file") from None
    if not isinstance(parsed, dict):
        raise ConfigError("credentials: must be a JSON object, as Google Cloud's console gives it")
    return cast("dict[str, Any]", parsed)


def _from_info(info: dict[str, Any]) -> Callable[[Any], Any]:
    """A key is read now, so that a broken one is found before anything listens; other kinds on first use."""
    auth = _auth()
    if info.get("type") == "service_account":
        keys: Any = import_module("google.oauth2.service_account")
        try:
            made = keys.Credentials.from_service_account_info(info, scopes=SCOPES)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"credentials: not a usable service-account key ({type(error).__name__})") from None
        return lambda _ask: made
    return lambda ask: auth.load_credentials_from_dict(info, scopes=SCOPES, request=ask)[0]


def _machine() -> Callable[[Any], Any]:
    """Application default credentials: gcloud's file, the metadata server, workload identity."""
    auth = _auth()
    return lambda ask: auth.default(scopes=SCOPES, request=ask)[0]


def _auth() -> Any:
    try:
        return import_module("google.auth")
    except ImportError:
        raise ConfigError(f"Google Cloud credentials need google-auth; {EXTRA} (or give access_token)") from None


def _transport(http: Http, loop: asyncio.AbstractEventLoop) -> Callable[..., _Answer]:
    """google-auth's idea of HTTP: a blocking function, called in a thread, over the client of the loop."""
    errors: Any = import_module("google.auth.exceptions")

    def ask(
        url: str, method: str = "GET", body: Any = None, headers: Any = None, timeout: Any = None, **_: Any
    ) -> _Answer:
        data = body.encode() if isinstance(body, str) else body
        asking = http.request(
            method,
            url,
            headers=headers,
            body=data,
            timeout=float(timeout or TIMEOUT),
            retry=NO_RETRY,  # google-auth has its own idea of what may be repeated
            ok=range(100, 600),
        )
        failure = None
        try:
            reply = asyncio.run_coroutine_threadsafe(asking, loop).result()
            return _Answer(reply.status, reply.headers, reply.body)
        except ProviderError as error:
            failure = errors.TransportError(error.message)
        raise failure

    return ask
