"""Who is asking: a key, what it may do, the project that owns what it makes, and whose objects it may know of."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

DEFAULT_PROJECT = "default"

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")


class Sight(msgspec.Struct, frozen=True):
    """Whose objects a caller may know of: its project's, but of another key's only those that are not private."""

    project: str
    key_id: str


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Which models and providers the lines of a key or a project may use; None allows every one.

    Models are patterns such as `gpt-4o*`, over the names that lines say; providers are names of accounts.
    """

    models: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None

    def allows_model(self, name: str) -> bool:
        """Whether lines may say this model."""
        return self.models is None or _any_matches(name, self.models)

    def allows_provider(self, account: str) -> bool:
        """Whether lines may go to this account."""
        return self.providers is None or account in self.providers


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a key or a project may have at once, or in a time; None does not limit.

    `enqueued_tokens` are the estimated input tokens of all live batches, `file_bytes` the size of one upload.
    """

    enqueued_tokens: int | None = None
    active_batches: int | None = None
    file_bytes: int | None = None
    uploads_per_day: int | None = None
    requests_per_minute: int | None = None


NO_LIMITS = Limits()


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A caller who was let in.

    `private`: what it makes is seen by no other key but admins'. `policies` must all allow a line. `limits` are the
    key's own, `project_limits` those of all keys of its project together.
    """

    key_id: str
    project: str
    scopes: frozenset[Scope] = frozenset({"read", "write"})
    private: bool = False
    policies: tuple[Policy, ...] = ()
    limits: Limits = NO_LIMITS
    project_limits: Limits = NO_LIMITS
    pauses: bool = False  # a batch over budget waits for a top-up instead of being refused

    @property
    def admin(self) -> bool:
        """Whether it sees and may do everything."""
        return "admin" in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether it has this right; an admin has every one."""
        return scope in self.scopes or self.admin

    @property
    def sight(self) -> Sight:
        """Whose objects it may know of as a member of its project."""
        return Sight(self.project, self.key_id)

    @property
    def sees(self) -> Sight | None:
        """Whose objects it may know of; None means everybody's."""
        return None if self.admin else self.sight


def _any_matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
