"""Every ending survives kill -9: cancelled, expired by us or by the provider, refused, all lines failed, not valid.

Whatever the ending, each input line stands in exactly one of output and error file; only a batch that was not valid
has no files.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.crash.steps import During, Run, cancels, discover, faults, first_of_each, mixed_lines, slowest, try_all
from tests.gateway import Gateway

SLOW = {"speed": 150, "latency": 0.6}  # the provider's batch takes seconds, and so do the executed lines


def closes_window(gateway: Gateway, batch_id: str) -> bool:
    """Lets the batch's window end now, once it is in progress."""
    if gateway.batch(batch_id)["status"] == "validating":
        return False
    database = sqlite3.connect(gateway.home / "batchway.db", timeout=30)
    with database:
        database.execute("update batches set expires_at = ? where id = ?", (time.time(), batch_id))
    database.close()
    return True


@dataclass(frozen=True)
class Ending:
    """How a batch comes to its end, and at which points the quick test kills its gateway."""

    status: str
    crucial: tuple[str, ...]
    content: bytes = mixed_lines(40)
    during: During | None = None
    simulator: dict[str, Any] = field(default_factory=dict)

    def tried(self, folder: Any, points: Any) -> dict[str, Run]:
        return try_all(folder, points, content=self.content, during=self.during, **self.simulator)


ENDINGS = {
    "cancelled": Ending(
        "cancelled",
        ("after db cancel._want_cancelled #1", "after call POST /batches/:id/cancel #1", "before db finalize._end #1"),
        during=cancels,
        simulator=SLOW,
    ),
    "expired": Ending(
        "expired",
        ("after db cancel._want_expired #1", "after db chunks.stop #1", "after db account._post #1"),
        during=closes_window,
        simulator=SLOW,
    ),
    "expired at the provider": Ending(
        "expired",
        ("after db poll._record #1", "before db collect._collected #2"),
        simulator={"fail": "expire=1", "window_seconds": 2000},
    ),
    "refused by the provider": Ending("completed", ("after db poll._record #1",), simulator={"fail": "fail_batch=1"}),
    "all lines failed": Ending(
        "completed", ("after db account._post #1", "after db finalize._end #1"), content=mixed_lines(30, bad=1)
    ),
    "not valid": Ending(
        "failed", ("before db validate._record_failure #1",), content=mixed_lines(30, model="no/such-model")
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_line_has_its_place_in_every_ending(tmp_path, name):
    ending = ENDINGS[name]
    runs = ending.tried(tmp_path, [*ending.crucial, "nowhere"])
    assert faults(runs) == {}
    assert {run.remains.batch["status"] for run in runs.values()} == {ending.status}
    assert [point for point, run in runs.items() if not run.died] == ["nowhere"]
    check_reasons(name, runs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ENDINGS)
def test_every_line_has_its_place_in_every_ending_wherever_the_gateway_dies(tmp_path, name):
    ending = ENDINGS[name]
    found = discover(tmp_path, content=ending.content, during=ending.during, **ending.simulator)
    runs = ending.tried(tmp_path, first_of_each(found))
    assert faults(runs) == {}
    check_reasons(name, runs)
    print(f"{name}: {sum(run.died for run in runs.values())} deaths, {dict(endings(runs))}; {slowest(runs)}")


def endings(runs: dict[str, Run]) -> Counter[str]:
    return Counter(run.remains.batch["status"] for run in runs.values())


def check_reasons(name: str, runs: dict[str, Run]) -> None:
    """Lines that were never run say why, in the words of the batch's ending."""
    for run in runs.values():
        codes = Counter((line["error"] or {}).get("code") for line in run.remains.lines("error"))
        if run.remains.batch["status"] == "cancelled":
            assert codes["batch_expired"] == 0, codes
        if run.remains.batch["status"] == "expired":
            assert codes["batch_cancelled"] == 0, codes
        if name == "expired at the provider":
            assert codes["batch_expired"] > 0
