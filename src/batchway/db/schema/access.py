"""Who may come in, and what they did: projects, keys and their secrets, tallies, the audit log."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, String, Table

from batchway.db.schema.shared import metadata, reference

projects = Table(  # the name is the id; objects name their project, so it never changes
    "projects",
    metadata,
    Column("name", String, primary_key=True),
    Column("sharing", Boolean, nullable=False, default=True),  # its keys see what other keys of it make from now on
    Column("redaction", String, nullable=False, default="none"),  # of line records: none, hash, drop
    Column("models", JSON),  # patterns; null allows every model
    Column("providers", JSON),  # accounts; null allows every one
    Column("limits", JSON),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("project", String, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("private", Boolean, nullable=False, default=False),  # what it makes is seen by no other key but admins'
    Column("models", JSON),
    Column("providers", JSON),
    Column("cidrs", JSON),  # networks that may use it; null allows every one
    Column("limits", JSON),
    Column("on_budget", String, nullable=False, default="reject"),  # or pause
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("disabled_at", Double),
    Column("deleted_at", Double),
    Index("keys_by_age", "created_at", "id"),
)

key_secrets = Table(  # one a key, and after a rotation the old one too until its grace is over
    "key_secrets",
    metadata,
    Column("hash", String, primary_key=True),
    reference("key_id", "keys.id", index=True),
    Column("created_at", Double, nullable=False),
    Column("valid_until", Double),
)

tallies = Table(  # what a key did in a stretch of time: uploads of a day, requests of a minute
    "tallies",
    metadata,
    Column("name", String, primary_key=True),
    Column("starts_at", Double, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Double, nullable=False),
    Column("key_id", String, nullable=False),  # who did it
    Column("action", String, nullable=False),  # such as key.created
    Column("target", String, nullable=False),
    Column("details", JSON, nullable=False),  # what was set; never a secret
    Column("request_id", String, nullable=False),
    Index("audit_by_age", "at", "id"),
)
