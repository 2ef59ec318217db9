"""Idempotency-Key: the same key with the same request is answered once done; with another request it is a 422.

Exactly-once holds where `keep` runs in the transaction of the work (batches, uploads, parts). Where the work is not one
transaction (a file's bytes, a provider's job), the loser of a race undoes what it made.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request

from batchway.core.errors import KeyReused, RequestError
from batchway.core.principal import Principal
from batchway.db.engine import Database
from batchway.db.idempotency import AlreadyAnswered, Idempotency, recall, remember

HEADER = "idempotency-key"
LONGEST = 255

encode = msgspec.json.Encoder().encode


def wish(request: Request, content: tuple[bytes, ...]) -> Idempotency | None:
    """The wish to have this done once, or None without a key. `content` is what makes two requests the same."""
    key = request.headers.get(HEADER)
    if not key:
        return None
    if len(key) > LONGEST:
        raise RequestError(f"The Idempotency-Key is longer than {LONGEST} characters.", param="Idempotency-Key")
    hashed = sha256()
    for part in content:
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return Idempotency(key=key, fingerprint=hashed.hexdigest())


async def refuse_repeat(db: Database, principal: Principal, wanted: Idempotency, now: float) -> None:
    """AlreadyAnswered, which becomes the first answer, when this has been done; KeyReused for another request."""
    body = await db.read(recall, principal.key_id, wanted.key, wanted.fingerprint, now)
    if body is not None:
        raise AlreadyAnswered(body)


async def is_kept(
    db: Database, principal: Principal, wanted: Idempotency | None, answer: msgspec.Struct, now: float
) -> bool:
    """Whether this very answer is stored: what a commit whose outcome was lost came to."""
    if wanted is None:
        return False
    try:
        body = await db.read(recall, principal.key_id, wanted.key, wanted.fingerprint, now)
    except KeyReused:
        return False
    return body == encode(answer).decode()


def keep(tx: Connection, principal: Principal, wanted: Idempotency | None, answer: msgspec.Struct, now: float) -> None:
    """Stores the answer in the transaction of the work; raises, and so undoes it, when another was quicker."""
    if wanted is not None:
        remember(tx, principal.key_id, wanted.key, wanted.fingerprint, encode(answer).decode(), now)
