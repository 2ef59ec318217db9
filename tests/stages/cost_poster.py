"""A process that posts ledger entries as fast as it can: `python -m tests.stages.cost_poster URL NAME COUNT`."""

from __future__ import annotations

import random
import sys

from batchway.core.usage import Usage
from batchway.db import ledger
from batchway.db.engine import Database

NOW = 1_790_000_000.0


def main(url: str, name: str, count: int) -> None:
    """Entries of several batches in an order of its own, so that processes meet in the same sums."""
    order = random.Random(name)
    db = Database(url)
    for number in range(count):
        entry = ledger.Entry(
            job_id=f"{name}-{number}", first_line=1, batch_id=f"batch_{order.randrange(3)}", project="p", key_id="k",
            account="acc", model=order.choice("mn"), lane="native", lines=1, usage=Usage(1, output_tokens=2),
        )  # fmt: skip
        db.write_now(ledger.post, entry, 3, "s", NOW + order.choice((0, 86400)))
    db.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
