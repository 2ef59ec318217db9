"""Statements over webhooks: endpoints of the whole gateway, of a project or of one batch, and who may know of them.

A webhook's row is also the lock of its deliveries: whoever changes those locks it first, several of them in the order
of their ids. Its `not_before` is when the first of them is due, so that finding work never reads what waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, case, delete, func, insert, or_, select, tuple_, update

from batchway.core.errors import NotFound
from batchway.core.principal import Sight
from batchway.db.schema import deliveries, receivers, webhooks
from batchway.db.sight import visible


def add(tx: Connection, values: dict[str, Any]) -> None:
    """A new webhook."""
    tx.execute(insert(webhooks).values(values))


def get(tx: Connection, webhook_id: str, sight: Sight | None) -> RowMapping:
    """A webhook that `sight` may know of; NotFound."""
    query = select(webhooks).where(webhooks.c.id == webhook_id, _live(sight))
    row = tx.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No webhook found with id '{webhook_id}'.", param="webhook_id")
    return row


def page(
    tx: Connection, sight: Sight | None, limit: int, after: str | None, batch_id: str | None
) -> tuple[list[RowMapping], bool]:
    """Up to `limit` webhooks, newest first, and whether more follow; of one batch, or of none in particular."""
    of_batch = webhooks.c.batch_id.is_(None) if batch_id is None else webhooks.c.batch_id == batch_id
    query = select(webhooks).where(_live(sight), of_batch)
    if after is not None:
        mark = get(tx, after, sight)
        query = query.where(tuple_(webhooks.c.created_at, webhooks.c.id) < tuple_(mark["created_at"], mark["id"]))
    query = query.order_by(webhooks.c.created_at.desc(), webhooks.c.id.desc()).limit(limit + 1)
    rows = list(tx.execute(query).mappings())
    return rows[:limit], len(rows) > limit


def count(tx: Connection, project: str | None) -> int:
    """How many webhooks a project has (None: the gateway), those of single batches apart."""
    own = webhooks.c.project.is_(None) if project is None else webhooks.c.project == project
    query = select(func.count()).select_from(webhooks).where(own, webhooks.c.batch_id.is_(None), _live(None))
    return tx.execute(query).scalar_one()


def change(tx: Connection, webhook_id: str, values: dict[str, Any]) -> None:
    """Sets columns of a webhook."""
    tx.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))


def end(tx: Connection, webhook_id: str, now: float) -> None:
    """Deletes a webhook: its secret and its deliveries go at once, nothing is sent any more."""
    lock(tx, [webhook_id])
    change(tx, webhook_id, {"deleted_at": now, "secret": "", "not_before": None, "receiver": None})
    tx.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))


def configure(tx: Connection, name: str, values: dict[str, Any], fresh: dict[str, Any]) -> str:
    """The id of the webhook that stands in batchway.yaml as the receiver `name`: its row is brought up to date.

    `fresh` completes a new one, with its id.
    """
    found = tx.execute(select(webhooks.c.id).where(webhooks.c.receiver == name)).scalar()
    if found is None:
        add(tx, {"receiver": name, **values, **fresh})
        return fresh["id"]
    change(tx, found, {**values, "disabled_at": None})
    return found


def told_of(tx: Connection, projects: Iterable[str], subjects: Iterable[str]) -> list[RowMapping]:
    """The webhooks that may want events of these projects and batches; those in batchway.yaml are told otherwise."""
    standing = webhooks.c.batch_id.is_(None) & or_(webhooks.c.project.is_(None), webhooks.c.project.in_(projects))
    query = select(webhooks).where(
        or_(standing, webhooks.c.batch_id.in_(subjects)),
        webhooks.c.receiver.is_(None),
        webhooks.c.disabled_at.is_(None),
        _live(None),
    )
    return list(tx.execute(query).mappings())


def lock(tx: Connection, ids: Iterable[str]) -> set[str]:
    """Keeps others off the deliveries of these webhooks until the transaction ends; those of them that are in use.

    SQLite has one writer anyway.
    """
    query = select(webhooks.c.id, webhooks.c.disabled_at, webhooks.c.deleted_at).where(webhooks.c.id.in_(list(ids)))
    rows = tx.execute(query.order_by(webhooks.c.id).with_for_update()).all()
    return {row.id for row in rows if row.disabled_at is None and row.deleted_at is None}


def refresh(tx: Connection, ids: Iterable[str]) -> None:
    """Notes when the next delivery of each of these (locked) webhooks is due."""
    first = (
        select(func.min(deliveries.c.not_before))
        .where(deliveries.c.webhook_id == webhooks.c.id, deliveries.c.status == "waiting")
        .scalar_subquery()
    )
    due = case((first < webhooks.c.paused_until, webhooks.c.paused_until), else_=first)
    tx.execute(update(webhooks).where(webhooks.c.id.in_(list(ids))).values(not_before=due))


def tidy(tx: Connection, ended_before: float) -> None:
    """Drops the rows of webhooks that were deleted, or whose batch is over and told, before then.

    One of batchway.yaml that stands there no longer goes when its receiver is forgotten.
    """
    quiet = ~select(deliveries.c.id).where(deliveries.c.webhook_id == webhooks.c.id).exists()
    of_old_batch = webhooks.c.batch_id.is_not(None) & (webhooks.c.created_at < ended_before)
    tx.execute(delete(webhooks).where(or_(webhooks.c.deleted_at < ended_before, of_old_batch), quiet))
    known = select(receivers.c.name)
    left = webhooks.c.receiver.is_not(None) & webhooks.c.receiver.not_in(known) & (webhooks.c.created_at < ended_before)
    for webhook_id in tx.execute(select(webhooks.c.id).where(left)).scalars().all():
        end(tx, webhook_id, ended_before)


def _live(sight: Sight | None) -> ColumnElement[bool]:
    return webhooks.c.deleted_at.is_(None) & visible(webhooks, sight)
