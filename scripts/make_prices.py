#!/usr/bin/env python3
"""Brings `src/batchway/billing/tables/` up to date from two pinned sources, and says what changed.

    python3 -m pip download --no-deps --only-binary :all: litellm==1.109.1
    python scripts/make_prices.py litellm-1.109.1-*.whl --date 2026-11-22

The sources are the installed `genai-prices` and the price map inside the `litellm` wheel, which is opened as an archive
and neither installed nor run. The invariant: a row that stands in a table is never changed. A figure that differs from
the row in force becomes a new row, valid from `--date`; what a source announces for later is dated as announced.

Each source is a witness for the names it spells out; a pattern that merely fits a name is none. What two witnesses
disagree on, a batch price that does not say what long prompts cost, and models billed by more than text tokens make no
row: they are listed in `left_out.tsv`. The parts of a batch price that may be completed by rule stand in `complete`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from genai_prices import types as genai
from genai_prices.data import providers as genai_providers

from batchway.billing.prices import TABLES, LongFigures, Row

MAP = "litellm/model_prices_and_context_window_backup.json"
MAP_SHA256 = (
    "8f8060d8ce7a40c91b995c74d6a27657543d49e3c1c53430dabd556f244392c6"  # of the map in 1.109.1; 1.107.x was compromised
)
MAP_NAME, GENAI_NAME = "litellm 1.109.1", "genai-prices 0.2.3"
TOKEN_MODES = {"chat", "completion", "responses", "embedding"}
OTHER_UNITS = re.compile(r"audio|realtime|live|tts|image|lyria|transcribe|whisper|voxtral|ocr|-search|deep-research")
PARTS = {  # ours: the map's, genai-prices'
    "input": ("input_cost_per_token", "input_mtok"),
    "cached": ("cache_read_input_token_cost", "cache_read_mtok"),
    "cache_write": ("cache_creation_input_token_cost", "cache_write_mtok"),
    "output": ("output_cost_per_token", "output_mtok"),
}
HALF = Decimal("0.5")


class Kind(msgspec.Struct):
    """Where a kind's figures stand: the map's providers and name prefixes, and the id at genai-prices.

    `halves`: names of models whose provider publishes that a batch halves every part of the live price, cache and long
    context too. `cached_as_live`: names whose cached tokens cost the same in both lanes, if nothing is listed for them
    (`unstacked`: whatever is listed, since the provider says that the two discounts do not add up).
    """

    providers: str  # pattern
    prefixes: tuple[str, ...] = ()
    genai: str | None = None
    halves: str = "(?!)"
    cached_as_live: str = "(?!)"
    unstacked: bool = False


CLAUDE = r".*claude-.*"
KINDS = {
    "openai": Kind("openai|text-completion-openai", ("openai/",), "openai", halves=".*"),
    "azure": Kind("azure", ("azure/",), "azure", halves=".*"),
    "anthropic": Kind("anthropic", (), "anthropic", halves=".*"),
    # genai-prices does not tell Vertex from the Gemini API, so it is a witness for the latter only.
    "vertex": Kind(r"vertex_ai.*", ("vertex_ai/",), None, halves=CLAUDE, cached_as_live=r"gemini-.*", unstacked=True),
    "gemini": Kind("gemini", ("gemini/",), "google", cached_as_live=r"gemini-.*"),
    "bedrock": Kind("bedrock|bedrock_converse", ("bedrock/",), "aws", halves=CLAUDE),
    "mistral": Kind("mistral", ("mistral/",), "mistral"),
    "groq": Kind("groq", ("groq/",), "groq"),
    "xai": Kind("xai", ("xai/",), "x-ai"),
    "dashscope": Kind("dashscope", ("dashscope/",)),
}


class Known(msgspec.Struct, frozen=True):
    """Figures with their long-context tiers and who said so."""

    parts: dict[str, Decimal]
    long: dict[int, dict[str, Decimal]]
    source: str


class Unusable(Exception):
    """Why a name gets no row."""


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
    return Known(parts, {tier: figures for tier, figures in long.items() if "input" in figures}, MAP_NAME)


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


# Both together --------------------------------------------------------------------------------------------------------


def agreed(one: Known | None, other: Known | None) -> Known | None:
    """What two witnesses say together; Unusable when they contradict each other."""
    if one is None or other is None:
        return one or other
    source = one.source if one.source == other.source else f"{one.source}, {other.source}"
    # The map names a tier by thousands, so one token less is the same tier, told more exactly.
    one = Known(one.parts, {tier - (tier - 1 in other.long): figures for tier, figures in one.long.items()}, source)
    if one.long and other.long and one.long.keys() != other.long.keys():
        raise Unusable(f"the sources disagree: long context above {[*one.long]} or {[*other.long]}")
    long = {tier: _merged(one.long.get(tier, {}), other.long.get(tier, {})) for tier in {**one.long, **other.long}}
    return Known(_merged(one.parts, other.parts), long, source)


def _merged(one: dict[str, Decimal], other: dict[str, Decimal]) -> dict[str, Decimal]:
    for part in PARTS:
        if part in one and part in other and one[part] != other[part]:
            raise Unusable(f"the sources disagree: {part} {_text(one[part])} or {_text(other[part])}")
    return {**one, **other}


def complete(kind: Kind, name: str, batch: Known, live: Known | None) -> Known:
    """A batch price with the parts its table does not list, where the provider publishes the rule for them."""
    if live is None:
        return batch
    if re.fullmatch(kind.halves, name):
        batch = _halved(batch, live)
    elif re.fullmatch(kind.cached_as_live, name):
        batch = _cached_as_live(batch, live, always=kind.unstacked)
    if live.long.keys() - batch.long.keys():
        raise Unusable("no batch price for long context")
    return batch


def _halved(batch: Known, live: Known) -> Known:
    parts = {**_half(live.parts), **batch.parts}
    long = {**batch.long, **{tier: {**_half(live.long[tier]), **batch.long.get(tier, {})} for tier in live.long}}
    notes = [f"{part} half of live" for part in PARTS if part in parts and part not in batch.parts]
    notes += ["long context half of live"] if long != batch.long else []
    return Known(parts, long, "; ".join([batch.source, *notes]))


def _half(figures: dict[str, Decimal]) -> dict[str, Decimal]:
    return {part: figure * HALF for part, figure in figures.items()}


def _cached_as_live(batch: Known, live: Known, *, always: bool) -> Known:
    def carried(figures: dict[str, Decimal], lively: dict[str, Decimal]) -> dict[str, Decimal]:
        keep = "cached" not in lively or ("cached" in figures and not always)
        return figures if keep else {**figures, "cached": lively["cached"]}

    parts = carried(batch.parts, live.parts)
    long = {tier: carried(figures, live.long.get(tier, {})) for tier, figures in batch.long.items()}
    changed = (parts, long) != (batch.parts, batch.long)
    return Known(parts, long, f"{batch.source}; cached as live" if changed else batch.source)


def rows_of(kind: Kind, name: str, entries: list[Mapping[str, Any]], today: date) -> dict[str, list[Row]]:
    """The rows of a name by lane, oldest first; Unusable when today's live price is."""
    model = _witness(kind, name)
    days = [date.min, *changes_of(model)] if model else [date.min]
    spans = list(zip(days, [*days[1:], date.max], strict=True))
    rows: dict[str, list[Row]] = {"executed": [], "native": []}
    for start, end in spans:
        inside = min(max(start, today), end - timedelta(days=1)) if start <= today else start
        current = entries if start <= today < end else []
        known = {lane: _known(model, current, lane, inside) for lane in rows}
        if known["native"]:
            known["native"] = complete(kind, name, known["native"], known["executed"])
        for lane, figures in known.items():
            if figures:
                # A first row answers for all time before the next, unless the live price is known to have changed.
                begins = start if rows[lane] or len(rows["executed"]) > 1 else None
                _append(rows[lane], _row(name, lane, figures, (begins, today)))
    return rows


def _models(kind: Kind) -> list[genai.ModelInfo]:
    return [model for provider in genai_providers if provider.id == kind.genai for model in provider.models]


def _witness(kind: Kind, name: str) -> genai.ModelInfo | None:
    return next((model for model in _models(kind) if spells_out(model.match, name)), None)


def _known(model: genai.ModelInfo | None, entries: list[Mapping[str, Any]], lane: str, day: date) -> Known | None:
    known = of_genai(model, lane, day) if model else None
    for entry in entries:
        known = agreed(of_map(entry, lane), known)
    if known and any(entry.get("mode") == "embedding" for entry in entries):
        known.parts.pop("output", None)  # there is none, whatever a source charges for it
    return known


def _row(name: str, lane: Any, known: Known, days: tuple[date | None, date]) -> Row:
    begins, today = days
    parts = {part: Decimal(_text(figure)) for part, figure in known.parts.items()}
    long = tuple(
        LongFigures(above=tier, **{part: Decimal(_text(figure)) for part, figure in figures.items()})
        for tier, figures in sorted(known.long.items())
    )
    return Row(model=name, lane=lane, valid_from=begins, long=long, source=known.source, read=today, **parts)


def _append(rows: list[Row], row: Row) -> None:
    """Adds a row, or a further witness for the row before it that says the same."""
    if not rows or figures_of(rows[-1]) != figures_of(row):
        rows.append(row)
    elif len(row.source) > len(rows[-1].source):
        rows[-1] = msgspec.structs.replace(rows[-1], source=row.source)


def figures_of(row: Row) -> tuple[Any, ...]:
    """What a row says, without where it was read."""
    return row.input, row.cached, row.cache_write, row.output, row.long


def _text(figure: Decimal) -> str:
    text = format(figure, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# The tables -----------------------------------------------------------------------------------------------------------


def collect(kind: Kind, prices: Mapping[str, Mapping[str, Any]], today: date) -> tuple[list[Row], dict[str, str]]:
    """Every row of a kind, and the names left out with the reason."""
    entries: dict[str, list[Mapping[str, Any]]] = {name: [] for name in _listed(kind)}
    for name, entry in prices.items():
        if re.fullmatch(kind.providers, entry.get("litellm_provider", "")) and entry.get("mode") in TOKEN_MODES:
            bare = next((name.removeprefix(prefix) for prefix in kind.prefixes if name.startswith(prefix)), name)
            entries.setdefault(bare, []).append(entry)
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    for name, found in sorted(entries.items()):
        if OTHER_UNITS.search(name):
            left_out[name] = "billed by more than text tokens"
            continue
        try:
            lanes = rows_of(kind, name, found, today)
        except Unusable as reason:
            left_out[name] = str(reason)
            continue
        rows += [row for lane in lanes.values() for row in lane]
    return rows, left_out


def _listed(kind: Kind) -> set[str]:
    return {name for model in _models(kind) for name in names_in(model.match)}


def merge(old: list[Row], new: list[Row], today: date) -> list[Row]:
    """The old rows as they are, and the new ones that say something else about today or later."""
    merged = _by_lane(old)
    for lane, rows in _by_lane(new).items():
        kept = merged.setdefault(lane, [])
        if not kept:
            kept += rows
            continue
        now = _in_force(rows, today)
        later = [row for row in rows if row.valid_from and row.valid_from > today]
        for row in [msgspec.structs.replace(now, valid_from=today), *later] if now else later:
            before = _in_force(kept, _beginning(row))
            if before is None or figures_of(before) != figures_of(row):
                kept.append(row)
    return [row for lane in sorted(merged) for row in sorted(merged[lane], key=_beginning)]


def _by_lane(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    lanes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lanes.setdefault((row.model, row.lane), []).append(row)
    return lanes


def _in_force(rows: list[Row], day: date) -> Row | None:
    return max((row for row in rows if _beginning(row) <= day), key=_beginning, default=None)


def _beginning(row: Row) -> date:
    return row.valid_from or date.min


def line_of(row: Row) -> bytes:
    """A row as it stands in a table: what it is about comes first, for whoever reads the diff."""
    fields: dict[str, Any] = msgspec.to_builtins(row)
    names = {"model": None, "lane": None, **({"valid_from": None} if row.valid_from else {})}
    return msgspec.json.encode({**names, **fields}) + b"\n"


def main() -> None:
    """Rewrites the tables and prints what each kind gained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the litellm wheel")
    parser.add_argument("--date", type=date.fromisoformat, required=True, help="the day the figures are read")
    options = parser.parse_args()
    if f"genai-prices {version('genai-prices')}" != GENAI_NAME:
        sys.exit(f"This script was written for {GENAI_NAME}: look at what changed first.")
    prices = read_map(options.wheel)
    left: list[str] = []
    for name, kind in KINDS.items():
        path = TABLES / f"{name}.jsonl"
        old = msgspec.json.Decoder(Row).decode_lines(path.read_bytes()) if path.exists() else []
        new, left_out = collect(kind, prices, options.date)
        rows = merge(old, new, options.date)
        path.write_bytes(b"".join(map(line_of, rows)))
        left += [f"{name}\t{model}\t{reason}\n" for model, reason in left_out.items()]
        sys.stdout.write(f"{name}: {len(rows)} rows, {len(rows) - len(old)} new; {len(left_out)} names left out\n")
    (TABLES / "left_out.tsv").write_text("".join(left))


if __name__ == "__main__":
    main()
