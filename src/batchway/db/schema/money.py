"""Money: budgets, holds, the ledger and its sums by day. Amounts are pico-dollars."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, String, Table, Text, UniqueConstraint, text

from batchway.db.schema.shared import Serial, metadata, reference

USAGE_COLUMNS = (
    "input_tokens cached_tokens cache_write_tokens audio_input_tokens output_tokens reasoning_tokens "
    "audio_output_tokens image_output_tokens milliseconds"
).split()
"""The fields of `core/usage.py`, in its order."""


def _usage() -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False, default=0) for name in USAGE_COLUMNS]


budgets = Table(  # one an owner; `held` and `settled` are those of the period that began at `starts_at`
    "budgets",
    metadata,
    Column("owner", String, primary_key=True),  # gateway, project:<name> or key:<id>
    Column("amount", BigInteger, nullable=False),
    Column("period", String, nullable=False),  # day, month, total
    Column("starts_at", Double, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("told", Integer, nullable=False, default=0),  # the highest threshold told of in this period, in percent
)

_OPEN = text("settled_at IS NULL")

holds = Table(  # counted in the budgets of its owners, in the period of `opened_at`
    "holds",
    metadata,
    reference("batch_id", "batches.id", primary_key=True),
    Column("project", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("amount", BigInteger),  # null: a price is unknown
    Column("opened_at", Double, nullable=False),
    Column("settled_at", Double),
    Column("settled_amount", BigInteger),
    Index("holds_of_key", "key_id", "opened_at"),
    Index("holds_of_project", "project", "opened_at"),
    Index("holds_by_age", "opened_at"),
    Index("holds_open", "opened_at", sqlite_where=_OPEN, postgresql_where=_OPEN),
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("batch_id", String, nullable=False, index=True),
    Column("job_id", String, nullable=False, default=""),  # none: it concerns the whole batch
    Column(
        "first_line", BigInteger, nullable=False, default=0
    ),  # of the lines it is for; 0 and 0: of none in particular
    Column("last_line", BigInteger, nullable=False, default=0),
    Column("kind", String, nullable=False),  # usage, correction, refund
    Column("reference", String, nullable=False, default=""),  # what makes two corrections the same one
    Column("note", Text),
    Column("project", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("account", String, nullable=False, default=""),
    Column("model", String, nullable=False, default=""),
    Column("lane", String, nullable=False, default=""),
    Column("lines", BigInteger, nullable=False, default=0),
    *_usage(),
    Column("amount", BigInteger),  # null: the price is unknown
    Column("price_source", String),
    Column("created_at", Double, nullable=False, index=True),
    UniqueConstraint("batch_id", "job_id", "first_line", "kind", "model", "reference"),
    Index("ledger_of_project", "project", "created_at"),
)

costs = Table(  # the ledger summed up by day, kept in the transaction of each entry; `tag` is "" or one of db/costs.py
    "costs",
    metadata,
    Column("day", Integer, primary_key=True),  # days since 1970-01-01 UTC
    Column("tag", String().with_variant(String(collation="C"), "postgresql"), primary_key=True),  # ranges of bytes
    Column("project", String, primary_key=True),
    Column("key_id", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("lane", String, primary_key=True),
    Column("private", Boolean, primary_key=True),  # as its batches are
    Column("entries", BigInteger, nullable=False),
    Column("unknown", BigInteger, nullable=False),  # entries whose amount is not known
    Column("lines", BigInteger, nullable=False),
    *_usage(),
    Column("amount", BigInteger, nullable=False),  # of the known ones
    sqlite_with_rowid=False,  # the rows of a day and tag lie together
)
