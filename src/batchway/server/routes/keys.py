"""Virtual keys, for admins. A key is shown once: a repeat with the same Idempotency-Key answers without the secret."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from batchway.core.errors import RequestError
from batchway.db import keys
from batchway.server import once
from batchway.server.auth import digest, new_key
from batchway.server.routing import Call, Operation
from batchway.wire import keys as wire
from batchway.wire.keys import Key, KeyDeleted, KeyList

LONGEST_NAME = 256


class KeyCreate(wire.KeyCreate, forbid_unknown_fields=True):
    """A new key of a project. Unknown fields are refused: a limit that is ignored would be no limit."""


async def create(call: Call) -> Key:
    """A new key; `key` is in this answer and nowhere else."""
    body: KeyCreate = call.body
    for param, value in (("name", body.name), ("project", body.project)):
        if not 1 <= len(value) <= LONGEST_NAME:
            message = f"Invalid '{param}': 1 to {LONGEST_NAME} characters are allowed."
            raise RequestError(message, code="invalid_value", param=param)
    secret, now = new_key(), call.gateway.clock()
    key = Key(id=call.gateway.new_id("key_"), name=body.name, project=body.project, created_at=int(now))
    row = {"id": key.id, "name": key.name, "project": key.project, "hash": digest(secret), "scopes": ["read", "write"]}
    await call.gateway.db.write(_add, {**row, "created_at": now}, call, key)
    key.key = secret
    return key


def _add(tx: Connection, row: dict[str, Any], call: Call, key: Key) -> None:
    keys.add(tx, row)
    once.keep(tx, call.principal, call.idempotency, key, row["created_at"])


async def list_keys(call: Call) -> KeyList:
    """All live keys, without their secrets."""
    return KeyList(data=[_to_wire(row) for row in await call.gateway.db.read(keys.live)])


async def retrieve(call: Call) -> Key:
    """One key, without its secret."""
    return _to_wire(await call.gateway.db.read(keys.get, call.params["key_id"]))


async def delete(call: Call) -> KeyDeleted:
    """Lets the key in no more; what it made stays with its project."""
    key_id = call.params["key_id"]
    await call.gateway.db.write(keys.end, key_id, call.gateway.clock())
    call.keyring.forget()
    return KeyDeleted(id=key_id)


def _to_wire(row: Any) -> Key:
    return Key(id=row["id"], name=row["name"], project=row["project"], created_at=int(row["created_at"]))


OPERATIONS = (
    Operation(
        method="POST", path="/keys", name="createKey", handler=create, body=KeyCreate, answer=Key, tag="Keys",
        admin=True, errors=(403, 422),
        example={"name": "nightly", "project": "research"}, headers=("Idempotency-Key",),
    ),
    Operation(
        method="GET", path="/keys", name="listKeys", handler=list_keys, answer=KeyList, tag="Keys", admin=True,
        errors=(403,),
    ),
    Operation(
        method="GET", path="/keys/{key_id}", name="retrieveKey", handler=retrieve, answer=Key, tag="Keys",
        admin=True, errors=(403, 404),
    ),
    Operation(
        method="DELETE", path="/keys/{key_id}", name="deleteKey", handler=delete, answer=KeyDeleted, tag="Keys",
        admin=True, errors=(403, 404),
    ),
)  # fmt: skip
