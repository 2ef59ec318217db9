"""The one condition that hides other people's objects: in every statement that answers a caller."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Table, or_, true

from batchway.core.principal import Sight


def visible(table: Table, sight: Sight | None) -> ColumnElement[bool]:
    """Rows that `sight` may know of (None: every row). `table` has the columns project, key_id and private."""
    if sight is None:
        return true()
    shared_or_own = or_(table.c.private.is_(False), table.c.key_id == sight.key_id)
    return (table.c.project == sight.project) & shared_or_own
