"""Projects and the budget of the whole gateway, for admins.

Every change, its audit entry and its event are one transaction, and this process forgets at once what it knew of keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection

from batchway.core.budgets import GATEWAY, owner_of_project
from batchway.core.errors import RequestError
from batchway.core.events import EventType
from batchway.db import audit, projects
from batchway.db.outbox import About, tell
from batchway.server import once, rules
from batchway.server.pagination import ProjectQuery
from batchway.server.routing import Call, Operation
from batchway.wire.projects import (
    GatewayBudget,
    GatewayBudgetSet,
    Project,
    ProjectCreate,
    ProjectDeleted,
    ProjectList,
    ProjectUpdate,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # it is a part of a path
RULES = ("sharing", "redaction", "models", "providers")


def checked_name(name: str, param: str) -> str:
    """A project's name; RequestError for a text that cannot be one."""
    if NAME.fullmatch(name) is None:
        message = f"Invalid '{param}': 1 to 128 letters, digits, '.', '_' and '-' are allowed, the first no sign."
        raise RequestError(message, code="invalid_value", param=param)
    return name


async def create(call: Call) -> Project:
    """A new project."""
    body: ProjectCreate = call.body
    row = {
        "name": checked_name(body.name, "name"),
        **{name: getattr(body, name) for name in RULES},
        "limits": rules.changed_limits(None, body.limits),
        "created_at": call.gateway.clock(),
    }
    return await call.gateway.db.write(_add, call, row)


def _add(tx: Connection, call: Call, row: dict[str, Any]) -> Project:
    body: ProjectCreate = call.body
    name, now = row["name"], row["created_at"]
    projects.add(tx, row)
    rules.change_budget(tx, owner_of_project(name), body.budget or UNSET, now)
    note_project(tx, call, EventType.PROJECT_CREATED, name, rules.set_fields(body))
    return _kept(tx, call, name, now)


async def list_projects(call: Call) -> ProjectList:
    """Projects, newest first."""
    return await call.gateway.db.read(_page, call.query, call.gateway.clock())


def _page(tx: Connection, query: ProjectQuery, now: float) -> ProjectList:
    rows, more = projects.page(tx, **msgspec.structs.asdict(query))
    data = [_to_wire(tx, row, now) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return ProjectList(data=data, first_id=first, last_id=last, has_more=more)


async def retrieve(call: Call) -> Project:
    """One project."""
    return await call.gateway.db.read(_shown, call.params["project"], call.gateway.clock())


async def update(call: Call) -> Project:
    """Changes what is sent; null takes a rule away. What is made from now on follows the new sharing."""
    body: ProjectUpdate = call.body
    project = await call.gateway.db.write(_change, call, call.gateway.clock())
    call.keyring.forget()
    if body.budget is not UNSET:
        call.gateway.budget_changed()
    return project


def _change(tx: Connection, call: Call, now: float) -> Project:
    body: ProjectUpdate = call.body
    name = call.params["project"]
    row = projects.get(tx, name, hold=True)
    columns = {rule: getattr(body, rule) for rule in RULES if getattr(body, rule) is not UNSET}
    if body.limits is not UNSET:
        columns["limits"] = rules.changed_limits(row["limits"], body.limits)
    projects.change(tx, name, columns, now)
    rules.change_budget(tx, owner_of_project(name), body.budget, now)
    note_project(tx, call, EventType.PROJECT_UPDATED, name, rules.set_fields(body))
    return _kept(tx, call, name, now)


async def delete(call: Call) -> ProjectDeleted:
    """Ends a project that has neither keys nor batches that have not ended; its name stays taken."""
    name = call.params["project"]
    await call.gateway.db.write(_end, call, call.gateway.clock())
    return ProjectDeleted(id=name)


def _end(tx: Connection, call: Call, now: float) -> None:
    name = call.params["project"]
    projects.end(tx, name, now)
    rules.change_budget(tx, owner_of_project(name), None, now)
    note_project(tx, call, EventType.PROJECT_DELETED, name, {})


async def retrieve_budget(call: Call) -> GatewayBudget:
    """The budget of the whole gateway, and what is left of it."""
    return GatewayBudget(budget=await call.gateway.db.read(rules.budget_shown, GATEWAY, call.gateway.clock()))


async def set_budget(call: Call) -> GatewayBudget:
    """Sets the budget of the whole gateway; null takes it away."""
    answer = await call.gateway.db.write(_set_budget, call, call.gateway.clock())
    call.gateway.budget_changed()
    return answer


def _set_budget(tx: Connection, call: Call, now: float) -> GatewayBudget:
    body: GatewayBudgetSet = call.body
    rules.change_budget(tx, GATEWAY, body.budget, now)
    audit.record(tx, call.actor, "budget.updated", GATEWAY, now, rules.set_fields(body))
    answer = GatewayBudget(budget=rules.budget_shown(tx, GATEWAY, now))
    once.keep(tx, call.principal, call.idempotency, answer, now)
    return answer


def note_project(tx: Connection, call: Call, kind: EventType, name: str, details: dict[str, Any]) -> None:
    """The audit entry and the event of a change."""
    now = call.gateway.clock()
    audit.record(tx, call.actor, kind.value, name, now, details)
    tell(tx, kind, About(name, name, call.principal.key_id), now, {"name": name, "changed": sorted(details)})


def _kept(tx: Connection, call: Call, name: str, now: float) -> Project:
    project = _shown(tx, name, now)
    once.keep(tx, call.principal, call.idempotency, project, now)
    return project


def _shown(tx: Connection, name: str, now: float) -> Project:
    return _to_wire(tx, projects.get(tx, name), now)


def _to_wire(tx: Connection, row: Mapping[str, Any], now: float) -> Project:
    return Project(
        id=row["name"],
        name=row["name"],
        **{rule: row[rule] for rule in RULES},
        limits=rules.limits_of(row["limits"]),
        budget=rules.budget_shown(tx, owner_of_project(row["name"]), now),
        created_at=int(row["created_at"]),
    )


REPEATABLE = ("Idempotency-Key",)

OPERATIONS = (
    Operation(
        method="POST", path="/projects", name="createProject", handler=create, body=ProjectCreate, answer=Project,
        tag="Projects", admin=True, errors=(409, 422), headers=REPEATABLE,
        example={"name": "research", "sharing": False, "budget": {"usd": "100", "period": "month"}},
    ),
    Operation(
        method="GET", path="/projects", name="listProjects", handler=list_projects, query=ProjectQuery,
        answer=ProjectList, tag="Projects", admin=True, errors=(404,),
    ),
    Operation(
        method="GET", path="/projects/{project}", name="retrieveProject", handler=retrieve, answer=Project,
        tag="Projects", admin=True, errors=(404,),
    ),
    Operation(
        method="POST", path="/projects/{project}", name="updateProject", handler=update, body=ProjectUpdate,
        answer=Project, tag="Projects", admin=True, errors=(404, 422), headers=REPEATABLE,
        example={"redaction": "hash", "limits": {"active_batches": 20}},
    ),
    Operation(
        method="DELETE", path="/projects/{project}", name="deleteProject", handler=delete, answer=ProjectDeleted,
        tag="Projects", admin=True, errors=(404, 409),
    ),
    Operation(
        method="GET", path="/budget", name="retrieveBudget", handler=retrieve_budget, answer=GatewayBudget,
        tag="Projects", admin=True,
    ),
    Operation(
        method="POST", path="/budget", name="setBudget", handler=set_budget, body=GatewayBudgetSet,
        answer=GatewayBudget, tag="Projects", admin=True, errors=(422,), headers=REPEATABLE,
        example={"budget": {"usd": "1000", "period": "month"}},
    ),
)  # fmt: skip
