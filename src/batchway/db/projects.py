"""Statements over projects. `default` is there always, also without a row; a deleted project's name stays taken.

Whoever adds a key asks `ensure` in the same transaction, and `end` counts the keys under the project's lock: so no key
ever belongs to a deleted project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, func, select, tuple_, update

from batchway.core.errors import Conflict, NotFound
from batchway.core.principal import DEFAULT_PROJECT
from batchway.core.states import LIVE_BATCH_STATES
from batchway.db import keys
from batchway.db.once import insert_once
from batchway.db.schema import batches, projects

Row = Mapping[Any, Any]  # of the table, or the one that stands for a `default` without a row

RULES: Mapping[str, Any] = {"sharing": True, "redaction": "none", "models": None, "providers": None, "limits": None}
DEFAULT: Row = {"name": DEFAULT_PROJECT, **RULES, "created_at": 0.0, "deleted_at": None}


def get(tx: Connection, name: str, *, hold: bool = False) -> Row:
    """A project that is not deleted; NotFound. With `hold` nobody else can change it before the transaction ends."""
    query = select(projects).where(projects.c.name == name, projects.c.deleted_at.is_(None))
    row = tx.execute(query.with_for_update() if hold else query).mappings().one_or_none()
    if row is None and name != DEFAULT_PROJECT:
        raise NotFound(f"No project found with the name '{name}'.", param="project")
    return row or DEFAULT


def ensure(tx: Connection, name: str, now: float) -> bool:
    """The project exists when the transaction ends; True when it was made by this. Conflict for a deleted one."""
    if name == DEFAULT_PROJECT:
        return False
    if insert_once(tx, projects, {"name": name, **RULES, "created_at": now}):
        return True
    query = select(projects.c.deleted_at).where(projects.c.name == name)
    if tx.execute(query.with_for_update(read=True)).scalar_one() is not None:
        raise _taken(name)
    return False


def add(tx: Connection, values: Mapping[str, Any]) -> None:
    """A new project: its name, created_at, and any of its rules. Conflict when the name is taken."""
    name = values["name"]
    if name == DEFAULT_PROJECT or not insert_once(tx, projects, {**RULES, **values}):
        row = tx.execute(select(projects.c.deleted_at).where(projects.c.name == name)).one_or_none()
        raise _taken(name) if row is not None and row.deleted_at is not None else _exists(name)


def change(tx: Connection, name: str, values: Mapping[str, Any], now: float) -> None:
    """Sets columns of a project."""
    if not values:
        return
    if name == DEFAULT_PROJECT:
        insert_once(tx, projects, {**DEFAULT, "created_at": now})
    tx.execute(update(projects).where(projects.c.name == name).values(**values))


def end(tx: Connection, name: str, now: float) -> None:
    """The project is gone. NotFound, or Conflict while it has keys or batches that have not ended."""
    if name == DEFAULT_PROJECT:
        raise Conflict(f"The project '{name}' is there always.", code="project_in_use", param="project")
    get(tx, name, hold=True)
    live = select(func.count()).where(batches.c.project == name, batches.c.status.in_(sorted(LIVE_BATCH_STATES)))
    for count, what, mend in (
        (keys.of_project(tx, name), "keys", "delete them first"),
        (tx.execute(live).scalar_one(), "batches that have not ended", "cancel them or wait for their end"),
    ):
        if count:
            raise Conflict(f"The project '{name}' has {count} {what}: {mend}.", code="project_in_use", param="project")
    tx.execute(update(projects).where(projects.c.name == name).values(deleted_at=now))


def page(tx: Connection, *, limit: int, after: str | None, order: Literal["asc", "desc"]) -> tuple[Sequence[Row], bool]:
    """Up to `limit` projects that are not deleted, behind the project `after`, and whether more follow; NotFound."""
    up = order == "asc"
    columns = (projects.c.created_at, projects.c.name)
    query = select(projects).where(projects.c.deleted_at.is_(None))
    mark = None
    if after is not None:
        last = get(tx, after)
        mark = last["created_at"], last["name"]
        query = query.where(tuple_(*columns) > tuple_(*mark) if up else tuple_(*columns) < tuple_(*mark))
    query = query.order_by(*(column.asc() if up else column.desc() for column in columns)).limit(limit + 1)
    rows: Sequence[Row] = list(tx.execute(query).mappings())
    if _default_is_missing(tx) and (mark is None or (_place(DEFAULT) > mark if up else _place(DEFAULT) < mark)):
        rows = sorted([*rows, DEFAULT], key=_place, reverse=not up)
    return rows[:limit], len(rows) > limit


def _place(row: Row) -> tuple[float, str]:
    return row["created_at"], row["name"]


def _default_is_missing(tx: Connection) -> bool:
    return tx.execute(select(projects.c.name).where(projects.c.name == DEFAULT_PROJECT)).first() is None


def _exists(name: str) -> Conflict:
    return Conflict(f"There is a project '{name}' already.", code="project_exists", param="name")


def _taken(name: str) -> Conflict:
    message = f"The project '{name}' was deleted, and what it made keeps its name: choose another one."
    return Conflict(message, code="project_deleted", param="project")
