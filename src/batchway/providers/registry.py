"""Finds the providers and opens the accounts of the settings. No provider is named here.

A provider with behaviour is a folder with `provider.py` (see protocol.py); one without is a table in compatible.toml.
"""

from __future__ import annotations

import difflib
import pkgutil
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from batchway.core.errors import ConfigError
from batchway.core.jobs import Limits
from batchway.executor import Executor
from batchway.providers import compatible
from batchway.providers.protocol import Account, Provider, Tools

FOLDER = Path(__file__).parent


def kinds() -> dict[str, Any]:
    """What opens each kind, for every provider folder and every compatible row."""
    found: dict[str, Any] = {row.kind: row for row in rows()}
    for module in pkgutil.iter_modules([str(FOLDER)]):
        if module.ispkg and (FOLDER / module.name / "provider.py").exists():
            provider = import_module(f"batchway.providers.{module.name}.provider")
            found[provider.KIND] = provider
    return found


def rows() -> list[compatible.Row]:
    """The tables of compatible.toml."""
    tables = tomllib.loads((FOLDER / "compatible.toml").read_text())
    return [
        compatible.Row(
            kind=kind,
            base_url=table["base_url"],
            variable=table["key"],
            limits=Limits(
                lines=table["lines"],
                bytes=table["bytes"],
                endpoints=frozenset(table["endpoints"]),
                windows=tuple(table["windows"]),
            ),
        )
        for kind, table in tables.items()
    ]


def entries(configured: Mapping[str, Mapping[str, Any]], env: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The configured entries, and those that the providers' usual environment variables make."""
    found = {name: dict(entry) for name, entry in configured.items()}
    taken = {entry.get("kind", name) for name, entry in found.items()}
    for kind, opener in kinds().items():
        if kind not in taken and (entry := opener.from_environment(env)) is not None:
            found[kind] = entry
    return found


def open_accounts(wanted: Mapping[str, Mapping[str, Any]], tools: Tools) -> list[Account]:
    """The accounts; ConfigError names the entry, the field and the nearest good name."""
    openers = kinds()
    return [_open(name, dict(entry), openers, tools) for name, entry in wanted.items()]


def aliases() -> dict[str, str]:
    """Other words for a kind, as prefixes of model names."""
    return {alias: kind for kind, opener in kinds().items() for alias in getattr(opener, "ALIASES", ())}


def _open(name: str, entry: dict[str, Any], openers: Mapping[str, Any], tools: Tools) -> Account:
    kind = entry.pop("kind", name)
    if kind not in openers:
        near = difflib.get_close_matches(kind, list(openers), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known kinds: {', '.join(sorted(openers))}"
        raise ConfigError(f"providers.{name}: unknown kind '{kind}'; {hint}")
    options_type: type[msgspec.Struct] = openers[kind].Options
    allowed = [field.encode_name for field in msgspec.structs.fields(options_type)]
    for key in entry:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(allowed)}"
            raise ConfigError(f"providers.{name}: unknown setting '{key}'; {hint}")
    try:
        options = msgspec.convert(entry, options_type, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"providers.{name}: {error}") from None
    return openers[kind].open_account(name, options, tools)


def open_executed(executor: Executor) -> Provider:
    """The executor as a provider: the lane of every account without a native one."""
    carrier = next(opener for opener in kinds().values() if hasattr(opener, "open_executed"))
    return carrier.open_executed(executor)
