"""Virtual keys, for admins. A key is shown once: a repeat with the same Idempotency-Key answers without the secret.

Every change, its audit entry and its event are one transaction, and this process forgets at once whom it let in.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, RowMapping

from batchway.core.budgets import owner_of_key
from batchway.core.errors import RequestError
from batchway.core.events import EventType
from batchway.db import audit, keys, projects
from batchway.db.outbox import About, tell
from batchway.server import once, rules
from batchway.server.auth import digest, networks, new_key
from batchway.server.pagination import KeyQuery
from batchway.server.routes.projects import checked_name, note_project
from batchway.server.routing import Call, Operation
from batchway.wire.keys import Key, KeyCreate, KeyDeleted, KeyList, KeyRotate, KeyUpdate


async def create(call: Call) -> Key:
    """A new key; `key` is in this answer and nowhere else. A project that does not exist yet is made with it."""
    body: KeyCreate = call.body
    checked_name(body.project, "project")
    secret, now = new_key(), call.gateway.clock()
    row = {
        **_columns(body, now),
        "id": call.gateway.new_id("key_"),
        "project": body.project,
        "limits": rules.changed_limits(None, body.limits),
        "created_at": now,
    }
    key = await call.gateway.db.write(_add, call, row, digest(secret))
    key.key = secret
    return key


def _add(tx: Connection, call: Call, row: dict[str, Any], hashed: str) -> Key:
    body: KeyCreate = call.body
    now = row["created_at"]
    if projects.ensure(tx, row["project"], now):
        note_project(tx, call, EventType.PROJECT_CREATED, row["project"], {"by": row["id"]})
    keys.add(tx, {**row, "hash": hashed})
    rules.change_budget(tx, owner_of_key(row["id"]), body.budget or UNSET, now)
    _note(tx, call, EventType.KEY_CREATED, row, rules.set_fields(body))
    key = _shown(tx, row["id"], now)
    once.keep(tx, call.principal, call.idempotency, key, now)
    return key


async def list_keys(call: Call) -> KeyList:
    """Keys, newest first, without their secrets."""
    return await call.gateway.db.read(_page, call.query, call.gateway.clock())


def _page(tx: Connection, query: KeyQuery, now: float) -> KeyList:
    rows, more = keys.page(tx, **msgspec.structs.asdict(query))
    data = [_to_wire(tx, row, now) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return KeyList(data=data, first_id=first, last_id=last, has_more=more)


async def retrieve(call: Call) -> Key:
    """One key, without its secret."""
    return await call.gateway.db.read(_shown, call.params["key_id"], call.gateway.clock())


async def update(call: Call) -> Key:
    """Changes what is sent, for the key's next request on; null takes a rule away."""
    body: KeyUpdate = call.body
    now = call.gateway.clock()
    columns = _columns(body, now)
    key = await call.gateway.db.write(_change, call, columns, now)
    call.keyring.forget()
    if body.budget is not UNSET:
        call.gateway.budget_changed()
    return key


def _change(tx: Connection, call: Call, columns: dict[str, Any], now: float) -> Key:
    body: KeyUpdate = call.body
    row = keys.get(tx, call.params["key_id"], hold=True)
    if body.limits is not UNSET:
        columns["limits"] = rules.changed_limits(row["limits"], body.limits)
    if columns.get("disabled_at") and row["disabled_at"]:
        del columns["disabled_at"]  # since then, not since now
    keys.change(tx, row["id"], columns)
    rules.change_budget(tx, owner_of_key(row["id"]), body.budget, now)
    _note(tx, call, EventType.KEY_UPDATED, row, rules.set_fields(body))
    key = _shown(tx, row["id"], now)
    once.keep(tx, call.principal, call.idempotency, key, now)
    return key


async def rotate(call: Call) -> Key:
    """A new secret, in this answer and nowhere else; the old one lets in for `grace_seconds` more."""
    secret = new_key()
    key = await call.gateway.db.write(_rotate, call, digest(secret), call.gateway.clock())
    call.keyring.forget()
    key.key = secret
    return key


def _rotate(tx: Connection, call: Call, hashed: str, now: float) -> Key:
    body: KeyRotate = call.body
    row = keys.get(tx, call.params["key_id"], hold=True)
    keys.rotate(tx, row["id"], hashed, now, body.grace_seconds)
    _note(tx, call, EventType.KEY_ROTATED, row, rules.set_fields(body))
    key = _shown(tx, row["id"], now)
    once.keep(tx, call.principal, call.idempotency, key, now)
    return key


async def delete(call: Call) -> KeyDeleted:
    """Lets the key in no more; what it made stays with its project, its batches go on."""
    await call.gateway.db.write(_end, call, call.gateway.clock())
    call.keyring.forget()
    return KeyDeleted(id=call.params["key_id"])


def _end(tx: Connection, call: Call, now: float) -> None:
    row = keys.get(tx, call.params["key_id"], hold=True)
    keys.end(tx, row["id"], now)
    _note(tx, call, EventType.KEY_DELETED, row, {})


def _columns(wanted: KeyCreate | KeyUpdate, now: float) -> dict[str, Any]:
    """The columns that the request sets, but for the limits; RequestError names the field at fault."""
    sent = {name: getattr(wanted, name) for name in ("name", "scopes", "models", "providers", "on_budget", "private")}
    columns = {name: value for name, value in sent.items() if value is not UNSET}
    if wanted.scopes is not UNSET:
        columns["scopes"] = sorted(set(wanted.scopes))
    if wanted.cidrs is not UNSET:
        columns["cidrs"] = _networks(wanted.cidrs)
    if wanted.disabled is not UNSET:
        columns["disabled_at"] = now if wanted.disabled else None
    if wanted.expires_at is not UNSET:
        columns["expires_at"] = wanted.expires_at
        if wanted.expires_at is not None and wanted.expires_at <= now:
            message = "Invalid 'expires_at': that time is past. To shut a key out now, set 'disabled' to true."
            raise RequestError(message, code="invalid_value", param="expires_at")
    return columns


def _networks(cidrs: list[str] | None) -> list[str] | None:
    try:
        return None if cidrs is None else [str(network) for network in networks(cidrs)]
    except ValueError as error:
        message = f"Invalid 'cidrs': {error}. A network is written 192.0.2.0/24 or 2001:db8::/32."
        raise RequestError(message, code="invalid_value", param="cidrs") from None


def _note(
    tx: Connection, call: Call, kind: EventType, row: dict[str, Any] | RowMapping, details: dict[str, Any]
) -> None:
    """The audit entry and the event of a change."""
    key_id, now = row["id"], call.gateway.clock()
    audit.record(tx, call.actor, kind.value, key_id, now, details)
    told = {"id": key_id, "project": row["project"], "name": row["name"], "changed": sorted(details)}
    tell(tx, kind, About(key_id, row["project"], key_id), now, told)


def _shown(tx: Connection, key_id: str, now: float) -> Key:
    return _to_wire(tx, keys.get(tx, key_id), now)


def _to_wire(tx: Connection, row: RowMapping, now: float) -> Key:
    same = ("id", "name", "project", "scopes", "models", "providers", "cidrs", "on_budget", "private")
    return Key(
        **{name: row[name] for name in same},
        limits=rules.limits_of(row["limits"]),
        budget=rules.budget_shown(tx, owner_of_key(row["id"]), now),
        disabled=row["disabled_at"] is not None,
        created_at=int(row["created_at"]),
        expires_at=None if row["expires_at"] is None else int(row["expires_at"]),
    )


REPEATABLE = ("Idempotency-Key",)

OPERATIONS = (
    Operation(
        method="POST", path="/keys", name="createKey", handler=create, body=KeyCreate, answer=Key, tag="Keys",
        admin=True, errors=(409, 422), headers=REPEATABLE,
        example={"name": "nightly", "project": "research", "models": ["gpt-4o*"],
                 "budget": {"usd": "12.50", "period": "month"}, "limits": {"requests_per_minute": 600}},
    ),
    Operation(
        method="GET", path="/keys", name="listKeys", handler=list_keys, query=KeyQuery, answer=KeyList, tag="Keys",
        admin=True, errors=(404,),
    ),
    Operation(
        method="GET", path="/keys/{key_id}", name="retrieveKey", handler=retrieve, answer=Key, tag="Keys",
        admin=True, errors=(404,),
    ),
    Operation(
        method="POST", path="/keys/{key_id}", name="updateKey", handler=update, body=KeyUpdate, answer=Key,
        tag="Keys", admin=True, errors=(404, 422), headers=REPEATABLE,
        example={"disabled": True, "expires_at": None},
    ),
    Operation(
        method="POST", path="/keys/{key_id}/rotate", name="rotateKey", handler=rotate, body=KeyRotate, answer=Key,
        tag="Keys", admin=True, errors=(404, 422), headers=REPEATABLE, example={"grace_seconds": 86400},
    ),
    Operation(
        method="DELETE", path="/keys/{key_id}", name="deleteKey", handler=delete, answer=KeyDeleted, tag="Keys",
        admin=True, errors=(404,),
    ),
)  # fmt: skip
