"""Where telemetry goes and how it is written: an entry of batchway.yaml, a platform's row, OpenTelemetry's variables.

For kind `otlp` what the entry leaves out is read from `OTEL_EXPORTER_OTLP_*` (a signal's own before the general one, as
the OTLP exporter specification says); the kinds of platforms.toml read the platform's own variables instead, because
the general ones point to some collector. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` hold for all.
"""

from __future__ import annotations

import re
import tomllib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote

import msgspec

from batchway.integrations.otlp.messages import Protocol
from batchway.integrations.otlp.metrics import Temporality
from batchway.integrations.posting import checked_headers, checked_url

Signal = Literal["traces", "metrics", "logs"]
Compression = Literal["gzip", "none"]

SIGNALS: tuple[Signal, ...] = get_args(Signal)
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
COLLECTOR = "http://localhost:4318"
TIMEOUT = 10.0  # seconds: the default of the specification
VARIABLE = "OTEL_EXPORTER_OTLP_"
WORD = re.compile(r"\{(\w+)\}")


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of kind `otlp`; those of platforms have their settings too. `timeout` in seconds."""

    endpoint: str | None = None  # base: /v1/traces and so on are added
    endpoints: dict[Signal, str] = {}  # whole URLs
    signals: tuple[Signal, ...] = ()  # none: all that the place takes
    headers: dict[str, str] = {}
    protocol: Protocol | None = None
    compression: Compression | None = None
    timeout: float | None = None
    temporality: Temporality | None = None
    service_name: str | None = None
    resource: dict[str, str] = {}  # attributes
    providers: dict[str, str] = {}  # account -> gen_ai.provider.name
    join_caller: bool = False  # a batch is a child in the caller's trace, instead of a trace of its own with a link
    lines: bool = False  # a span of each answered line
    content: bool = False  # with what was asked and answered


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A platform: see the head of platforms.toml."""

    endpoint: str
    signals: tuple[Signal, ...]
    settings: dict[str, dict[str, str]]
    temporality: Temporality | None = None
    headers: dict[str, str] = {}
    basic: tuple[str, str] | None = None
    constants: dict[str, Any] = {}
    attributes: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one signal is posted, and how."""

    url: str
    headers: Mapping[str, str]
    protocol: Protocol
    gzip: bool
    timeout: float


@cache
def table() -> tuple[dict[str, Row], dict[str, str]]:
    """The platforms, and the names that the GenAI conventions have for kinds of providers."""
    parsed = tomllib.loads((Path(__file__).parent / "platforms.toml").read_text())
    names: dict[str, str] = parsed.pop("provider_names")
    return msgspec.convert(parsed, dict[str, Row]), names


def places(options: Options, row: Row | None, env: Mapping[str, str]) -> dict[Signal, Place]:
    """Where each wanted signal goes; ValueError says which setting is missing or wrong."""
    wanted = options.signals or (row.signals if row else SIGNALS)
    if row is not None and (odd := set(wanted) - set(row.signals)):
        raise ValueError(f"signals: {', '.join(sorted(odd))} cannot be sent there; it takes {', '.join(row.signals)}")
    return {signal: _place(signal, options, row, env) for signal in wanted}


def _place(signal: Signal, options: Options, row: Row | None, env: Mapping[str, str]) -> Place:
    protocol, compression, timeout = options.protocol, options.compression, options.timeout
    if row is None:
        own = _Variables(signal, env)
        base, headers = own.url(), own.headers()
        protocol, compression = protocol or own.protocol(), compression or own.compression()
        timeout = timeout or own.timeout()
    else:
        words = _settings(options, row, env)
        base, headers = f"{_filled(row.endpoint, words).rstrip('/')}/v1/{signal}", _row_headers(row, words)
    if options.endpoint is not None:
        base = f"{options.endpoint.rstrip('/')}/v1/{signal}"
    return Place(
        url=checked_url(options.endpoints.get(signal, base)),
        headers=checked_headers({**headers, **{name.lower(): value for name, value in options.headers.items()}}),
        protocol=protocol or PROTOCOLS[0],
        gzip=compression == "gzip",
        timeout=timeout or TIMEOUT,
    )


def resource(options: Options, env: Mapping[str, str]) -> dict[str, str]:
    """The attributes of who speaks."""
    said = {"service.name": "batchway", **pairs(env.get("OTEL_RESOURCE_ATTRIBUTES", "")), **options.resource}
    named = options.service_name or options.resource.get("service.name") or env.get("OTEL_SERVICE_NAME")
    return said | ({"service.name": named} if named else {})


def temporality(options: Options, row: Row | None, env: Mapping[str, str]) -> Temporality:
    """Of sums and histograms: cumulative, unless asked otherwise."""
    preferred = env.get(f"{VARIABLE}METRICS_TEMPORALITY_PREFERENCE", "").lower() if row is None else ""
    default: Temporality = "delta" if preferred in ("delta", "lowmemory") else "cumulative"
    return options.temporality or (row.temporality if row else None) or default


def pairs(text: str) -> dict[str, str]:
    """`a=1,b=2`, percent-encoded, as OpenTelemetry's variables have it; what is no pair is left out."""
    found = (part.partition("=") for part in text.split(","))
    return {unquote(key.strip()): unquote(value.strip()) for key, equals, value in found if equals and key.strip()}


@dataclass(frozen=True)
class _Variables:
    """OTEL_EXPORTER_OTLP_* for one signal."""

    signal: Signal
    env: Mapping[str, str]

    def one(self, name: str) -> str:
        """A signal's own variable, else the general one; empty counts as unset."""
        return self.env.get(f"{VARIABLE}{self.signal.upper()}_{name}") or self.env.get(VARIABLE + name) or ""

    def url(self) -> str:
        own = self.env.get(f"{VARIABLE}{self.signal.upper()}_ENDPOINT")
        base = self.env.get(f"{VARIABLE}ENDPOINT") or COLLECTOR
        return own or f"{base.rstrip('/')}/v1/{self.signal}"

    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in pairs(self.one("HEADERS")).items()}

    def protocol(self) -> Protocol:
        said = self.one("PROTOCOL") or PROTOCOLS[0]
        if said not in PROTOCOLS:
            raise ValueError(f"{VARIABLE}PROTOCOL: '{said}' is not spoken; set `protocol` to one of {list(PROTOCOLS)}")
        return said

    def compression(self) -> Compression:
        return "gzip" if self.one("COMPRESSION") == "gzip" else "none"

    def timeout(self) -> float | None:
        said = self.one("TIMEOUT")
        if said and not said.isdigit():
            raise ValueError(f"{VARIABLE}TIMEOUT: is not a number of milliseconds")
        return int(said) / 1000 if said else None


def _settings(options: Options, row: Row, env: Mapping[str, str]) -> dict[str, str]:
    words: dict[str, str] = {}
    for name, source in row.settings.items():
        value: str = getattr(options, name) or env.get(source["variable"]) or source.get("default", "")
        if not value and "default" not in source and options.endpoint is None:
            raise ValueError(f"`{name}` is missing: set it, or the variable {source['variable']}")
        words[name] = value
    return words


def _row_headers(row: Row, words: Mapping[str, str]) -> dict[str, str]:
    headers = {
        name.lower(): _filled(template, words)
        for name, template in row.headers.items()
        if all(words[word] for word in WORD.findall(template))
    }
    if row.basic and all(words[name] for name in row.basic):
        pair = ":".join(words[name] for name in row.basic)
        headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return headers


def _filled(template: str, words: Mapping[str, str]) -> str:
    return WORD.sub(lambda word: words[word[1]], template).strip()
