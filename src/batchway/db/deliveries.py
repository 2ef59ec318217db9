"""Statements over deliveries: one row for each webhook and event, however often the event is told.

Of one webhook and subject at most the earliest open delivery is `waiting` to be sent; those behind it are `held` until
it is delivered or dead, which keeps the order. Whoever changes a webhook's deliveries has locked the webhook. A
delivery that is being sent belongs to the attempt that `claim` counted: a later claim takes it away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Update,
    bindparam,
    delete,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from batchway.core.errors import Conflict, NotFound
from batchway.core.events import Event
from batchway.core.ids import IdMaker
from batchway.db import webhooks as hooks
from batchway.db.schema import batches, deliveries, files, webhooks

CLAIMED = 30.0  # seconds for which a delivery is left to whoever sends it; a try takes half of that at most
AT_ONCE = 1000  # rows that are pruned in one transaction
OPEN = ("held", "waiting")


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How much more may be sent at once: in all, and by webhook; `full` are projects that have their share.

    `receiver` is whose webhooks are meant: those of one receiver of batchway.yaml, or (None) all others.
    """

    slots: int
    each: int  # to one webhook; one that failed last gets a single one
    busy: Mapping[str, int]  # webhook -> how many are being sent to it
    full: Collection[str]
    receiver: str | None


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """How the sending of one claimed delivery ended. `answer` is the HTTP status, None when there was none.

    `status` is `delivered`, `dead`, or `waiting` for another try at `not_before`. `pause` (unix seconds) holds back
    everything for that webhook; `gone` disables it.
    """

    delivery_id: str
    webhook_id: str
    subject: str
    attempt: int
    status: str
    answer: int | None
    error: str | None
    not_before: float = 0.0
    pause: float = 0.0
    gone: bool = False


def expand(tx: Connection, wanted: Sequence[tuple[str, Event]], now: float, new_id: IdMaker) -> None:
    """A delivery of each event to each webhook that is in use, unless there is one already."""
    ids = hooks.lock(tx, {webhook_id for webhook_id, _ in wanted})
    wanted = [(webhook_id, event) for webhook_id, event in wanted if webhook_id in ids]
    if not wanted:
        return
    rows = [
        {
            "id": new_id("dlv_"),
            "webhook_id": webhook_id,
            "event_id": event.id,
            "position": event.position or 0,
            "subject": event.subject,
            "event": msgspec.to_builtins(event),
            "status": "held",
            "not_before": now,
            "created_at": now,
        }
        for webhook_id, event in wanted
    ]
    adding = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    tx.execute(adding(deliveries).on_conflict_do_nothing(), rows)
    _promote(tx, {(webhook_id, event.subject) for webhook_id, event in wanted})
    hooks.refresh(tx, ids)


def private_subjects(tx: Connection, subjects: Collection[str]) -> set[str]:
    """Those of the batches and files that only their own key may know of; one that is gone counts as such."""
    open_to_all = set[str]()
    for table in (batches, files):
        query = select(table.c.id).where(table.c.id.in_(list(subjects)), table.c.private.is_(False))
        open_to_all.update(tx.execute(query).scalars())
    return set(subjects) - open_to_all


def settle_and_claim(tx: Connection, ended: Sequence[Sent], room: Room, now: float) -> list[RowMapping]:
    """Notes what became of earlier ones, and answers deliveries to be sent now, with their webhooks' columns.

    Each has `attempts` (from 1), and `url`, `secret`, `allow_private` and `project` of its webhook.
    """
    if ended:
        hooks.lock(tx, {one.webhook_id for one in ended})
        for one in ended:
            _note(tx, one, now)
        _promote(tx, {(one.webhook_id, one.subject) for one in ended if one.status != "waiting"})
        hooks.refresh(tx, {one.webhook_id for one in ended})
    found: list[RowMapping] = []
    for webhook in _with_work(tx, room, now):
        most = 1 if webhook["failures"] else room.each
        free = min(most - room.busy.get(webhook["id"], 0), room.slots - len(found))
        if free > 0:
            found += _claim(tx, webhook["id"], free, now)
            hooks.refresh(tx, [webhook["id"]])
    return found


def any_due(tx: Connection, receiver: str | None, now: float) -> bool:
    """Whether there is something to send."""
    query = select(webhooks.c.id).where(webhooks.c.not_before <= now, webhooks.c.disabled_at.is_(None), _of(receiver))
    return tx.execute(query.limit(1)).first() is not None


def release(tx: Connection, receiver: str | None, now: float) -> None:
    """Ends the claims of a sender that is gone: what it sent, and what was soon to be tried again, is due now."""
    due = _of(receiver) & (webhooks.c.not_before <= now + CLAIMED)
    ids = tx.execute(select(webhooks.c.id).where(due)).scalars().all()
    hooks.lock(tx, ids)
    soon = deliveries.c.not_before.between(now, now + CLAIMED) & (deliveries.c.status == "waiting")
    tx.execute(update(deliveries).where(deliveries.c.webhook_id.in_(ids), soon).values(not_before=now))
    hooks.refresh(tx, ids)


def page(
    tx: Connection, webhook_id: str, limit: int, after: str | None, status: str | None
) -> tuple[list[RowMapping], bool]:
    """Up to `limit` deliveries of a webhook, those of the latest events first, and whether more follow."""
    query = select(deliveries).where(deliveries.c.webhook_id == webhook_id)
    if status is not None:
        query = query.where(deliveries.c.status.in_(OPEN if status == "waiting" else (status,)))
    if after is not None:
        query = query.where(deliveries.c.position < get(tx, webhook_id, after)["position"])
    rows = list(tx.execute(query.order_by(deliveries.c.position.desc()).limit(limit + 1)).mappings())
    return rows[:limit], len(rows) > limit


def get(tx: Connection, webhook_id: str, delivery_id: str) -> RowMapping:
    """One delivery of a webhook; NotFound."""
    query = select(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.webhook_id == webhook_id)
    row = tx.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No delivery found with id '{delivery_id}'.", param="delivery_id")
    return row


def retry(tx: Connection, webhook_id: str, delivery_id: str, now: float) -> None:
    """Sends a delivery now, whatever became of it, and for three days if need be; NotFound.

    Conflict when it waits behind an earlier one.
    """
    hooks.lock(tx, [webhook_id])
    status = get(tx, webhook_id, delivery_id)["status"]
    if status == "held":
        message = "This delivery waits until an earlier event of the same batch is delivered: retry that one."
        raise Conflict(message, code="delivery_held")
    this = deliveries.c.id == delivery_id
    if status == "waiting":  # the attempts go on being counted: one may be under way
        tx.execute(update(deliveries).where(this).values(not_before=now, created_at=now))
        _hurry(tx, webhook_id)
    else:
        _again(tx, webhook_id, this, now)


def retry_dead(tx: Connection, webhook_id: str, now: float) -> int:
    """Sends all dead deliveries of a webhook again, and now what waits long for another try; how many were dead."""
    hooks.lock(tx, [webhook_id])
    of_it = deliveries.c.webhook_id == webhook_id
    # A sooner one may be under way: it would be sent twice.
    later = of_it & (deliveries.c.status == "waiting") & (deliveries.c.not_before > now + CLAIMED)
    tx.execute(update(deliveries).where(later).values(not_before=now))
    return _again(tx, webhook_id, of_it & (deliveries.c.status == "dead"), now)


def prune(tx: Connection, delivered_before: float, dead_before: float) -> int:
    """Deletes some of what ended before then; how many rows: as many as AT_ONCE when there may be more."""
    old = or_(
        (deliveries.c.status == "delivered") & (deliveries.c.ended_at < delivered_before),
        (deliveries.c.status == "dead") & (deliveries.c.ended_at < dead_before),
    )
    some = select(deliveries.c.id).where(old).limit(AT_ONCE).with_for_update(skip_locked=True)
    return tx.execute(delete(deliveries).where(deliveries.c.id.in_(some.scalar_subquery()))).rowcount


def _again(tx: Connection, webhook_id: str, which: ColumnElement[bool], now: float) -> int:
    subjects = tx.execute(select(deliveries.c.subject).where(which).distinct()).scalars().all()
    again = {"status": "held", "attempts": 0, "not_before": now, "created_at": now, "ended_at": None}
    changed = tx.execute(update(deliveries).where(which).values(again)).rowcount
    _promote(tx, {(webhook_id, subject) for subject in subjects})
    _hurry(tx, webhook_id)
    return changed


def _hurry(tx: Connection, webhook_id: str) -> None:
    hooks.change(tx, webhook_id, {"paused_until": 0})
    hooks.refresh(tx, [webhook_id])


def _with_work(tx: Connection, room: Room, now: float) -> Sequence[RowMapping]:
    """Webhooks that something is due for, the longest waiting first; those that another process sends for left out."""
    full = [webhook_id for webhook_id, sending in room.busy.items() if sending >= room.each]
    has_room = webhooks.c.id.not_in(list(room.busy)) | ((webhooks.c.failures == 0) & webhooks.c.id.not_in(full))
    outside = or_(webhooks.c.project.is_(None), webhooks.c.project.not_in(room.full)) if room.full else true()
    query = (
        select(webhooks.c.id, webhooks.c.failures)
        .where(webhooks.c.not_before <= now, webhooks.c.disabled_at.is_(None), _of(room.receiver))
        .where(has_room, outside)
        .order_by(webhooks.c.not_before)
        .limit(max(0, room.slots))
        .with_for_update(skip_locked=True)
    )
    return tx.execute(query).mappings().all()


def _claim(tx: Connection, webhook_id: str, most: int, now: float) -> Sequence[RowMapping]:
    waiting = (deliveries.c.webhook_id == webhook_id) & (deliveries.c.status == "waiting")
    due = waiting & (deliveries.c.not_before <= now)
    ids = tx.execute(
        select(deliveries.c.id).where(due).order_by(deliveries.c.not_before, deliveries.c.position).limit(most)
    )
    chosen = deliveries.c.id.in_(ids.scalars().all())
    taken = {"not_before": now + CLAIMED, "attempts": deliveries.c.attempts + 1}
    tx.execute(update(deliveries).where(chosen).values(taken))
    columns = (webhooks.c.url, webhooks.c.secret, webhooks.c.allow_private, webhooks.c.project)
    query = select(deliveries, *columns).join(webhooks, webhooks.c.id == deliveries.c.webhook_id).where(chosen)
    return tx.execute(query.order_by(deliveries.c.position)).mappings().all()


def _note(tx: Connection, one: Sent, now: float) -> None:
    mine = (deliveries.c.id == one.delivery_id) & (deliveries.c.attempts == one.attempt)
    ended = None if one.status == "waiting" else now
    values = {"status": one.status, "answer": one.answer, "error": one.error, "not_before": one.not_before}
    noted = tx.execute(
        update(deliveries).where(mine, deliveries.c.status == "waiting").values(**values, ended_at=ended)
    )
    if not noted.rowcount:
        return  # the claim ran out and somebody else sends it, or the webhook is gone
    well = one.status == "delivered"
    row: dict[str, Any] = {"failures": 0 if well else webhooks.c.failures + 1}
    if one.pause:
        row["paused_until"] = one.pause
    if one.gone:
        row["disabled_at"] = now
        dying = (deliveries.c.webhook_id == one.webhook_id) & deliveries.c.status.in_(OPEN)
        tx.execute(update(deliveries).where(dying).values(status="dead", error=one.error, ended_at=now))
    hooks.change(tx, one.webhook_id, row)


def _promote(tx: Connection, pairs: Iterable[tuple[str, str]]) -> None:
    """Of each webhook and subject the earliest held delivery waits to be sent, unless one does already."""
    wanted = [{"in_webhook": webhook_id, "in_subject": subject} for webhook_id, subject in sorted(pairs)]
    if wanted:
        tx.execute(_PROMOTE, wanted)


def _of(receiver: str | None) -> ColumnElement[bool]:
    return webhooks.c.receiver.is_(None) if receiver is None else webhooks.c.receiver == receiver


def _promotion() -> Update:
    other = deliveries.alias()
    pair = (other.c.webhook_id == bindparam("in_webhook")) & (other.c.subject == bindparam("in_subject"))
    first = select(other.c.id).where(pair, other.c.status == "held").order_by(other.c.position).limit(1)
    waits = select(other.c.id).where(pair, other.c.status == "waiting").exists()
    return update(deliveries).where(deliveries.c.id == first.scalar_subquery(), ~waits).values(status="waiting")


_PROMOTE = _promotion()
