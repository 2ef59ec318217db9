"""`python -m batchway` is the command `batchway`."""

from __future__ import annotations

import sys

from batchway.cli import main

if __name__ == "__main__":
    sys.exit(main())
