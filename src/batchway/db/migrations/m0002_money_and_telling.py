"""Version 1 to 2: keys get secrets and scopes, the ledger its sums by day, events the order in which they are told.

Every table but `meta` is set aside, made anew (the SQL beside this file, made once by `scripts/freeze_schema.py`) and
filled from the old one: SQLite cannot change constraints in place, and so both databases end up just as new ones begin.
It needs room for the tables twice, and nothing is lost when it breaks: it is one transaction.

- `key_secrets` come from `keys.hash`, scopes from `keys.admin`; projects that were only named become rows.
- `holds.key_id` and what live batches have enqueued come from the batches and their files.
- `costs` are summed up from the ledger, with the pairs of metadata that version 2 keeps.
- Nobody was told of events in version 1, and their data has fewer fields: their positions end at 0, before the first
  that is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

TABLES = (  # parents first
    "keys files file_faults uploads upload_parts batches jobs chunks segments ledger holds outbox idempotency leases"
).split()
DROPPED = {"keys": {"hash", "admin"}, "outbox": {"told_at"}}
SERIAL = {"segments": "id", "ledger": "id", "outbox": "seq"}
LIVE = "('validating', 'in_progress', 'finalizing', 'cancelling')"
DAY = 86400
USAGE = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
NEW_USAGE = ("audio_input_tokens", "audio_output_tokens", "image_output_tokens", "milliseconds")
OWNERS = ("project", "key_id", "account", "model", "lane")
LONGEST_VALUE = 256  # bytes of a tag's value


def upgrade(tx: Connection) -> None:
    """Leaves the tables of version 2, with all that was in those of version 1."""
    old = _set_aside(tx)
    made = Path(__file__).with_name(f"m0002_{tx.dialect.name}.sql").read_text(encoding="utf-8")
    for statement in made.split(";\n"):
        if statement.strip():
            tx.exec_driver_sql(statement)
    for table in TABLES:
        _copy(tx, table, old)
    _add_keys_parts(tx, old)
    _add_enqueued(tx)
    _add_costs(tx)
    _drop(tx, old)


def _set_aside(tx: Connection) -> Mapping[str, list[str]]:
    """The columns of the old tables, which have moved to where `_old` says."""
    known = inspect(tx)
    columns = {table: [column["name"] for column in known.get_columns(table)] for table in TABLES}
    if tx.dialect.name == "postgresql":  # their indexes and constraints move along, and leave their names free
        tx.execute(text("CREATE SCHEMA batchway_v1"))
        for table in TABLES:
            tx.execute(text(f"ALTER TABLE {table} SET SCHEMA batchway_v1"))
        return columns
    indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = :table"
    for table in TABLES:
        for index in tx.execute(text(indexes), {"table": table}).scalars().all():
            tx.execute(text(f'DROP INDEX "{index}"'))
        tx.execute(text(f"ALTER TABLE {table} RENAME TO {_old(tx, table)}"))
    return columns


def _old(tx: Connection, table: str) -> str:
    return f"batchway_v1.{table}" if tx.dialect.name == "postgresql" else f"v1_{table}"


def _drop(tx: Connection, old: Mapping[str, list[str]]) -> None:
    for table in reversed(list(old)):
        tx.execute(text(f"DROP TABLE {_old(tx, table)}"))
    if tx.dialect.name == "postgresql":
        tx.execute(text("DROP SCHEMA batchway_v1"))


def _copy(tx: Connection, table: str, old: Mapping[str, list[str]]) -> None:
    kept = [f'"{name}"' for name in old[table] if name not in DROPPED.get(table, ())]
    added = _added(tx).get(table, {})
    values = ", ".join([*(f"v1.{name}" for name in kept), *added.values()])
    names = ", ".join([*kept, *added])
    tx.execute(text(f"INSERT INTO {table} ({names}) SELECT {values} FROM {_old(tx, table)} AS v1"))  # noqa: S608 - our own words
    if table in SERIAL and tx.dialect.name == "postgresql":
        column = SERIAL[table]
        place = f"pg_get_serial_sequence('{table}', '{column}')"
        tx.execute(text(f"SELECT setval({place}, (SELECT max({column}) FROM {table}))"))  # noqa: S608 - our own words


def _added(tx: Connection) -> Mapping[str, Mapping[str, str]]:
    """What columns of version 2 hold for rows of version 1; those that are not named are null."""
    batches, files, jobs = (_old(tx, table) for table in ("batches", "files", "jobs"))
    scopes = """CASE WHEN v1.admin THEN '["admin"]' ELSE '["read", "write"]' END"""
    whose = f"(SELECT key_id FROM {batches} WHERE id = {{}})"  # noqa: S608 - our own words
    key_of_file = f"(SELECT key_id FROM {files} WHERE id = v1.subject)"  # noqa: S608 - our own words
    return {
        "keys": {
            "scopes": scopes if tx.dialect.name == "sqlite" else f"CAST({scopes} AS JSON)",
            "private": "false",
            "on_budget": "'reject'",
        },
        "files": {"private": "false"},
        "uploads": {"private": "false"},
        "batches": {"private": "false", "input_tokens": "0"},
        "chunks": {"spent": "0"},
        "ledger": {
            "first_line": f"coalesce((SELECT first_line FROM {jobs} WHERE id = v1.job_id), 0)",  # noqa: S608 - our own words
            "last_line": "0",
            "reference": "''",
            **dict.fromkeys(NEW_USAGE, "0"),
        },
        "holds": {"key_id": whose.format("v1.batch_id")},
        "outbox": {
            "key_id": f"coalesce({whose.format('v1.subject')}, {key_of_file}, '')",
            "position": f"v1.seq - (SELECT max(seq) FROM {_old(tx, 'outbox')})",  # noqa: S608 - our own words
        },
    }


def _add_keys_parts(tx: Connection, old: Mapping[str, list[str]]) -> None:
    """The secrets of the keys, and a row for each project that something names."""
    secrets = "INSERT INTO key_secrets (hash, key_id, created_at) SELECT hash, id, created_at FROM "
    tx.execute(text(secrets + _old(tx, "keys")))
    named = " UNION ALL ".join(
        f"SELECT project, created_at FROM {table}"  # noqa: S608 - our own words
        for table in ("keys", "files", "batches")
    )
    tx.execute(
        text(
            "INSERT INTO projects (name, sharing, redaction, created_at) "  # noqa: S608 - our own words
            f"SELECT project, true, 'none', min(created_at) FROM ({named}) AS named "
            "WHERE project <> 'default' GROUP BY project"
        )
    )


def _add_enqueued(tx: Connection) -> None:
    """What each live batch has enqueued: the estimated input tokens of its file."""
    found = tx.execute(
        text(
            "SELECT batches.id, files.models FROM batches JOIN files ON files.id = batches.input_file_id "  # noqa: S608 - our own words
            f"WHERE batches.status IN {LIVE}"
        )
    ).all()
    for batch_id, models in found:
        stats: dict[str, dict[str, Any]] = _parsed(models) or {}
        tokens = sum(int(of_model.get("input_tokens") or 0) for of_model in stats.values())
        tx.execute(text("UPDATE batches SET input_tokens = :tokens WHERE id = :id"), {"tokens": tokens, "id": batch_id})


def _add_costs(tx: Connection) -> None:
    sums: dict[tuple[Any, ...], list[int]] = {}
    figures = ", ".join(f"ledger.{name}" for name in ("lines", *USAGE, "amount", "created_at", *OWNERS))
    entries = f"SELECT batches.metadata, {figures} FROM ledger LEFT JOIN batches ON batches.id = ledger.batch_id"  # noqa: S608 - our own words
    for metadata, lines, *rest in tx.execute(text(entries)):
        usage, (amount, created_at), owners = rest[:5], rest[5:7], rest[7:]
        counted = (1, int(amount is None), lines, *usage, amount or 0)
        for tag in _tags(metadata):
            into = sums.setdefault((int(created_at // DAY), tag, *owners), [0] * len(counted))
            into[:] = (have + more for have, more in zip(into, counted, strict=True))
    if not sums:
        return
    names = ("day", "tag", *OWNERS, "entries", "unknown", "lines", *USAGE, "amount")
    nothing = "".join(f", {name}" for name in NEW_USAGE), ", 0" * len(NEW_USAGE)
    insert = (
        f"INSERT INTO costs ({', '.join(names)}, private{nothing[0]}) "  # noqa: S608 - our own words
        f"VALUES ({', '.join(f':{name}' for name in names)}, false{nothing[1]})"
    )
    tx.execute(text(insert), [dict(zip(names, (*key, *figures), strict=True)) for key, figures in sums.items()])


def _tags(metadata: Any) -> Iterator[str]:
    """The total's, and one for each pair; as `db/costs.py` writes them."""
    yield ""
    pairs: dict[str, str] = _parsed(metadata) or {}
    for name, value in pairs.items():
        escaped = name.replace("%", "%25").replace("=", "%3D")
        encoded = value.encode()
        long = len(encoded) > LONGEST_VALUE
        yield f"{escaped}={f'{value[:40]}... sha256:{sha256(encoded).hexdigest()}' if long else value}"


def _parsed(value: Any) -> Any:
    """JSON as drivers give it: SQLite as text, PostgreSQL parsed."""
    return json.loads(value) if isinstance(value, str) else value
