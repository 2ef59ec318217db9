#!/usr/bin/env python3
"""Brings `src/batchway/billing/tables/` up to date from two pinned sources, and says what changed.

    python3 -m pip download --no-deps --only-binary :all: litellm==1.109.1
    python scripts/make_prices.py litellm-1.109.1-*.whl --date 2026-11-22

The sources are the installed `genai-prices` and the price map inside the `litellm` wheel, which is opened as an archive
and neither installed nor run. The invariant: a row that stands in a table is never changed. A figure that differs from
the row in force becomes a new row, valid from `--date`; what a source announces for later is dated as announced.

Each source is a witness for the names it spells out; a pattern that merely fits a name is none. What two witnesses
disagree on, a batch price that does not say what long prompts or audio cost, and models billed by other units make no
row: they are listed in `left_out.tsv`. The parts of a batch price that may be completed by rule stand in `complete`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from genai_prices import types as genai
from genai_prices.data import providers as genai_providers
from price_sources import PARTS, Known, changes_of, check_genai, names_in, of_genai, of_map, read_map, spells_out

from batchway.billing.prices import TABLES, LongFigures, Row

TOKEN_MODES = {"chat", "completion", "responses", "embedding"}
OTHER_UNITS = re.compile(
    r"realtime|live|tts|lyria|transcribe|whisper|voxtral|ocr|-search|deep-research|native-audio|gpt-.*image|embed-image"
)
APART = {  # what such names are billed by beside text, and what must be known of it
    re.compile("audio"): ("audio_input", "audio_output"),
    re.compile("image|nano-banana"): ("image_output",),
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


class Unusable(Exception):
    """Why a name gets no row."""


# Both together --------------------------------------------------------------------------------------------------------


def agreed(one: Known | None, other: Known | None) -> Known | None:
    """What two witnesses say together; Unusable when they contradict each other."""
    if one is None or other is None:
        return one or other
    source = one.source if one.source == other.source else f"{one.source}, {other.source}"
    # The map names a tier by thousands, so one token less is the same tier, told more exactly.
    one = Known(
        one.parts,
        {tier - (tier - 1 in other.long): figures for tier, figures in one.long.items()},
        source,
        one.regional,
    )
    if one.regional and other.regional and one.regional != other.regional:
        raise Unusable(f"the sources disagree: in one region {one.regional} or {other.regional} times")
    if one.long and other.long and one.long.keys() != other.long.keys():
        raise Unusable(f"the sources disagree: long context above {[*one.long]} or {[*other.long]}")
    long = {tier: _merged(one.long.get(tier, {}), other.long.get(tier, {})) for tier in {**one.long, **other.long}}
    return Known(_merged(one.parts, other.parts), long, source, one.regional or other.regional)


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
    for part, text in (("audio_input", "input"), ("audio_output", "output"), ("image_output", "output")):
        if part in live.parts and live.parts[part] != live.parts.get(text) and part not in batch.parts:
            raise Unusable(f"no batch price for {part.replace('_', ' ')}")
    return batch


def _halved(batch: Known, live: Known) -> Known:
    parts = {**_half(live.parts), **batch.parts}
    long = {**batch.long, **{tier: {**_half(live.long[tier]), **batch.long.get(tier, {})} for tier in live.long}}
    notes = [f"{part} half of live" for part in PARTS if part in parts and part not in batch.parts]
    notes += ["long context half of live"] if long != batch.long else []
    return Known(parts, long, "; ".join([batch.source, *notes]), batch.regional)


def _half(figures: dict[str, Decimal]) -> dict[str, Decimal]:
    return {part: figure * HALF for part, figure in figures.items()}


def _cached_as_live(batch: Known, live: Known, *, always: bool) -> Known:
    def carried(figures: dict[str, Decimal], lively: dict[str, Decimal]) -> dict[str, Decimal]:
        keep = "cached" not in lively or ("cached" in figures and not always)
        return figures if keep else {**figures, "cached": lively["cached"]}

    parts = carried(batch.parts, live.parts)
    long = {tier: carried(figures, live.long.get(tier, {})) for tier, figures in batch.long.items()}
    changed = (parts, long) != (batch.parts, batch.long)
    return Known(parts, long, f"{batch.source}; cached as live" if changed else batch.source, batch.regional)


def rows_of(kind: Kind, name: str, entries: list[Mapping[str, Any]], today: date) -> dict[str, list[Row]]:
    """The rows of a name by lane, oldest first; Unusable when today's live price is."""
    model = witness(kind, name)
    days = [date.min, *changes_of(model)] if model else [date.min]
    spans = list(zip(days, [*days[1:], date.max], strict=True))
    rows: dict[str, list[Row]] = {"executed": [], "native": []}
    for start, end in spans:
        inside = min(max(start, today), end - timedelta(days=1)) if start <= today else start
        current = entries if start <= today < end else []
        known = {lane: _known(model, current, lane, inside) for lane in rows}
        _check_units(name, known["executed"])
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


def witness(kind: Kind, name: str) -> genai.ModelInfo | None:
    """The model of genai-prices that spells this name out."""
    return next((model for model in _models(kind) if spells_out(model.match, name)), None)


def _known(model: genai.ModelInfo | None, entries: list[Mapping[str, Any]], lane: str, day: date) -> Known | None:
    known = of_genai(model, lane, day) if model else None
    for entry in entries:
        known = agreed(of_map(entry, lane), known)
    if known and any(entry.get("mode") == "embedding" for entry in entries):
        known.parts.pop("output", None)  # there is none, whatever a source charges for it
    return known


def _check_units(name: str, live: Known | None) -> None:
    for names, parts in APART.items():
        if names.search(name) and not (live and all(part in live.parts for part in parts)):
            raise Unusable(f"no price for its {names.pattern.split('|')[0]} tokens")


def _row(name: str, lane: Any, known: Known, days: tuple[date | None, date]) -> Row:
    begins, today = days
    parts = {part: Decimal(_text(figure)) for part, figure in known.parts.items()}
    long = tuple(
        LongFigures(above=tier, **{part: Decimal(_text(figure)) for part, figure in figures.items()})
        for tier, figures in sorted(known.long.items())
    )
    said: dict[str, Any] = {"source": known.source, "read": today, "long": long, "regional": known.regional}
    return Row(model=name, lane=lane, valid_from=begins, **said, **parts)


def _append(rows: list[Row], row: Row) -> None:
    """Adds a row, or a further witness for the row before it that says the same."""
    if not rows or figures_of(rows[-1]) != figures_of(row):
        rows.append(row)
    elif len(row.source) > len(rows[-1].source):
        rows[-1] = msgspec.structs.replace(rows[-1], source=row.source)


def figures_of(row: Row) -> tuple[Any, ...]:
    """What a row says, without where it was read."""
    return *(getattr(row, part) for part in PARTS), row.long, row.regional


def _text(figure: Decimal) -> str:
    text = format(figure, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# The tables -----------------------------------------------------------------------------------------------------------


def collect(kind: Kind, prices: Mapping[str, Mapping[str, Any]], today: date) -> tuple[list[Row], dict[str, str]]:
    """Every row of a kind, and the names left out with the reason."""
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    for name, found in sorted(entries_of(kind, prices).items()):
        if OTHER_UNITS.search(name):
            left_out[name] = "billed by other units than tokens of text, audio and images"
            continue
        try:
            lanes = rows_of(kind, name, found, today)
        except Unusable as reason:
            left_out[name] = str(reason)
            continue
        rows += [row for lane in lanes.values() for row in lane]
    return rows, left_out


def entries_of(kind: Kind, prices: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The map's entries for every name of a kind that any source lists."""
    entries: dict[str, list[Mapping[str, Any]]] = {name: [] for name in listed(kind)}
    for name, entry in prices.items():
        if re.fullmatch(kind.providers, entry.get("litellm_provider", "")) and _by_tokens(entry):
            bare = next((name.removeprefix(prefix) for prefix in kind.prefixes if name.startswith(prefix)), name)
            entries.setdefault(bare, []).append(entry)
    return entries


def _by_tokens(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is billed by units that answers count: images too, but not images in the prompt."""
    draws = entry.get("mode") == "image_generation" and "output_cost_per_image_token" in entry
    return entry.get("mode") in TOKEN_MODES or (draws and "input_cost_per_image_token" not in entry)


def listed(kind: Kind) -> set[str]:
    """The names that genai-prices lists one by one."""
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
    check_genai()
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
