"""Virtual keys: who may come in, what for, and which project owns what they make. Models: the names a key may use.

Times are unix seconds, sizes bytes, amounts decimal strings in US dollars. In an update a field that is not sent stays
as it is, and null takes a rule away.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Names = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=1000)]
Cidrs = Annotated[
    list[Name], msgspec.Meta(min_length=1, max_length=1000, description="Networks, such as 10.0.0.0/8 or 2001:db8::1.")
]
Scopes = Annotated[list[Literal["read", "write", "admin"]], msgspec.Meta(min_length=1, max_length=3)]
OnBudget = Literal["reject", "pause"]
UnixTime = Annotated[int, msgspec.Meta(ge=0, le=253402300799)]


class BudgetSet(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How much may be held and settled in a calendar day or month (UTC), or in all."""

    usd: Annotated[str, msgspec.Meta(description="A decimal figure such as 12.50, at most 4000000.")]
    period: Literal["day", "month", "total"]


class Budget(msgspec.Struct, kw_only=True):
    """A budget and what is left of it in the present period, from `starts_at` until `ends_at` (null: for ever)."""

    usd: str
    period: Literal["day", "month", "total"]
    starts_at: int
    ends_at: int | None
    held_usd: str
    settled_usd: str
    remaining_usd: str


class LimitsSet(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Limits; one that is not sent stays as it is, null takes it away.

    `enqueued_tokens` are the estimated input tokens of all live batches; `file_bytes` is the size of one upload.
    """

    enqueued_tokens: Count | UnsetType | None = UNSET
    active_batches: Count | UnsetType | None = UNSET
    file_bytes: Count | UnsetType | None = UNSET
    uploads_per_day: Count | UnsetType | None = UNSET
    requests_per_minute: Count | UnsetType | None = UNSET


class Limits(msgspec.Struct, kw_only=True):
    """Limits as they are; null does not limit."""

    enqueued_tokens: int | None = None
    active_batches: int | None = None
    file_bytes: int | None = None
    uploads_per_day: int | None = None
    requests_per_minute: int | None = None


class KeyCreate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new key of a project. Unknown fields are refused: a limit that is ignored would be no limit.

    `models` are patterns such as `gpt-4o*`; null allows every model, provider (account) or network.
    """

    name: Name
    project: str = "default"
    scopes: Scopes = msgspec.field(default_factory=lambda: ["read", "write"])
    models: Names | None = None
    providers: Names | None = None
    cidrs: Cidrs | None = None
    limits: LimitsSet | None = None
    budget: BudgetSet | None = None
    on_budget: OnBudget = "reject"
    private: Annotated[bool, msgspec.Meta(description="What it makes is seen by no other key but admins'.")] = False
    disabled: bool = False
    expires_at: UnixTime | None = None


class KeyUpdate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to change in a key; all else stays. A key keeps its project."""

    name: Name | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    models: Names | UnsetType | None = UNSET
    providers: Names | UnsetType | None = UNSET
    cidrs: Cidrs | UnsetType | None = UNSET
    limits: LimitsSet | UnsetType | None = UNSET
    budget: BudgetSet | UnsetType | None = UNSET
    on_budget: OnBudget | UnsetType = UNSET
    private: bool | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    expires_at: UnixTime | UnsetType | None = UNSET


class KeyRotate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """For how many seconds the old secret still lets in; 0 ends it at once."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=30 * 86400)] = 3600


class Key(msgspec.Struct, kw_only=True):
    """A key. `key` is there once, in the answer that created or rotated it; only its hash is stored."""

    id: str
    object: Literal["key"] = "key"
    name: str
    project: str
    scopes: list[str]
    models: list[str] | None
    providers: list[str] | None
    cidrs: list[str] | None
    limits: Limits
    budget: Budget | None
    on_budget: str
    private: bool
    disabled: bool
    created_at: int
    expires_at: int | None
    key: str | None = None


class KeyList(msgspec.Struct, kw_only=True):
    """A page of keys, newest first unless `order=asc`."""

    object: Literal["list"] = "list"
    data: list[Key]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class KeyDeleted(msgspec.Struct, kw_only=True):
    """The answer of a deletion: the key lets nobody in any more."""

    id: str
    object: Literal["key"] = "key"
    deleted: bool = True


class Model(msgspec.Struct, kw_only=True):
    """A model name that lines may use."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(msgspec.Struct, kw_only=True):
    """All names that a key may use."""

    object: Literal["list"] = "list"
    data: list[Model]
