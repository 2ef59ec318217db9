"""`batchway costs`: what was spent, or used, by day and group."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from batchway.cli.options import json_option, pairs, with_client
from batchway.cli.screen import emit, table
from batchway.sdk import costs as cost_calls
from batchway.sdk.client import Client

DAY = 86400
LONGEST_PAGE = 180  # days
FIELDS = {
    "project": "project_id",
    "key": "api_key_id",
    "model": "model",
    "provider": "provider",
    "lane": "lane",
    "batch": "batch_id",
}
"""What `--group-by` names, and the field of a result that holds it."""
TAG = "tag:"
TOKENS = ("num_model_requests", "input_tokens", "input_cached_tokens", "output_tokens")


def _day(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """A day of UTC as the unix seconds it begins with."""
    if text is None:
        return None
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise click.BadParameter("write a day as 2026-01-31.") from None


def _group(_context: click.Context, _option: click.Parameter, names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in FIELDS and not (name.startswith(TAG) and name != TAG):
            raise click.BadParameter(f"'{name}' is none of {', '.join(FIELDS)} and {TAG}NAME.")
    return tuple(dict.fromkeys(names))


@click.command("costs")
@click.option("--group-by", multiple=True, metavar="WHAT", callback=_group, help="May be repeated; see above.")
@click.option("--days", type=click.IntRange(1, 36500), help="So many days up to now; 7 without --from.")
@click.option("--from", "first", metavar="DAY", callback=_day, help="The first day (UTC), as 2026-01-31.")
@click.option("--to", "last", metavar="DAY", callback=_day, help="The last day; today without it.")
@click.option("--project", metavar="NAME", help="Only this project.")
@click.option("--key", "key_id", metavar="ID", help="Only what this key made.")
@click.option("--model", metavar="NAME", help="Only this model, by its provider's name for it.")
@click.option("--provider", metavar="ACCOUNT", help="Only this account.")
@click.option("--batch", "batch_id", metavar="ID", help="Only this batch.")
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="Only batches with this pair of metadata; repeatable.")
@click.option("--usage", "of_usage", is_flag=True, help="Lines and tokens instead of dollars.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout, as the gateway streams it.")
@json_option
@with_client
def costs_command(
    client: Client, *, of_usage: bool, as_csv: bool, as_json: bool, tag: tuple[str, ...], **given: Any
) -> int:
    """Show what was spent by day and group, or used.

    Days are days of UTC. WHAT is project, key, model, provider, lane, batch, or tag:NAME for the values of that name in
    the batches' metadata. Amounts are exact; where a price is not known they say so, and are no part of the total.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json cannot stand together.")
    start, end = _span(given.pop("days"), given.pop("first"), given.pop("last"))
    asked: dict[str, Any] = {"start_time": start, "end_time": end, **given, "tag": pairs(tag) or None}
    operation: Any = cost_calls.usage if of_usage else cost_calls.costs
    if as_csv:
        for piece in client.download(cost_calls.as_csv(operation(**asked))).iter_bytes():
            sys.stdout.buffer.write(piece)
        return 0
    buckets = list(_buckets(client, operation, asked))
    if as_json:
        emit({"object": "page", "data": buckets, "has_more": False, "next_page": None})
        return 0
    groups: tuple[str, ...] = asked["group_by"]
    figures = _tokens if of_usage else _amounts
    columns = ["day", *groups, *(TOKENS if of_usage else ("amount", "entries"))]
    rows = [
        [_date(bucket["start_time"]), *(_of_group(result, name) for name in groups), *figures([result])]
        for bucket in buckets
        for result in bucket["results"]
    ]
    everything = [result for bucket in buckets for result in bucket["results"]]
    table(columns, [*rows, ["total", *("" for _ in groups), *figures(everything)]])
    return 0


def _span(days: int | None, first: int | None, last: int | None) -> tuple[int, int]:
    """From the first second, to behind the last one."""
    if days is not None and first is not None:
        raise click.UsageError("--days and --from cannot stand together.")
    end = int(time.time()) // DAY * DAY + DAY if last is None else last + DAY
    start = end - (days or 7) * DAY if first is None else first
    if start >= end:
        raise click.UsageError("--from must not lie behind --to.")
    return max(start, 0), end


def _buckets(client: Client, operation: Any, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    page: str | None = None
    while True:
        answer = client.perform(operation(**asked, limit=LONGEST_PAGE, page=page)).to_dict()
        yield from answer["data"]
        page = answer["next_page"]
        if page is None:
            return


def _of_group(result: dict[str, Any], name: str) -> str:
    value = result["tags"].get(name.removeprefix(TAG)) if name.startswith(TAG) else result[FIELDS[name]]
    return "-" if value is None else value


def _amounts(results: Sequence[dict[str, Any]]) -> list[str]:
    """The sum of what is known, and the number of entries."""
    entries = sum(result["entries"] for result in results)
    unknown = sum(result["unknown_entries"] for result in results)
    known = sum((Decimal(result["amount"]["value"] or 0) for result in results), Decimal(0))
    told = "unknown" if unknown and unknown == entries else f"${known:f}"
    return [told if unknown in (0, entries) else f"{told} + {unknown} unknown", str(entries)]


def _tokens(results: Sequence[dict[str, Any]]) -> list[str]:
    return [str(sum(result[name] for result in results)) for name in TOKENS]


def _date(seconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).date().isoformat()
