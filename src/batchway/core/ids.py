"""Object ids: OpenAI's prefixes, 128 random bits, nothing encoded.

An id carries no secret, no route and no time, so it can be neither guessed nor decoded.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

IdMaker = Callable[[str], str]
"""Takes a prefix (`batch_`, `file-`, ...) and answers a new id; tests pass a counting one."""


def new_id(prefix: str) -> str:
    """A new id: the prefix and 32 hex digits."""
    return prefix + secrets.token_hex(16)
