"""Statements over costs: the ledger summed up by UTC day and (tag, project, key, account, model, lane).

`add` runs in the transaction of every ledger entry, so the sums are those of the ledger at every moment and reading
them costs the same however many entries there are. Each entry is in the row of tag "" and in one row for each pair of
its batch's metadata. Rows are taken in the order of their tags, and budgets only after them: entries that are posted at
once wait for one another, never in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Table, func, select, union_all
from sqlalchemy.dialects import postgresql, sqlite

from batchway.core.principal import Sight
from batchway.core.usage import NO_USAGE
from batchway.db.once import insert_once
from batchway.db.schema import USAGE_COLUMNS, batches, costs, ledger
from batchway.db.sight import visible

DAY = 86400
FIGURES = ("entries", "unknown", "lines", *USAGE_COLUMNS, "amount")
OWNERS = ("project", "key_id", "account", "model", "lane")
LONGEST_VALUE = 256  # bytes of a tag's value; an index of PostgreSQL has no room for much more
TOTAL = ""  # the tag of every entry's row
AFTER_EQUALS = ">"  # the character behind "="


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which sums: of `days` (days since 1970), of the owners and pairs named, grouped by columns and by a tag's value.

    At most one tag is involved in sums of `rolled_up`; `entries` has no such limit.
    """

    days: range
    sight: Sight | None
    columns: tuple[str, ...] = ()  # of OWNERS, or batch_id (entries only)
    equal: Mapping[str, Sequence[str]] = {}  # column -> the values wanted
    pairs: Mapping[str, str] = {}  # of metadata
    by_tags: tuple[str, ...] = ()  # names of metadata


class Sums(msgspec.Struct):
    """The sums of one group; `tag` is the value of the one tag that was grouped by, None for the total of all."""

    day: int
    group: tuple[str, ...]
    tag: str | None
    figures: list[int]  # as FIGURES


def tag_of(name: str, value: str) -> str:
    """A pair of metadata as it stands in the column `tag`; long values are told by their beginning and hash."""
    return f"{_escaped(name)}={shown(value)}"


def shown(value: str) -> str:
    """The value of a pair as sums tell it: whole up to LONGEST_VALUE bytes."""
    encoded = value.encode()
    return value if len(encoded) <= LONGEST_VALUE else f"{value[:40]}... sha256:{sha256(encoded).hexdigest()}"


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("=", "%3D")


def add(tx: Connection, entry: Mapping[str, Any]) -> None:
    """Adds a new ledger entry (its values) to the sums; in its transaction."""
    of_batch = select(batches.c.metadata, batches.c.private).where(batches.c.id == entry["batch_id"])
    batch = tx.execute(of_batch).one()
    metadata: dict[str, str] = batch.metadata or {}
    row = {name: entry[name] for name in (*OWNERS, "lines", *USAGE_COLUMNS)} | {
        "day": int(entry["created_at"] // DAY),
        "private": batch.private,
        "entries": 1,
        "unknown": int(entry["amount"] is None),
        "amount": entry["amount"] or 0,
    }
    tags = sorted({TOTAL, *(tag_of(name, value) for name, value in metadata.items())})
    insert = (sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert)(costs)
    sums = {name: costs.c[name] + insert.excluded[name] for name in FIGURES}
    statement = insert.on_conflict_do_update(index_elements=list(costs.primary_key), set_=sums)
    tx.execute(statement, [{**row, "tag": tag} for tag in tags])


def post_correction(tx: Connection, entry: Mapping[str, Any]) -> bool:
    """Adds an entry that is no usage, such as a refund; False when its reference was posted before."""
    values = {**msgspec.structs.asdict(NO_USAGE), "lines": 0, **entry}
    if not insert_once(tx, ledger, values):
        return False
    add(tx, values)
    return True


def corrections(tx: Connection, batch_ids: Sequence[str]) -> dict[str, int]:
    """The sum of all entries that are no usage, in pico-dollars, of each batch that has any."""
    query = select(ledger.c.batch_id, func.sum(ledger.c.amount)).where(
        ledger.c.batch_id.in_(batch_ids), ledger.c.kind != "usage"
    )
    return {batch_id: int(amount) for batch_id, amount in tx.execute(query.group_by(ledger.c.batch_id))}


def rolled_up(tx: Connection, asked: Asked, limit: int) -> list[Sums]:
    """The sums as kept, at most `limit` of them. With `by_tags`: those of each value, and the totals beside them.

    One statement, so that values and totals are of the same moment.
    """
    pair = next(iter(asked.pairs.items()), None)
    query = _kept(asked, costs.c.tag == (tag_of(*pair) if pair else TOTAL))
    prefix: str | None = None
    for name in asked.by_tags:
        prefix = _escaped(name)
        of_name = (costs.c.tag >= f"{prefix}=") & (costs.c.tag < prefix + AFTER_EQUALS)
        query = union_all(query, _kept(asked, of_name))
    return [_sums(row, prefix, len(asked.columns)) for row in tx.execute(query.limit(limit))]


def _sums(row: Sequence[Any], prefix: str | None, width: int) -> Sums:
    day, tag, *rest = row
    value = tag[len(prefix) + 1 :] if prefix is not None and tag != TOTAL else None
    return Sums(day=day, group=tuple(rest[:width]), tag=value, figures=[int(figure) for figure in rest[width:]])


def _kept(asked: Asked, tagged: ColumnElement[bool]) -> Any:
    groups = [costs.c.day, costs.c.tag, *(costs.c[name] for name in asked.columns)]
    # A list of days, not a range: each is one place in the key (day, tag, ...), and other tags are never read.
    wanted = (costs.c.day.in_(asked.days), tagged, visible(costs, asked.sight), *_equal(costs, asked))
    return select(*groups, *(func.sum(costs.c[name]) for name in FIGURES)).where(*wanted).group_by(*groups)


def entries(tx: Connection, asked: Asked, limit: int) -> Iterator[Sequence[Any]]:
    """At most `limit` entries: the columns asked for, the batch's metadata, `created_at`, `lines`, the usage, `amount`.

    Read by the index on a batch, or on a time (of a project): never the whole ledger.
    """
    at = ledger.c.created_at
    days = (at >= asked.days.start * DAY, at < asked.days.stop * DAY)
    conditions = [*days, visible(batches, asked.sight), *_equal(ledger, asked)]
    if asked.sight is not None:
        conditions.append(ledger.c.project == asked.sight.project)
    columns = [ledger.c[name] for name in asked.columns]
    figures = [ledger.c[name] for name in ("lines", *USAGE_COLUMNS, "amount")]
    query = select(*columns, batches.c.metadata, at, *figures).join(batches, batches.c.id == ledger.c.batch_id)
    yield from tx.execute(query.where(*conditions).limit(limit))


def _equal(table: Table, asked: Asked) -> Iterator[ColumnElement[bool]]:
    for name, values in asked.equal.items():
        column: Column[str] = table.c[name]
        yield column.in_(values)
