"""Projects: who owns files, batches and keys together; and the audit log of what admins did.

A project's name is its id and never changes, because everything it owns names it. Times are unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from batchway.wire.keys import Budget, BudgetSet, Limits, LimitsSet, Names

Redaction = Literal["none", "hash", "drop"]


class ProjectCreate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new project. `limits` and `budget` are of all its keys together.

    `models` (patterns) and `providers` (accounts) bind every key of it; null allows every one.
    """

    name: str
    sharing: Annotated[
        bool, msgspec.Meta(description="Its keys see what other keys of it make, from now on; private keys never.")
    ] = True
    redaction: Annotated[
        Redaction, msgspec.Meta(description="Of requests and responses that receivers of line records are told.")
    ] = "none"
    models: Names | None = None
    providers: Names | None = None
    limits: LimitsSet | None = None
    budget: BudgetSet | None = None


class ProjectUpdate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to change in a project; all else stays, null takes a rule away."""

    sharing: bool | UnsetType = UNSET
    redaction: Redaction | UnsetType = UNSET
    models: Names | UnsetType | None = UNSET
    providers: Names | UnsetType | None = UNSET
    limits: LimitsSet | UnsetType | None = UNSET
    budget: BudgetSet | UnsetType | None = UNSET


class Project(msgspec.Struct, kw_only=True):
    """A project. `default` is there always."""

    id: str
    object: Literal["project"] = "project"
    name: str
    sharing: bool
    redaction: Redaction
    models: list[str] | None
    providers: list[str] | None
    limits: Limits
    budget: Budget | None
    created_at: int


class ProjectList(msgspec.Struct, kw_only=True):
    """A page of projects, newest first unless `order=asc`."""

    object: Literal["list"] = "list"
    data: list[Project]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class ProjectDeleted(msgspec.Struct, kw_only=True):
    """The answer of a deletion. Its name stays taken: what it made keeps it."""

    id: str
    object: Literal["project"] = "project"
    deleted: bool = True


class GatewayBudget(msgspec.Struct, kw_only=True):
    """The budget of the whole gateway; null when it has none."""

    object: Literal["gateway.budget"] = "gateway.budget"
    budget: Budget | None


class GatewayBudgetSet(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The budget of the whole gateway from now on; null takes it away."""

    budget: BudgetSet | None


class AuditEntry(msgspec.Struct, kw_only=True):
    """One admin action: what `key_id` did to `target`. `details` holds what was set, never a secret."""

    id: str
    object: Literal["audit.entry"] = "audit.entry"
    at: int
    key_id: str
    action: str
    target: str
    details: dict[str, Any]
    request_id: str


class AuditList(msgspec.Struct, kw_only=True):
    """A page of the audit log, newest first unless `order=asc`."""

    object: Literal["list"] = "list"
    data: list[AuditEntry]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
