"""Statements of the audit log: what an admin did, in the transaction that did it, so neither exists without the other.

`details` holds what was set and never a secret: no key, no hash, no webhook secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, insert, select, tuple_

from batchway.core.errors import NotFound
from batchway.core.ids import new_id
from batchway.db.schema import audit


class Actor(msgspec.Struct, frozen=True):
    """Who acts: the key's id, and the request that asked for it."""

    key_id: str
    request_id: str


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the log behind the entry `after`, narrowed; times in unix seconds."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    action: str | None = None
    target: str | None = None
    key_id: str | None = None


def record(tx: Connection, actor: Actor, action: str, target: str, now: float, details: dict[str, Any]) -> None:
    """Notes that `actor` did `action` (such as `key.created`) to `target` (the id of what was changed)."""
    values = {"id": new_id("audit_"), "at": now, "action": action, "target": target, "details": details}
    tx.execute(insert(audit).values(**values, **msgspec.structs.asdict(actor)))


def page(tx: Connection, wanted: AuditFilter) -> tuple[list[RowMapping], bool]:
    """Up to `limit` entries, newest first unless `order` is `asc`, and whether more follow.

    NotFound when `after` is no entry.
    """
    up = wanted.order == "asc"
    columns = (audit.c.at, audit.c.id)
    query = select(audit).where(*_matches(wanted))
    if wanted.after is not None:
        place, mark = tuple_(*columns), tuple_(*_place(tx, wanted.after))
        query = query.where(place > mark if up else place < mark)
    query = query.order_by(*(column.asc() if up else column.desc() for column in columns))
    rows = list(tx.execute(query.limit(wanted.limit + 1)).mappings())
    return rows[: wanted.limit], len(rows) > wanted.limit


def _matches(wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("action", "target", "key_id"):
        value = getattr(wanted, name)
        if value is not None:
            yield audit.c[name] == value
    if wanted.created_after is not None:
        yield audit.c.at > wanted.created_after
    if wanted.created_before is not None:
        yield audit.c.at < wanted.created_before


def _place(tx: Connection, entry_id: str) -> tuple[float, str]:
    row = tx.execute(select(audit.c.at, audit.c.id).where(audit.c.id == entry_id)).one_or_none()
    if row is None:
        raise NotFound(f"No audit entry found with id '{entry_id}'.", param="after")
    return row.at, row.id
