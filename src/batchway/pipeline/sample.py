"""Some of the lines of a stored file, or of inline requests, to count their tokens by. Not a stage.

A file of at most a megabyte is read whole; of a larger one, 16 ranges spread over it, so a gigabyte costs no more.
Counting takes some 50 ms of a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import RowMapping

from batchway.billing.tokens import counter
from batchway.core.linefaults import CONTENT, UNREADABLE, decode_request
from batchway.core.tokenguess import Parts, parts_of
from batchway.storage import Storage
from batchway.wire.batches import InputMethod

WHOLE = 1 << 20  # bytes
RANGES = 16


class Sampled(msgspec.Struct):
    """Requests to one model, and the bytes of their lines."""

    bytes: int = 0
    requests: list[Parts] = []


class Sample(msgspec.Struct):
    """What was read: by the model that lines name (`""` for none), and whether it is every line."""

    models: dict[str, Sampled]
    whole: bool


async def read_sample(storage: Storage, file: RowMapping) -> Sample:
    """A sample of a stored file."""
    key, size = file["storage_key"], file["bytes"]
    if size <= WHOLE:
        return _sample((await storage.get(key)).split(b"\n"), whole=True)
    lines: list[bytes] = []
    for place in range(RANGES):
        start = size * place // RANGES
        read = (await storage.get(key, start, start + WHOLE // RANGES)).split(b"\n")
        lines += read[1:-1] if start else read[:-1]  # those at the edges are cut off
    return _sample(lines, whole=False)


def sample_of(lines: Sequence[bytes]) -> Sample:
    """The lines of an inline batch, about a megabyte of them."""
    step = 1 + sum(map(len, lines)) // WHOLE
    return _sample(lines[::step], whole=step == 1)


async def count(
    sample: Sample, stats: Mapping[str, Mapping[str, int]], names: Iterable[str], model: str
) -> tuple[int, InputMethod]:
    """The input tokens of all lines with these names on the route of `model`, and how they were found.

    `stats` are those of intake, whose guess stands where there is nothing to count or nothing to count with.
    """
    return await asyncio.to_thread(_count, sample, stats, list(names), model)


def _count(
    sample: Sample, stats: Mapping[str, Mapping[str, int]], names: list[str], model: str
) -> tuple[int, InputMethod]:
    count_one = counter(model)
    if count_one is None or any(name not in sample.models for name in names):
        return sum(stats[name]["input_tokens"] for name in names), "guessed"
    total = 0.0
    for name in names:
        found = sample.models[name]
        counted = sum(map(count_one, found.requests))
        total += counted if sample.whole else counted * stats[name]["bytes"] / found.bytes
    return round(total), "counted" if sample.whole else "sampled"


def _sample(lines: Iterable[bytes], *, whole: bool) -> Sample:
    models: dict[str, Sampled] = {}
    for raw in lines:
        try:
            line = decode_request(raw)
            content = CONTENT[line.url][1](line.body)
        except (*UNREADABLE, KeyError):
            continue  # blank, or a fault that validation tells of
        found = models.setdefault(line.body.model or "", Sampled())
        found.bytes += len(raw) + 1
        found.requests.append(parts_of(content, line.body.instructions, line.body.tools))
    return Sample(models, whole)
