"""An exclusive lock on a folder, held by the living process and by nobody else.

Invariant: while a `FolderLock` is held no other process holds one on the same folder, and the kernel drops it the
moment its holder dies, however it dies. So whoever gets it knows that the former holder is dead, without any lease.
The lock file is never deleted: a deleted one could be locked twice, once by its old name and once by its new one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from batchway.core.errors import ConfigError


class FolderLock:
    """Takes the lock on making; `release` gives it back. Raises `ConfigError` with the holder's pid if it is taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not inherited: a child process that outlives us must not keep our folder locked.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise ConfigError(
                f"{path.parent} is in use by another Batchway process (pid {holder}). One process at a time may use an "
                "embedded database: stop that one, choose another data folder, or set a PostgreSQL database."
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
