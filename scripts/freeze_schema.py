#!/usr/bin/env python3
"""Writes the tables as they are now as SQL, for the migration that leads to them: a step must not change with the code.

    python scripts/freeze_schema.py 2      # writes db/migrations/m0002_sqlite.sql and m0002_postgresql.sql

Run it until the version is released, never after. Tables that a step leaves alone (`meta`) are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from batchway.db import migrations
from batchway.db.schema import meta, metadata

FOLDER = Path(migrations.__file__).parent
DIALECTS: tuple[Dialect, ...] = (sqlite.dialect(), postgresql.dialect())


def frozen(dialect: Dialect) -> str:
    """Every table and index, in an order in which they can be made."""
    made = [
        statement
        for table in metadata.sorted_tables
        if table is not meta
        for statement in (
            CreateTable(table),
            *map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name))),
        )
    ]
    texts = (str(statement.compile(dialect=dialect)).strip().replace(" \n", "\n") for statement in made)
    return "".join(f"{text.replace(chr(9), '    ')};\n\n" for text in texts)


if __name__ == "__main__":
    for one in DIALECTS:
        (FOLDER / f"m{int(sys.argv[1]):04}_{one.name}.sql").write_text(frozen(one))
