"""The audit log, for admins: what was done to keys, projects, budgets, webhooks and the ledger, by whom."""

from __future__ import annotations

import msgspec
from sqlalchemy import RowMapping

from batchway.db import audit
from batchway.server.pagination import AuditQuery
from batchway.server.routing import Call, Operation
from batchway.wire.projects import AuditEntry, AuditList


async def list_audit(call: Call) -> AuditList:
    """Admin actions, newest first, narrowed by any filter."""
    wanted = msgspec.convert(call.query, audit.AuditFilter, from_attributes=True)
    rows, more = await call.gateway.db.read(audit.page, wanted)
    data = [_to_wire(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return AuditList(data=data, first_id=first, last_id=last, has_more=more)


def _to_wire(row: RowMapping) -> AuditEntry:
    same = ("id", "key_id", "action", "target", "details", "request_id")
    return AuditEntry(**{name: row[name] for name in same}, at=int(row["at"]))


OPERATIONS = (
    Operation(
        method="GET", path="/audit", name="listAudit", handler=list_audit, query=AuditQuery, answer=AuditList,
        tag="Audit", admin=True, errors=(404,),
    ),
)  # fmt: skip
