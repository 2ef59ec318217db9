"""Inserting a row unless its key is there already: what makes a repeat a no-op, on both databases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_once(tx: Connection, table: Table, values: dict[str, Any]) -> bool:
    """True when the row is new; False when a unique key of it was taken, and the row there stays as it is."""
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    key = next(iter(table.primary_key))
    added = tx.execute(insert(table).values(values).on_conflict_do_nothing().returning(key))
    return added.first() is not None  # PostgreSQL's driver counts no such rows
