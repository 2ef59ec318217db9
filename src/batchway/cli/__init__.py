"""The command line: one file a command group, loaded when its command is chosen.

Only `main.py` is imported here, and it imports click and the errors alone: `batchway --help` stays quick.
"""

from __future__ import annotations

from batchway.cli.main import main

__all__ = ["main"]
