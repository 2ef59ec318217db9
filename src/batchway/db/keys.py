"""Statements over virtual keys and the master key, of which only sha-256 hashes are stored."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from batchway.core.errors import NotFound
from batchway.db.once import insert_once
from batchway.db.schema import key_secrets, keys, meta

MASTER_HASH = "master_key_hash"


def add(tx: Connection, values: dict[str, Any]) -> None:
    """A new key with its secret: id, name, project, hash, scopes, created_at, and any of its rules."""
    secret = {"hash": values.pop("hash"), "key_id": values["id"], "created_at": values["created_at"]}
    tx.execute(insert(keys).values(values))
    tx.execute(insert(key_secrets).values(secret))


def by_hash(tx: Connection, digest: str) -> RowMapping | None:
    """The live key with this hash."""
    query = (
        select(keys, key_secrets.c.hash)
        .join(key_secrets, key_secrets.c.key_id == keys.c.id)
        .where(key_secrets.c.hash == digest, keys.c.deleted_at.is_(None))
    )
    return tx.execute(query).mappings().one_or_none()


def get(tx: Connection, key_id: str) -> RowMapping:
    """A live key by its id; NotFound."""
    row = tx.execute(select(keys).where(keys.c.id == key_id, keys.c.deleted_at.is_(None))).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No key found with id '{key_id}'.", param="key_id")
    return row


def live(tx: Connection) -> list[RowMapping]:
    """All live keys, newest first."""
    query = select(keys).where(keys.c.deleted_at.is_(None)).order_by(keys.c.created_at.desc(), keys.c.id.desc())
    return list(tx.execute(query).mappings())


def end(tx: Connection, key_id: str, now: float) -> None:
    """Lets the key in no more; its row stays, because batches and ledger entries name it. NotFound."""
    ended = tx.execute(update(keys).where(keys.c.id == key_id, keys.c.deleted_at.is_(None)).values(deleted_at=now))
    if ended.rowcount != 1:
        raise NotFound(f"No key found with id '{key_id}'.", param="key_id")


def master_hash(tx: Connection) -> str | None:
    """The hash of the master key that a first start made."""
    return tx.execute(select(meta.c.value).where(meta.c.key == MASTER_HASH)).scalar_one_or_none()


def set_master_hash(tx: Connection, digest: str) -> bool:
    """True when this is the one that stays; False when another process was first."""
    return insert_once(tx, meta, {"key": MASTER_HASH, "value": digest})
