"""Answers kept for a day, so that a repeated POST gets the first answer instead of doing the work again.

`remember` runs in the transaction of the work itself: the unique (key_id, idempotency_key) lets one of several
concurrent or repeated requests commit; the others roll back and answer what it stored.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, select

from batchway.core.errors import BatchwayError, KeyReused
from batchway.db.once import insert_once
from batchway.db.schema import idempotency as answers

KEPT_SECONDS = 86400.0


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """A client's Idempotency-Key and the fingerprint of what it was sent with.

    `asker` is the id of the key that sent it, when what it asks for will belong to another one.
    """

    key: str
    fingerprint: str
    asker: str | None = None


class AlreadyAnswered(BatchwayError):
    """Another request with this key was quicker; `body` is its answer (JSON)."""

    def __init__(self, body: str) -> None:
        super().__init__("a request with this Idempotency-Key has been answered")
        self.body = body


def recall(tx: Connection, key_id: str, key: str, fingerprint: str, now: float) -> str | None:
    """The answer stored for this key, or None; KeyReused when it was sent with something else."""
    row = tx.execute(
        select(answers.c.fingerprint, answers.c.body).where(
            answers.c.key_id == key_id, answers.c.idempotency_key == key, answers.c.created_at > now - KEPT_SECONDS
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise KeyReused(
            "This Idempotency-Key was first sent with another request: use a new key for a new request.",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    return row.body


def remember(tx: Connection, key_id: str, key: str, fingerprint: str, body: str, now: float) -> None:
    """Stores the answer; AlreadyAnswered or KeyReused, and so a rollback, when another request has stored one."""
    mine = (answers.c.key_id == key_id, answers.c.idempotency_key == key)
    tx.execute(delete(answers).where(*mine, answers.c.created_at <= now - KEPT_SECONDS))
    row = {
        "key_id": key_id,
        "idempotency_key": key,
        "fingerprint": fingerprint,
        "body": body,
        "created_at": now,
    }
    if not insert_once(tx, answers, row):
        raise AlreadyAnswered(recall(tx, key_id, key, fingerprint, now) or "")


def forget_old(tx: Connection, now: float) -> int:
    """How many answers older than a day were dropped."""
    return tx.execute(delete(answers).where(answers.c.created_at <= now - KEPT_SECONDS)).rowcount
