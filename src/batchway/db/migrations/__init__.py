"""Brings the tables up to date: an empty database gets the present schema, an older one the steps it lacks.

A step is a module `mNNNN_title.py` with `upgrade(tx)`; it is never edited once released. Several processes may start at
once: each step runs in a transaction that first takes the version row (PostgreSQL: an advisory lock).
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from sqlalchemy import Connection, Engine, insert, inspect, select, text, update

from batchway.core.errors import ConfigError
from batchway.db.migrations import m0002_money_and_telling
from batchway.db.schema import meta, metadata

STEPS: MappingProxyType[int, Callable[[Connection], None]] = MappingProxyType({2: m0002_money_and_telling.upgrade})
"""version -> the step that leads to it from the one before; version 1 is the schema as first made."""

VERSION = max(STEPS, default=1)


def migrate(engine: Engine) -> None:
    """Leaves the database at `VERSION`; ConfigError when a newer Batchway has been here."""
    with engine.begin() as tx:
        if tx.dialect.name == "postgresql":
            tx.execute(text("SELECT pg_advisory_xact_lock(8113204)"))
        if not inspect(tx).has_table("meta"):
            metadata.create_all(tx)
            tx.execute(insert(meta).values(key="schema_version", value=str(VERSION)))
            return
        row = tx.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar_one()
        present = int(row)
        if present > VERSION:
            raise ConfigError(f"the database has schema version {present}, this Batchway knows {VERSION}: upgrade it")
        for version in range(present + 1, VERSION + 1):
            STEPS[version](tx)
        tx.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(VERSION)))
