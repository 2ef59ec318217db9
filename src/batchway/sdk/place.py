"""Where calls go when nobody says: to BATCHWAY_BASE_URL, else to the gateway inside this process.

The SDK knows the wire only, so it cannot import that gateway; the package root, which is always imported first, tells
it here how one is opened. Keep this module free of imports that cost: it is loaded with the package.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from batchway.sdk.transport import Transport


class Local(Protocol):
    """The gateway of this process, or of another one that serves the same folder."""

    def blocking(self) -> Transport:
        """A transport whose coroutines block instead of suspending."""
        ...

    def suspending(self) -> Transport:
        """A transport for event loops."""
        ...


open_local: Callable[[], Local] | None = None  # set by the package root


def local() -> Local:
    """The gateway of this process; it is started at the first call."""
    if open_local is None:
        raise RuntimeError("this process has no gateway; set BATCHWAY_BASE_URL or pass base_url")
    return open_local()


def configured_url() -> str | None:
    """The gateway that the environment names."""
    return os.environ.get("BATCHWAY_BASE_URL") or None


def configured_key() -> str | None:
    """The key that the environment holds."""
    return os.environ.get("BATCHWAY_API_KEY") or None
