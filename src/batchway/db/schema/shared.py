"""What the tables have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, MetaData, String

from batchway.core.states import BatchState

metadata = MetaData()
Serial = BigInteger().with_variant(Integer, "sqlite")


def words(column: str, known: type[StrEnum]) -> CheckConstraint:
    """The column holds one of the enum's words."""
    listed = ", ".join(f"'{word}'" for word in known)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def reference(name: str, target: str, *, index: bool = False, primary_key: bool = False) -> Column[Any]:
    """A column that names a row of `target` and goes with it."""
    key = ForeignKey(target, ondelete="CASCADE")
    return Column(name, String, key, nullable=False, index=index, primary_key=primary_key)


def final_has_time(state: BatchState) -> CheckConstraint:
    """A batch in this state has the time of its end."""
    return CheckConstraint(f"status <> '{state}' OR {state}_at IS NOT NULL", name=f"{state}_has_time")
