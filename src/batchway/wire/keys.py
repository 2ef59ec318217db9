"""Virtual keys: who may come in, and which project owns what they make."""

from __future__ import annotations

from typing import Literal

import msgspec


class KeyCreate(msgspec.Struct, kw_only=True):
    """A new key of a project (admin only)."""

    name: str
    project: str = "default"


class Key(msgspec.Struct, kw_only=True):
    """A key. `key` is there once, in the answer that created it; only its hash is stored."""

    id: str
    object: Literal["key"] = "key"
    name: str
    project: str
    created_at: int
    key: str | None = None


class KeyList(msgspec.Struct, kw_only=True):
    """All keys, newest first."""

    object: Literal["list"] = "list"
    data: list[Key]
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
