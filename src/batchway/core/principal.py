"""Who is asking: a key, the project that owns what it makes, and whether it sees everybody's."""

from __future__ import annotations

import msgspec

DEFAULT_PROJECT = "default"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A caller who was let in."""

    key_id: str
    project: str
    admin: bool = False

    @property
    def sees(self) -> str | None:
        """The project whose objects this caller may know of; None means every project's."""
        return None if self.admin else self.project
