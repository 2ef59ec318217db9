"""Settings: the defaults, then batchway.yaml, then BATCHWAY_* variables, then what the command line says.

Every key of the file is also a variable (`port` is BATCHWAY_PORT; tables are YAML in one variable). `${VAR}` in the
file reads a variable, `${file:/run/secrets/x}` a file; a value that `batchway seal` made is unsealed. Nothing is
guessed: an unknown key, a missing variable, a wrong type is a ConfigError that names the place and the nearest good
name, before anything listens.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import yaml

from batchway.core.errors import ConfigError
from batchway.vault import Vault, is_sealed

Role = Literal["api", "worker", "poller", "housekeeping"]
ROLES: tuple[Role, ...] = ("api", "worker", "poller", "housekeeping")
PREFIX = "BATCHWAY_"
ELSEWHERE = frozenset({"BATCHWAY_BASE_URL", "BATCHWAY_API_KEY", "BATCHWAY_CONFIG"})  # read by the SDK and the command
YAML_KEYS = ("providers", "models", "prices", "budget", "receivers")
REFERENCE = re.compile(r"\$\{(?:file:(?P<file>[^}]+)|(?P<variable>\w+))\}")
CREDENTIAL = re.compile(r"(?:^|_)(?:key|secret|token|password|sas|credentials|authorization)$|^database_url$")
NO_CREDENTIAL = frozenset({"kms_key"})  # a name


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a gateway is started with. Sizes in bytes, times in seconds."""

    home: str = "~/.batchway"
    database_url: str | None = None  # default: SQLite in `home`
    storage_url: str | None = None  # default: files in `home`
    host: str = "127.0.0.1"
    port: int = 4000
    roles: list[Role] = msgspec.field(default_factory=lambda: list(ROLES))
    master_key: str | None = None  # unset: the first start makes one and prints it once
    no_auth: bool = False  # only on a loopback address
    max_file_bytes: int = 8 << 30
    poll_seconds: float = 1.0  # the shortest interval between two looks at a provider's job
    worker_chunks: int = 8  # chunks that one worker executes at a time
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    metrics_open: bool = False  # /metrics without a key
    metrics_port: int | None = None  # where a process that serves no API serves /metrics and /health
    trusted_proxies: list[str] = []  # networks whose X-Forwarded-For is believed
    secret_key: str | None = None  # seals secrets at rest; unset: a key file in `home`
    providers: dict[str, dict[str, Any]] = {}
    models: dict[str, list[str]] = {}
    prices: dict[str, dict[str, Any] | list[dict[str, Any]]] = {}  # the operator's own, by route; see billing/own.py
    unknown_prices: Literal["budgeted", "refuse", "allow"] = "budgeted"  # whose batches are refused for one
    budget: dict[str, Any] | None = None  # of the whole gateway: {usd, period}
    receivers: list[dict[str, Any]] = []  # who is told of events; see integrations/registry.py

    @property
    def folder(self) -> Path:
        """The home folder, expanded."""
        return Path(self.home).expanduser().absolute()

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.folder / 'batchway.db'}"

    @property
    def storage(self) -> str:
        """The storage's URL."""
        return self.storage_url or f"file://{self.folder / 'storage'}"

    @property
    def vault(self) -> Vault:
        """What secrets at rest are sealed with; ConfigError when its key cannot be one."""
        return Vault(self.secret_key, self.folder, shared=not self.database.startswith("sqlite"))

    @property
    def loopback(self) -> bool:
        """Whether `host` can be reached from this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


KEYS = {field.name: field for field in msgspec.structs.fields(Settings)}


def load(
    config: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings; ConfigError when any of them cannot work."""
    env = os.environ if env is None else env
    values: dict[str, Any] = {}
    if config is not None:
        values |= _read_file(config, env)
    values |= _read_environment(env)
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    values = _unsealed(values)
    for role in values.get("roles") or ():
        _known(str(role), f"roles: unknown role '{role}'", list(ROLES))
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"settings: {error}") from None
    _check(settings)
    return settings


def _read_file(path: Path, env: Mapping[str, str]) -> dict[str, Any]:
    try:
        parsed: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML{_place_of(error)}") from None
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path}: must be a table of settings")
    table = cast("dict[str, Any]", parsed)
    for key in table:
        _known(str(key), f"{path}: unknown setting '{key}'", list(KEYS))
    return {key: _expand(value, env, f"{path}: {key}") for key, value in table.items()}


def _read_environment(env: Mapping[str, str]) -> dict[str, Any]:
    names = {PREFIX + key.upper(): key for key in KEYS}
    values: dict[str, Any] = {}
    for variable, text in env.items():
        if not variable.startswith(PREFIX) or variable in ELSEWHERE or text == "":
            continue
        _known(variable, f"unknown variable {variable}", [*names, *ELSEWHERE])
        key = names[variable]
        values[key] = _from_text(key, text)
    return values


def _from_text(key: str, text: str) -> Any:
    if key in ("roles", "trusted_proxies"):
        return [word.strip() for word in text.split(",")]
    if key in YAML_KEYS:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{PREFIX}{key.upper()}: is not YAML{_place_of(error)}") from None
    return text


def _place_of(error: Exception) -> str:
    """Where it went wrong, without the line itself: that may hold a key."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    return f": line {mark.line + 1}: {problem}" if mark is not None else ""


def _known(key: str, problem: str, allowed: list[str]) -> None:
    if key in allowed:
        return
    near = difflib.get_close_matches(key, allowed, n=1)
    raise ConfigError(
        f"{problem}; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(allowed))}")
    )


def _expand(value: Any, env: Mapping[str, str], place: str) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, env, f"{place}.{key}") for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_expand(item, env, place) for item in cast("list[Any]", value)]
    if not isinstance(value, str):
        return value

    def read(match: re.Match[str]) -> str:
        if match["file"]:
            return _secret_file(Path(match["file"]), place)
        if match["variable"] not in env:
            raise ConfigError(f"{place}: the variable {match['variable']} is not set")
        return env[match["variable"]]

    return REFERENCE.sub(read, value)


def _secret_file(path: Path, place: str) -> str:
    """What a file holds, without the line break at its end."""
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{place}: the file {path} cannot be read: {why}") from None


def _unsealed(values: dict[str, Any]) -> dict[str, Any]:
    """The same values with sealed ones opened; the vault is asked for only where there are any."""
    if not _any_sealed(values):
        return values
    told = {key: values[key] for key in ("home", "database_url", "secret_key") if isinstance(values.get(key), str)}
    vault = Settings(**told).vault
    opened: dict[str, Any] = {}
    for key, value in values.items():
        try:
            opened[key] = vault.unseal_all(value)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None
    return opened


def _any_sealed(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_any_sealed, cast("dict[str, Any]", value).values()))
    if isinstance(value, list):
        return any(map(_any_sealed, cast("list[Any]", value)))
    return is_sealed(value)


def plain_credentials(path: Path) -> list[str]:
    """The places in a good file where a credential stands as it is: neither sealed nor read from elsewhere."""
    return list(_plain(yaml.safe_load(path.read_text(encoding="utf-8")), ""))


def _plain(value: Any, place: str) -> Iterator[str]:
    name = place.rpartition(".")[2]
    if isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            yield from _plain(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _plain(item, place)
    elif isinstance(value, str) and CREDENTIAL.search(name.lower()) and name not in NO_CREDENTIAL:
        if name == "database_url" and not re.search(r"//[^/@]*:[^/@]+@", value):
            return  # there is no password in it
        if name == "credentials" and not value.lstrip().startswith("{"):
            return  # the name of a file
        if not (is_sealed(value) or REFERENCE.search(value)):
            yield place


def _check(settings: Settings) -> None:
    if not 0 <= settings.port <= 65535:
        raise ConfigError(f"port: {settings.port} is not between 0 and 65535")
    if settings.metrics_port is not None and not 0 <= settings.metrics_port <= 65535:
        raise ConfigError(f"metrics_port: {settings.metrics_port} is not between 0 and 65535")
    if not settings.roles:
        raise ConfigError(f"roles: at least one of {', '.join(ROLES)}")
    if settings.no_auth and not settings.loopback:
        raise ConfigError(f"no_auth: refused on {settings.host}; listen on 127.0.0.1, or use keys")
    if settings.master_key is not None and len(settings.master_key) < 8:
        raise ConfigError("master_key: at least 8 characters")
    for text in settings.trusted_proxies:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ConfigError(f"trusted_proxies: '{text}' is no network such as 10.0.0.0/8") from None
