"""Statements over virtual keys and the master key, of which only sha-256 hashes are stored.

A key has one secret, and after a rotation its old ones too until their grace is over. Rows of ended keys and secrets
stay: batches and ledger entries name the key, and its holder is told why it is not let in.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, and_, func, insert, or_, select, tuple_, update

from batchway.core.errors import NotFound
from batchway.db.once import insert_once
from batchway.db.schema import key_secrets, keys, meta, projects

MASTER_HASH = "master_key_hash"


def add(tx: Connection, values: dict[str, Any]) -> None:
    """A new key with its secret: id, name, project, hash, scopes, created_at, and any of its rules."""
    row = {name: value for name, value in values.items() if name != "hash"}
    tx.execute(insert(keys).values(row))
    tx.execute(insert(key_secrets).values(hash=values["hash"], key_id=row["id"], created_at=row["created_at"]))


def by_hash(tx: Connection, digest: str) -> RowMapping | None:
    """The key that has or had this secret, with `hash`, `valid_until` and the rules of its project (`project_...`)."""
    of_project = (projects.c[name].label(f"project_{name}") for name in ("sharing", "models", "providers", "limits"))
    query = (
        select(keys, key_secrets.c.hash, key_secrets.c.valid_until, *of_project)
        .join(key_secrets, key_secrets.c.key_id == keys.c.id)
        .outerjoin(projects, and_(projects.c.name == keys.c.project, projects.c.deleted_at.is_(None)))
        .where(key_secrets.c.hash == digest)
    )
    return tx.execute(query).mappings().one_or_none()


def get(tx: Connection, key_id: str, *, hold: bool = False) -> RowMapping:
    """A key that is not deleted; NotFound. With `hold` nobody else can change it before the transaction ends."""
    query = select(keys).where(keys.c.id == key_id, keys.c.deleted_at.is_(None))
    row = tx.execute(query.with_for_update() if hold else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No key found with id '{key_id}'.", param="key_id")
    return row


def page(
    tx: Connection, *, limit: int, after: str | None, order: Literal["asc", "desc"], project: str | None
) -> tuple[list[RowMapping], bool]:
    """Up to `limit` keys that are not deleted, behind the key `after`, and whether more follow; NotFound."""
    query = select(keys).where(keys.c.deleted_at.is_(None))
    if project is not None:
        query = query.where(keys.c.project == project)
    columns = (keys.c.created_at, keys.c.id)
    if after is not None:
        last = get(tx, after)
        place, mark = tuple_(*columns), tuple_(last["created_at"], last["id"])
        query = query.where(place > mark if order == "asc" else place < mark)
    query = query.order_by(*(column.asc() if order == "asc" else column.desc() for column in columns))
    rows = list(tx.execute(query.limit(limit + 1)).mappings())
    return rows[:limit], len(rows) > limit


def change(tx: Connection, key_id: str, values: dict[str, Any]) -> None:
    """Sets columns of a key."""
    if values:
        tx.execute(update(keys).where(keys.c.id == key_id).values(values))


def rotate(tx: Connection, key_id: str, digest: str, now: float, grace: float) -> None:
    """A new secret; every older one ends `grace` seconds from now, unless it ends sooner."""
    lasting = or_(key_secrets.c.valid_until.is_(None), key_secrets.c.valid_until > now + grace)
    tx.execute(update(key_secrets).where(key_secrets.c.key_id == key_id, lasting).values(valid_until=now + grace))
    tx.execute(insert(key_secrets).values(hash=digest, key_id=key_id, created_at=now))


def end(tx: Connection, key_id: str, now: float) -> None:
    """Lets the key in no more. NotFound."""
    ended = tx.execute(update(keys).where(keys.c.id == key_id, keys.c.deleted_at.is_(None)).values(deleted_at=now))
    if ended.rowcount != 1:
        raise NotFound(f"No key found with id '{key_id}'.", param="key_id")


def of_project(tx: Connection, project: str) -> int:
    """How many keys that are not deleted belong to the project."""
    query = select(func.count()).where(keys.c.project == project, keys.c.deleted_at.is_(None))
    return tx.execute(query).scalar_one()


def master_hash(tx: Connection) -> str | None:
    """The hash of the master key that a first start made."""
    return tx.execute(select(meta.c.value).where(meta.c.key == MASTER_HASH)).scalar_one_or_none()


def set_master_hash(tx: Connection, digest: str) -> bool:
    """True when this is the one that stays; False when another process was first."""
    return insert_once(tx, meta, {"key": MASTER_HASH, "value": digest})
