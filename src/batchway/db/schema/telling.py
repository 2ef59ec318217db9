"""Who is told: the outbox, how far each receiver is, webhooks and their deliveries."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from batchway.db.schema.shared import Serial, metadata

outbox = Table(
    "outbox",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("position", BigInteger, unique=True),  # given to committed events by one process: the order of telling
    Column("id", String, nullable=False, unique=True),
    Column("type", String, nullable=False),
    Column("subject", String, nullable=False, index=True),
    Column("project", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("outbox_new", "seq", sqlite_where=text("position IS NULL"), postgresql_where=text("position IS NULL")),
    Index("outbox_by_age", "created_at"),
)

receivers = Table(  # how far each receiver has been told
    "receivers",
    metadata,
    Column("name", String, primary_key=True),
    Column("position", BigInteger, nullable=False),  # of the last event it knows
    Column("lines_told", BigInteger, nullable=False, default=0),  # of the next event's line records
    Column("failures", Integer, nullable=False, default=0),  # in a row
    Column("failing_since", Double),
    Column("not_before", Double, nullable=False, default=0),
    Column("last_error", Text),
    Column("told_at", Double),
)

dead_letters = Table(  # events that a receiver refused, or could not take for days
    "dead_letters",
    metadata,
    Column("receiver", String, primary_key=True),
    Column("event_id", String, primary_key=True),
    Column("event", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("died_at", Double, nullable=False),
    Column("again_at", Double),  # set when it is to be told again
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String, primary_key=True),
    Column("project", String),  # null: the whole gateway's
    Column("batch_id", String, index=True),  # only this batch's events
    Column("key_id", String, nullable=False),  # who made it
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # sealed by the vault
    Column("events", JSON, nullable=False),  # patterns of event types
    Column("allow_private", Boolean, nullable=False, default=False),
    Column("admin", Boolean, nullable=False, default=False),  # an admin made it: it is told of what is private, too
    Column("private", Boolean, nullable=False, default=False),  # seen by no other key but admins'
    Column("receiver", String, unique=True),  # its name in batchway.yaml, if it stands there
    Column("created_at", Double, nullable=False),
    Column("disabled_at", Double),
    Column("deleted_at", Double),
    Column("failures", Integer, nullable=False, default=0),  # in a row
    Column("not_before", Double),  # when the first of its deliveries is due; null: none waits
    Column("paused_until", Double, nullable=False, default=0),  # its host asked for that
    Index("webhooks_of_project", "project"),
    Index("webhooks_due", "not_before"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String, primary_key=True),
    Column("webhook_id", String, nullable=False),
    Column("event_id", String, nullable=False),
    Column("position", BigInteger, nullable=False),  # the event's: the order within a subject
    Column("subject", String, nullable=False),
    Column("event", JSON, nullable=False),
    Column("status", String, nullable=False),  # held (behind another of its subject), waiting, delivered, dead
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0),
    Column("answer", Integer),  # the last HTTP status
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    UniqueConstraint("webhook_id", "event_id"),
    Index("deliveries_due", "webhook_id", "status", "not_before"),
    Index("deliveries_in_order", "webhook_id", "subject", "status", "position"),
    Index("deliveries_by_position", "webhook_id", "position"),
    Index("deliveries_ended", "status", "ended_at"),
)
