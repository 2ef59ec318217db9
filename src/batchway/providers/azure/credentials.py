"""Who we are at Microsoft Entra ID: bearer tokens for a scope, kept until shortly before they end.

The exchange for a client's secret is one POST and is made here; managed and workload identities have many forms and are
left to `azure-identity`, an optional extra that is imported on first use. Invariant: a token or a secret stands in no
message, no log and no `repr`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from batchway.core.errors import ConfigError, Fault, ProviderError
from batchway.http import SAFE, Http

log = logging.getLogger(__name__)

AUTHORITY = "https://login.microsoftonline.com"
OPENAI_SCOPE = "https://cognitiveservices.azure.com/.default"
STORAGE_SCOPE = "https://storage.azure.com/.default"
EARLY = 300.0  # seconds before its end at which a token is renewed
TIMEOUT = 30.0

Identity = Literal["managed", "workload", "default"]
CLASSES: Mapping[Identity, str] = {
    "managed": "ManagedIdentityCredential",
    "workload": "WorkloadIdentityCredential",
    "default": "DefaultAzureCredential",
}


@dataclass(frozen=True)
class Token:
    """A bearer token and when it ends, in unix seconds."""

    value: str = field(repr=False)
    ends_at: float


Ask = Callable[[], Awaitable[Token]]


class Tokens:
    """The token of one scope: asked for once, by whoever needs it first, and again before it ends."""

    def __init__(self, ask: Ask, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._token: Token | None = None
        self._lock = asyncio.Lock()

    async def headers(self) -> Mapping[str, str]:
        """The header of a request; ProviderError when there is no token to be had."""
        async with self._lock:
            token = self._token
            if token is None or self._clock() >= token.ends_at - EARLY:
                token = self._token = await self._renewed(token)
        return {"authorization": f"Bearer {token.value}"}

    async def _renewed(self, old: Token | None) -> Token:
        try:
            return await self._ask()
        except ProviderError as error:
            if old is None or self._clock() >= old.ends_at:
                raise
            log.warning("a token could not be renewed yet: %s", error.message)
            return old


class _Exchanged(msgspec.Struct):
    access_token: str
    expires_in: float


@dataclass(frozen=True, kw_only=True)
class Client:
    """An application that Entra ID knows, with its secret."""

    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)
    authority: str = AUTHORITY

    def exchange(self, http: Http, scope: str, clock: Callable[[], float]) -> Ask:
        """What asks for a token by the client-credentials grant."""
        url = f"{self.authority.rstrip('/')}/{self.tenant_id}/oauth2/v2.0/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": scope,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}

        async def ask() -> Token:
            asked = clock()
            try:
                reply = await http.request(
                    "POST", url, headers=headers, body=urlencode(form).encode(), timeout=TIMEOUT, retry=SAFE
                )
                found = msgspec.json.decode(reply.body, type=_Exchanged)
            except msgspec.DecodeError:
                raise ProviderError("the answer of the token exchange is unreadable", fault=Fault.TRANSIENT) from None
            except ProviderError as error:
                if error.status in (400, 401, 403):  # Entra ID answers 400 to an unknown tenant or client
                    message = f"Entra ID refuses the client: {error.message}"
                    raise ProviderError(message, fault=Fault.DENIED, status=error.status, code=error.code) from None
                raise
            return Token(found.access_token, asked + found.expires_in)

        return ask


def from_identity(kind: Identity, client_id: str | None, scope: str) -> Ask:
    """What asks `azure-identity` for a token; ConfigError without that package."""
    if find_spec("azure") is None or find_spec("azure.identity") is None:
        raise ConfigError(f"identity: {kind} needs the package azure-identity: pip install 'batchway[azure]'")
    opened: list[Any] = []

    def ask_in_thread() -> Token:
        failed: Any = import_module("azure.core.exceptions")
        try:
            if not opened:
                named = {"client_id": client_id} if client_id and kind != "default" else {}
                opened.append(getattr(import_module("azure.identity"), CLASSES[kind])(**named))
            token = opened[0].get_token(scope)
        except (failed.ClientAuthenticationError, ValueError) as error:
            # Not chained: the SDK's errors quote what the identity service said.
            failure = ProviderError(f"the {kind} identity has no token: {type(error).__name__}", fault=Fault.DENIED)
        except failed.AzureError as error:
            message = f"the {kind} identity gives no token now: {type(error).__name__}"
            failure = ProviderError(message, fault=Fault.TRANSIENT)
        else:
            return Token(token.token, float(token.expires_on))
        raise failure

    async def ask() -> Token:
        return await asyncio.to_thread(ask_in_thread)

    return ask
