# noqa: INP001 - a script beside make_prices.py
"""The sources of prices, each read as it stands: what it says of a model, lane and day, in our words.

Read by `make_prices.py`, which makes the tables, and by `compare_prices.py`, which sets the sources against each other.
A source is opened as data: of the `litellm` and `metergraph-core` wheels nothing is installed or run.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import yaml
from genai_prices import types as genai

MAP = "litellm/model_prices_and_context_window_backup.json"
MAP_SHA256 = (
    "8f8060d8ce7a40c91b995c74d6a27657543d49e3c1c53430dabd556f244392c6"  # of the map in 1.109.1; 1.107.x was compromised
)
CATALOG = "metergraph_core/data/prices.yaml"
CATALOG_SHA256 = "c13869dcb904dd8f15f0a11566cf65f55c719d4c05964d993b5222daa720571d"  # of the catalog in 0.7.4
MAP_NAME, GENAI_NAME, CATALOG_NAME = "litellm 1.109.1", "genai-prices 0.2.3", "metergraph-core 0.7.4"
PARTS = {  # ours: the map's, genai-prices', the catalog's
    "input": ("input_cost_per_token", "input_mtok", "input_per_mtok"),
    "cached": ("cache_read_input_token_cost", "cache_read_mtok", "cache_read_per_mtok"),
    "cache_write": ("cache_creation_input_token_cost", "cache_write_mtok", "cache_write_5m_per_mtok"),
    "audio_input": ("input_cost_per_audio_token", "input_audio_mtok", None),
    "output": ("output_cost_per_token", "output_mtok", "output_per_mtok"),
    "audio_output": ("output_cost_per_audio_token", "output_audio_mtok", None),
    "image_output": ("output_cost_per_image_token", "output_image_mtok", None),
}
UPLIFTS = (  # what the map multiplies the figures by in one region
    "regional_endpoint_uplift_multiplier",
    "regional_processing_uplift_multiplier_eu",
    "regional_processing_uplift_multiplier_us",
)


class Known(msgspec.Struct, frozen=True):
    """Figures with their long-context tiers, who said so, and what one region's processing multiplies them by."""

    parts: dict[str, Decimal]
    long: dict[int, dict[str, Decimal]]
    source: str
    regional: Decimal | None = None


# The price map --------------------------------------------------------------------------------------------------------


def read_map(wheel: Path) -> dict[str, dict[str, Any]]:
    """The price map of the wheel, its numbers as exact decimals."""
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read(MAP)
    if hashlib.sha256(raw).hexdigest() != MAP_SHA256:
        sys.exit(f"{wheel} does not hold the price map this script was written for: look at what changed first.")
    return json.loads(raw, parse_float=Decimal)


def of_map(entry: Mapping[str, Any], lane: str) -> Known | None:
    """The map's figures for a lane; None when it has no price, or 0, which there means that nobody filled it in."""
    suffix = "_batches" if lane == "native" else ""
    parts = _map_parts(entry, suffix)
    if "input" not in parts or ("output" not in parts and entry.get("mode") != "embedding"):
        return None
    tiers = {int(found[1]) * 1000 for key in entry if (found := re.search(r"_above_(\d+)k_tokens$", key))}
    long = {tier: _map_parts(entry, f"_above_{tier // 1000}k_tokens{suffix}") for tier in tiers}
    uplifts = {Decimal(entry[key]) for key in UPLIFTS if key in entry}
    if len(uplifts) > 1:
        sys.exit(f"{entry}: the regions differ, and the tables know one surcharge only")
    tiers_known = {tier: figures for tier, figures in long.items() if "input" in figures}
    return Known(parts, tiers_known, MAP_NAME, uplifts.pop() if uplifts else None)


def _map_parts(entry: Mapping[str, Any], suffix: str) -> dict[str, Decimal]:
    figures = {part: Decimal(entry.get(keys[0] + suffix) or 0) * 1_000_000 for part, keys in PARTS.items()}
    return {part: figure for part, figure in figures.items() if figure}


# genai-prices ---------------------------------------------------------------------------------------------------------


def spells_out(clause: Any, name: str) -> bool:
    """Whether a clause means exactly this name, or a pattern that is anchored at both ends."""
    match clause:
        case genai.ClauseEquals(equals=text):
            return text == name
        case genai.ClauseRegex(regex=text):
            return text.startswith("^") and text.endswith("$") and bool(re.fullmatch(text, name))
        case genai.ClauseOr(or_=clauses):
            return any(spells_out(inner, name) for inner in clauses)
        case _:
            return False


def names_in(clause: Any) -> Iterator[str]:
    """The names that a clause lists one by one."""
    match clause:
        case genai.ClauseEquals(equals=text):
            yield text
        case genai.ClauseOr(or_=clauses):
            for inner in clauses:
                yield from names_in(inner)
        case _:
            pass


def of_genai(model: genai.ModelInfo, lane: str, day: date) -> Known | None:
    """The figures of a day. A batch price counts only where it is written: the package itself falls back to live."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if lane == "executed":
        prices: dict[str, Any] = vars(model.get_prices(moment))
    else:
        prices = {}
        for variant in model.price_variants or ():
            current = variant.constraint is None or variant.constraint.active(moment)
            if current and variant.when == {"processing": "batch"}:
                prices = {**vars(variant.prices), **prices}
    found = {part: prices[keys[1]] for part, keys in PARTS.items() if prices.get(keys[1])}
    if "input" not in found:
        return None
    tiers = {tier.start for value in found.values() if isinstance(value, genai.TieredPrices) for tier in value.tiers}
    long = {tier: {part: _at(value, tier + 1) for part, value in found.items()} for tier in tiers}
    return Known({part: _at(value, 0) for part, value in found.items()}, long, GENAI_NAME)


def _at(value: Any, tokens: int) -> Decimal:
    if not isinstance(value, genai.TieredPrices):
        return value
    return next((tier.price for tier in reversed(value.tiers) if tokens > tier.start), value.base)


def changes_of(model: genai.ModelInfo) -> list[date]:
    """The days on which a price of this model begins."""
    dated = [*(model.prices if isinstance(model.prices, list) else []), *(model.price_variants or [])]
    starts = {item.constraint.start_date for item in dated if isinstance(item.constraint, genai.StartDateConstraint)}
    return sorted(starts)


def check_genai() -> None:
    """Ends the script when another version is installed than the one it was written for."""
    if f"genai-prices {version('genai-prices')}" != GENAI_NAME:
        sys.exit(f"This script was written for {GENAI_NAME}: look at what changed first.")


# The catalog ----------------------------------------------------------------------------------------------------------

CHANNELS = {  # the catalog's: our kind
    "openai-api": "openai",
    "anthropic-api": "anthropic",
    "google-api": "gemini",
    "google-vertex-ai": "vertex",
    "mistral-api": "mistral",
    "xai-api": "xai",
}


def read_catalog(wheel: Path) -> list[dict[str, Any]]:
    """The models of the third source, which is opened as an archive as well."""
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read(CATALOG)
    if hashlib.sha256(raw).hexdigest() != CATALOG_SHA256:
        sys.exit(f"{wheel} does not hold the catalog this script was written for: look at what changed first.")
    return yaml.load(raw, Loader=_Exact)["models"]  # noqa: S506 - it is a safe loader


class _Exact(yaml.SafeLoader):
    """Numbers as exact decimals."""


_Exact.add_constructor("tag:yaml.org,2002:float", lambda loader, node: Decimal(loader.construct_scalar(node)))


def of_catalog(models: list[dict[str, Any]], day: date) -> Iterator[tuple[str, str, str, dict[str, Decimal]]]:
    """(kind, name, lane, figures) of every name that a provider's own price list has on that day.

    A name that several models bear, as moving ones like `-latest` do, says nothing.
    """
    bearers = Counter(alias for model in models for alias in {alias["alias"] for alias in model["aliases"]})
    for model in models:
        for price in model.get("prices", ()):
            kind = CHANNELS.get(price["channel"])
            begun = price["effective_from"] <= f"{day}" < price.get("effective_to", "9999")
            if kind is None or price["region"] != "global" or not begun:
                continue
            for alias in model["aliases"]:
                name = alias["alias"]
                if alias["channel"] == price["channel"] and "/" not in name and bearers[name] == 1:
                    yield kind, name, "executed", _catalog_parts(price, "")
                    yield kind, name, "native", _catalog_parts(price, "batch_")


def _catalog_parts(price: Mapping[str, Any], prefix: str) -> dict[str, Decimal]:
    found = {part: price.get(f"{prefix}{keys[2]}") for part, keys in PARTS.items() if keys[2]}
    return {part: Decimal(figure) for part, figure in found.items() if figure}
