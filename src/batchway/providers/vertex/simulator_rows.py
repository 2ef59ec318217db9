"""The rows of a simulated job: its input read and indexed, its output written, in any order, over several objects.

Runs in threads and keeps eight bytes a row in memory. Invariant: what becomes of a row depends on the seed, the job and
the row, never on when it is looked at.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from batchway.providers.shared.simulation import Dice
from batchway.providers.vertex import simulator_models as models

Json = dict[str, Any]

DEFAULTS = {"temperature": 1, "topP": 1, "candidateCount": 1}  # which a normalised echo leaves out


@dataclass(frozen=True)
class Rules:
    """What decides about the rows of one job."""

    job: int
    model: str
    dice: Dice
    line_rate: float
    max_rows: int
    max_bytes: int
    bare: bool


@dataclass
class Scan:
    """The rows of all input files: which file and where. `fault` says why the job cannot run."""

    files: list[Path] = field(default_factory=list[Path])
    which: array[int] = field(default_factory=lambda: array("H"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    failing: array[int] = field(default_factory=lambda: array("b"))  # 1: ends as an error, 2: never runs
    fault: str | None = None

    def order(self, rules: Rules) -> list[int]:
        """The order in which rows run and are written: those that never run stand last."""
        chance = random.Random(f"{rules.dice.seed} {rules.job}")  # noqa: S311 - no secret: the same order every time
        places = list(range(len(self.starts)))
        chance.shuffle(places)
        return sorted(places, key=lambda place: self.failing[place] == 2)


@dataclass
class Written:
    """How many rows of each kind were written."""

    successful: int = 0
    failed: int = 0


def scan(files: list[Path], rules: Rules) -> Scan:
    """Reads every row once; the first bad one fails the job."""
    found = Scan(files=files)
    if sum(path.stat().st_size for path in files) > rules.max_bytes:
        found.fault = f"The input is larger than the limit of {rules.max_bytes} bytes."
        return found
    for which, path in enumerate(files):
        with path.open("rb") as file:
            for start, raw in _lines(file):
                try:
                    row = _request(raw)[1]
                except msgspec.DecodeError:
                    found.fault = f"Failed to import data. Invalid JSON in row {len(found.starts) + 1}."
                    return found
                found.which.append(which)
                found.starts.append(start)
                found.failing.append(_fate(rules, len(found.starts), row))
    if not found.starts:
        found.fault = "The input has no rows."
    elif len(found.starts) > rules.max_rows:
        found.fault = f"The input has {len(found.starts)} rows; at most {rules.max_rows} are allowed."
    return found


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    start = 0
    for raw in file:
        if raw.strip():
            yield start, raw
        start += len(raw)


def _request(raw: bytes) -> tuple[Json, Json]:
    """(row, the request in it)."""
    row: object = msgspec.json.decode(raw)
    if not isinstance(row, dict):
        raise msgspec.DecodeError("a row must be an object")
    table = cast("Json", row)
    inner = table.get("request", table if "content" in table else None)
    if not isinstance(inner, dict):
        raise msgspec.DecodeError("a row must hold a request")
    return table, cast("Json", inner)


def _fate(rules: Rules, number: int, request: Json) -> int:
    word = models.trigger(request)
    if word in ("never", "expire"):
        return 2
    return int((word or "").isdigit() or rules.dice.hits(rules.line_rate, "line", rules.job, number))


def write(found: Scan, rules: Rules, places: list[int], outputs: list[Path], now: float) -> Written:
    """Writes the output row of each place, spread over the outputs."""
    written = Written()
    with ExitStack() as stack:
        sources = [stack.enter_context(path.open("rb")) for path in found.files]
        targets = [stack.enter_context(path.open("wb")) for path in outputs]
        for index, place in enumerate(places):
            source = sources[found.which[place]]
            source.seek(found.starts[place])
            row = _answered(source.readline(), rules, place + 1, now)
            written.failed += bool(row["status"])
            written.successful += not row["status"]
            targets[index % len(targets)].write(msgspec.json.encode(row) + b"\n")
    return written


def _answered(raw: bytes, rules: Rules, number: int, now: float) -> Json:
    row, request = _request(raw)
    status, response = _outcome(request, rules, number, now)
    if "request" not in row:  # the older embedding models
        predictions = [_prediction(response)] if response else []
        return {"instance": row, "predictions": predictions, "status": status}
    answer: Json = {"status": status, "processed_time": models.stamp(now)[:23] + "+00:00"}
    answer |= {name: row[name] for name in ("key", "custom_id") if name in row and _echoes(rules.model, name)}
    answer["request"] = _normalised(request, bare=rules.bare)
    answer["response"] = response
    return answer


def _outcome(request: Json, rules: Rules, number: int, now: float) -> tuple[str, Json]:
    word = models.trigger(request)
    if word and word.isdigit():
        return models.failure(int(word), "Simulated: as the request asked."), {}
    if word == "block":
        return "", models.blocked(rules.model.rpartition("/")[2], now)
    if word == "plain":
        return "Simulated: a failure without a code", {}
    if rules.dice.hits(rules.line_rate, "line", rules.job, number):
        return "Error code: 429 RESOURCE_EXHAUSTED. Resource exhausted, please try again later.", {}
    try:
        return "", models.respond(request, rules.model, rules.dice, now)
    except models.Invalid as invalid:
        return models.failure(400, str(invalid)), {}


def _echoes(model: str, name: str) -> bool:
    """Gemini rows lose whatever stands beside the request."""
    return "embedding" in model if name == "key" else "claude" in model


def _prediction(response: Json) -> Json:
    statistics = {"token_count": response["usageMetadata"]["promptTokenCount"], "truncated": False}
    return {"embeddings": {"values": response["embedding"]["values"], "statistics": statistics}}


def _normalised(request: Json, *, bare: bool) -> Json:
    """The request as an echo shows it: keys sorted, defaults dropped; with `bare` without its labels."""
    echo = {name: request[name] for name in sorted(request) if not (bare and name == "labels")}
    config = echo.get("generationConfig")
    if isinstance(config, dict):
        kept = {name: value for name, value in cast("Json", config).items() if DEFAULTS.get(name) != value}
        echo["generationConfig"] = dict(sorted(kept.items()))
    return echo
