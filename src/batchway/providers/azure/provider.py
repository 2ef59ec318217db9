"""Azure OpenAI and Foundry: the native batch lane, over the v1 surface or a dated api-version, over files or blobs.

Limits, sources, settings and gaps stand in README.md beside this file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import msgspec

from batchway.core.errors import ConfigError
from batchway.core.jobs import Limits
from batchway.providers.azure.blobs import Access, Blobs
from batchway.providers.azure.credentials import (
    AUTHORITY,
    OPENAI_SCOPE,
    STORAGE_SCOPE,
    Client,
    Identity,
    Tokens,
    from_identity,
)
from batchway.providers.azure.native import AzureJobs, BlobJobs
from batchway.providers.protocol import Account, Endpoint, Provider, Tools
from batchway.providers.shared.file_jobs import Dealer

KIND = "azure"
ALIASES = ("azure_openai",)

# learn.microsoft.com/azure/foundry/openai/how-to/batch, read August to November 2026.
LINES = 100_000
FILE_BYTES = 200_000_000
BLOB_BYTES = 1_000_000_000
ENDPOINTS = ("/v1/chat/completions", "/v1/responses")
EXTENDED = "2025-04-01"  # the first api-version with blobs and with an expiry of files
FILE_DAYS = 14  # the shortest expiry there is; with one, a resource may hold 10,000 files instead of 500
PROCESSING = 600.0  # seconds


class Deployment(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A deployment: `base_model` is what it serves, `data_zone` (`eu`, `us`) where: zones have prices of their own."""

    base_model: str | None = None
    data_zone: Annotated[str, msgspec.Meta(pattern=r"^[a-z-]+$")] | None = None


class BlobStorage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where inputs and outputs lie instead of in files: a container that the Azure resource may read and write."""

    container_url: str
    prefix: str = "batchway"
    account_key: str | None = None
    sas: str | None = None
    scope: str = STORAGE_SCOPE


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An entry of `providers` in batchway.yaml."""

    endpoint: str | None = None  # https://<resource>.openai.azure.com
    base_url: str | None = None  # or the whole address of the v1 surface
    api_version: str | None = None  # a date; without one, the v1 surface
    api_key: str | None = None
    ad_token: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    identity: Identity | None = None
    authority: str = AUTHORITY
    scope: str = OPENAI_SCOPE
    deployments: dict[str, Deployment | None] | list[str] = []
    endpoints: list[str] = msgspec.field(default_factory=lambda: list(ENDPOINTS))
    storage: BlobStorage | None = None
    executed: bool = False  # whether its deployments also answer single requests; those for batches do not
    concurrency: int = 512
    timeout: float = 600.0
    max_lines: int = LINES
    max_bytes: int | None = None


_VARIABLES = {
    "api_version": "OPENAI_API_VERSION",
    "api_key": "AZURE_OPENAI_API_KEY",
    "ad_token": "AZURE_OPENAI_AD_TOKEN",
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "client_secret": "AZURE_CLIENT_SECRET",
    "authority": "AZURE_AUTHORITY_HOST",
}


def from_environment(env: Mapping[str, str]) -> dict[str, object] | None:
    """The entry that AZURE_OPENAI_ENDPOINT and the variables of Azure's own SDKs make."""
    if not env.get("AZURE_OPENAI_ENDPOINT"):
        return None
    entry: dict[str, object] = {"endpoint": env["AZURE_OPENAI_ENDPOINT"]}
    entry |= {option: env[variable] for option, variable in _VARIABLES.items() if env.get(variable)}
    if env.get("AZURE_FEDERATED_TOKEN_FILE") and not entry.keys() & {"api_key", "ad_token", "client_secret"}:
        entry["identity"] = "workload"
    return entry


def open_account(name: str, options: Options, tools: Tools) -> Account:
    """The account; ConfigError when its settings do not fit together."""
    try:
        base_url, query = _address(options)
        headers, authorize = _credentials(options, tools)
        native = _native(options, tools, Dealer(
            base_url=base_url,
            headers=headers,
            authorize=authorize,
            limits=_limits(options),
            query=query,
            fields=_expiry(options),
            spelled=_spelled(options),
            processing=PROCESSING,
        ))  # fmt: skip
        endpoint = _endpoint(options, base_url, headers)
    except ConfigError as error:
        raise ConfigError(f"providers.{name}: {error}") from None
    bases = _bases(options)
    names = {*bases, *bases.values()}
    zones = _zones(options, bases)
    return Account(
        name=name,
        kind=KIND,
        native=native,
        endpoint=endpoint,
        models=tuple(bases),
        known=lambda model: model in names,
        priced_as=lambda model: zones.get(model, "") + bases.get(model, model),
    )


def _address(options: Options) -> tuple[str, dict[str, str]]:
    """The address of the batch API and the query of every call."""
    if (options.endpoint is None) == (options.base_url is None):
        raise ConfigError("either 'endpoint' (https://<resource>.openai.azure.com) or 'base_url'")
    if options.base_url is not None:
        if options.api_version and options.api_version != "preview":
            raise ConfigError("'base_url' is the v1 surface: an 'api_version' goes with 'endpoint'")
        return options.base_url.rstrip("/"), _preview(options)
    root = str(options.endpoint).rstrip("/").removesuffix("/openai/v1").removesuffix("/openai")
    if _dated(options):
        return f"{root}/openai", {"api-version": str(options.api_version)}
    return f"{root}/openai/v1", _preview(options)


def _preview(options: Options) -> dict[str, str]:
    return {"api-version": "preview"} if options.api_version == "preview" else {}


def _dated(options: Options) -> bool:
    return options.api_version not in (None, "", "preview", "latest", "v1")


def _extended(options: Options) -> bool:
    return not _dated(options) or str(options.api_version) >= EXTENDED


def _credentials(
    options: Options, tools: Tools
) -> tuple[dict[str, str], Callable[[], Awaitable[Mapping[str, str]]] | None]:
    """Headers that stay, or what gives those that change; one way in is chosen, in the order of Azure's own client."""
    if options.api_key:
        return {"api-key": options.api_key}, None
    if options.ad_token:
        return {"authorization": f"Bearer {options.ad_token}"}, None
    return {}, _tokens(options, tools, options.scope)


def _tokens(options: Options, tools: Tools, scope: str) -> Callable[[], Awaitable[Mapping[str, str]]]:
    if options.identity:
        return Tokens(from_identity(options.identity, options.client_id, scope), tools.clock).headers
    given = {name: getattr(options, name) for name in ("tenant_id", "client_id", "client_secret")}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        ways = "api_key, ad_token, identity, or tenant_id with client_id and client_secret"
        raise ConfigError(f"no credentials: {ways}")
    if missing:
        raise ConfigError(f"half of a client's credentials: {', '.join(missing)} is missing")
    client = Client(**given, authority=options.authority)
    return Tokens(client.exchange(tools.http, scope, tools.clock), tools.clock).headers


def _native(options: Options, tools: Tools, dealer: Dealer) -> Provider:
    bases, storage = _bases(options), options.storage
    if storage is None:
        return AzureJobs(dealer, tools.http, bases)
    if not _extended(options):
        raise ConfigError(f"storage: blobs need the v1 surface or an api_version from {EXTENDED}-preview on")
    tokens = None if storage.account_key or storage.sas else _tokens(options, tools, storage.scope)
    access = Access(account_key=storage.account_key, sas=storage.sas, tokens=tokens)
    container = storage.container_url.rstrip("/")
    blobs = Blobs(tools.http, container, access, tools.clock)
    return BlobJobs(dealer, tools.http, bases, (blobs, container, storage.prefix.strip("/")))


def _endpoint(options: Options, base_url: str, headers: Mapping[str, str]) -> Endpoint | None:
    if not options.executed:
        return None
    if _dated(options) or not headers:
        raise ConfigError("executed: single requests need the v1 surface and an api_key or ad_token")
    return Endpoint(base_url=base_url, headers=headers, concurrency=options.concurrency, timeout=options.timeout)


def _limits(options: Options) -> Limits:
    room = BLOB_BYTES if options.storage else FILE_BYTES
    return Limits(lines=options.max_lines, bytes=options.max_bytes or room, endpoints=frozenset(options.endpoints))


def _expiry(options: Options) -> dict[str, str]:
    if not _extended(options):
        return {}
    return {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(FILE_DAYS * 86_400)}


def _spelled(options: Options) -> Callable[[str], str]:
    """The paths in lines and batches: dated api-versions know chat completions without a version of its own."""
    if not _dated(options):
        return lambda endpoint: endpoint
    return lambda endpoint: "/chat/completions" if endpoint == "/v1/chat/completions" else endpoint


def _zones(options: Options, bases: Mapping[str, str]) -> dict[str, str]:
    """What the price table writes before the model of a deployment, or of the deployments of a base model.

    The price of a base model is unknown when its deployments are in several zones.
    """
    listed = options.deployments if isinstance(options.deployments, dict) else {}
    zones = {name: f"{given.data_zone}/" if given and given.data_zone else "" for name, given in listed.items()}
    for base in set(bases.values()) - zones.keys():
        around = {zones.get(name, "") for name in bases if bases[name] == base}
        zones[base] = around.pop() if len(around) == 1 else "several zones/"
    return zones


def _bases(options: Options) -> dict[str, str]:
    if isinstance(options.deployments, list):
        return {name: name for name in options.deployments}
    return {name: (given and given.base_model) or name for name, given in options.deployments.items()}
