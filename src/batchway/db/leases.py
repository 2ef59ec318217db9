"""Statements over leases: a timed right to do something that one process is enough for.

Times are the callers' clocks: a lease spares work, it fences nothing. What must not happen twice checks a token.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, or_, select, update

from batchway.db.once import insert_once
from batchway.db.schema import leases


def take(tx: Connection, name: str, holder: str, now: float, seconds: float) -> bool:
    """Takes or renews the lease `name` for `seconds`; False while somebody else holds it."""
    values = {"holder": holder, "expires_at": now + seconds}
    free = or_(leases.c.holder == holder, leases.c.expires_at <= now)
    if tx.execute(update(leases).where(leases.c.name == name, free).values(values)).rowcount:
        return True
    return insert_once(tx, leases, {"name": name, **values})


def living(tx: Connection, prefix: str, now: float) -> int:
    """How many leases whose names begin with `prefix` are held."""
    held = leases.c.name.startswith(prefix, autoescape=True) & (leases.c.expires_at > now)
    return tx.execute(select(func.count()).select_from(leases).where(held)).scalar_one()


def give_back(tx: Connection, holder: str) -> None:
    """Ends every lease of `holder`."""
    tx.execute(delete(leases).where(leases.c.holder == holder))


def forget_old(tx: Connection, before: float) -> None:
    """Deletes leases that ran out before then: processes that will not come back."""
    tx.execute(delete(leases).where(leases.c.expires_at < before))
