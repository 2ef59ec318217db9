"""What was spent and used, by day and group: read from the sums kept with the ledger. Not a stage.

Sums by day and owner, and by one pair of metadata, stand in the table `costs`. A question about single batches, or
about two pairs at once, reads ledger entries by an index, and no more than `MOST`: whoever asks for more is told to
narrow it. Both ways answer the same figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from batchway.core.errors import RequestError
from batchway.core.principal import Sight
from batchway.db.costs import DAY, FIGURES, OWNERS, Asked, entries, rolled_up, shown
from batchway.wire.costs import CostQuery

MOST = 100_000  # ledger entries read, and results, of one page
PAGE = re.compile(r"page_([0-9]{1,7})")
BUCKETS = 7

BATCH = "batch_id"
COLUMNS = {
    "project": "project",
    "project_id": "project",
    "key": "key_id",
    "key_id": "key_id",
    "api_key_id": "key_id",
    "model": "model",
    "provider": "account",
    "lane": "lane",
    "batch": BATCH,
    "batch_id": BATCH,
}
"""What results can be grouped by, also by OpenAI's names, and the column it stands in."""
TAG = "tag:"


class Result(msgspec.Struct):
    """One group of a day: its columns' values, its tags' values, its figures by name."""

    group: dict[str, str]
    tags: dict[str, str | None] | None
    figures: dict[str, int]


class Span(msgspec.Struct, frozen=True):
    """The days of a page (days since 1970), and the day that the next page begins with."""

    days: range
    following: int | None


def span(wanted: CostQuery, now: float, buckets: int | None) -> Span:
    """At most `buckets` days (None: all) from where the page begins; RequestError when there is no such span."""
    until = int(now) + 1 if wanted.end_time is None else wanted.end_time
    end = -(-until // DAY)  # the day behind the last
    start = max(0, end - BUCKETS) if wanted.start_time is None else wanted.start_time // DAY
    if start >= end or (wanted.start_time or 0) >= until:
        message = "Invalid 'end_time': it must lie behind 'start_time'."
        raise RequestError(message, code="invalid_value", param="end_time")
    if wanted.page is not None:
        match = PAGE.fullmatch(wanted.page)
        if match is None or not start <= int(match[1]) < end:
            message = "Invalid 'page': send the 'next_page' of an answer to the same query."
            raise RequestError(message, code="invalid_value", param="page")
        start = int(match[1])
    stop = end if buckets is None else min(end, start + buckets)
    return Span(range(start, stop), stop if stop < end else None)


def asked_for(wanted: CostQuery, sight: Sight | None, days: range) -> Asked:
    """The query as the statements take it; RequestError when it groups by what is no group."""
    columns, tags = list[str](), list[str]()
    for name in wanted.group_by:
        if name.startswith(TAG) and len(name) > len(TAG):
            tags.append(name.removeprefix(TAG))
        elif name in COLUMNS:
            columns.append(COLUMNS[name])
        else:
            message = f"Invalid 'group_by': '{name}' is none of {', '.join(COLUMNS)} and {TAG}<name>."
            raise RequestError(message, code="invalid_value", param="group_by")
    values = {
        "project": [*_one(wanted.project), *wanted.project_ids],
        "key_id": [*_one(wanted.key_id), *wanted.api_key_ids],
        "model": [*_one(wanted.model), *wanted.models],
        "account": _one(wanted.provider),
        "lane": _one(wanted.lane),
        BATCH: _one(wanted.batch_id),
    }
    return Asked(
        days=days,
        sight=sight,
        columns=tuple(dict.fromkeys(columns)),
        equal={name: listed for name, listed in values.items() if listed},
        pairs=wanted.tag or {},
        by_tags=tuple(dict.fromkeys(tags)),
    )


def _one(value: str | None) -> list[str]:
    return [] if value is None else [value]


def results(tx: Connection, asked: Asked) -> dict[int, list[Result]]:
    """The groups of each day that has any, in a fixed order; RequestError when they are too many."""
    columns = set(asked.columns) | set(asked.equal)
    kept = columns <= set(OWNERS) and len(asked.by_tags) + len(asked.pairs) <= 1
    sums = _from_sums(tx, asked) if kept else _from_entries(tx, asked)
    found: dict[int, list[Result]] = {}
    for (day, group, tags), figures in sorted(sums.items(), key=_place):
        named = dict(zip(asked.by_tags, tags, strict=True)) if asked.by_tags else None
        result = Result(dict(zip(asked.columns, group, strict=True)), named, dict(zip(FIGURES, figures, strict=True)))
        found.setdefault(day, []).append(result)
    return found


Key = tuple[int, tuple[str, ...], tuple[str | None, ...]]
"""A day, the values of the columns, the values of the tags."""


def _place(item: tuple[Key, Any]) -> tuple[Any, ...]:
    (day, group, tags), _ = item
    return day, group, [(tag is None, tag or "") for tag in tags]


def _from_sums(tx: Connection, asked: Asked) -> dict[Key, list[int]]:
    rows = rolled_up(tx, asked, MOST + 1)
    if len(rows) > MOST:
        raise _too_many("results")
    if not asked.by_tags:
        return {(row.day, row.group, ()): row.figures for row in rows}
    sums: dict[Key, list[int]] = {(row.day, row.group, (row.tag,)): row.figures for row in rows if row.tag is not None}
    rest = {(row.day, row.group): row.figures for row in rows if row.tag is None}
    for (day, group, _), figures in sums.items():
        rest[day, group] = [all_of - part for all_of, part in zip(rest[day, group], figures, strict=True)]
    # What remains of a total has no such tag; `entries` comes first and is 0 when nothing remains.
    sums.update({(day, group, (None,)): figures for (day, group), figures in rest.items() if figures[0]})
    return sums


def _from_entries(tx: Connection, asked: Asked) -> dict[Key, list[int]]:
    sums: dict[Key, list[int]] = {}
    width = len(asked.columns)
    for number, row in enumerate(entries(tx, asked, MOST + 1), 1):
        if number > MOST:
            raise _too_many("ledger entries")
        metadata: Mapping[str, str] = row[width] or {}
        if all(metadata.get(name) == value for name, value in asked.pairs.items()):
            tags = tuple(None if (value := metadata.get(name)) is None else shown(value) for name in asked.by_tags)
            _add(sums, (int(row[width + 1] // DAY), tuple(row[:width]), tags), row[width + 2 :])
    return sums


def _add(sums: dict[Key, list[int]], key: Key, entry: Sequence[Any]) -> None:
    *counted, amount = entry
    figures: Iterable[int] = (1, int(amount is None), *counted, amount or 0)
    known = sums.get(key)
    sums[key] = list(figures) if known is None else [a + b for a, b in zip(known, figures, strict=True)]


def _too_many(what: str) -> RequestError:
    message = (
        f"More than {MOST} {what} are asked for. Ask for fewer days ('limit', 'start_time', 'end_time'), "
        "or narrow it by 'project', 'key_id', 'model', 'provider' or 'batch_id'."
    )
    return RequestError(message, code="too_many_results", param="group_by")
