"""Money survives kill -9: wherever the gateway dies, the ledger equals a recount of the output file to the pico-dollar,
no hold stays open, and the budget is what its holds say; in every ending.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.crash.ordeal import chat_lines
from tests.crash.steps import During, Run, cancels, discover, faults, first_of_each, mixed_lines, slowest, try_all
from tests.crash.test_kill_endings import Ending, closes_window
from tests.gateway import FINAL as ENDED
from tests.gateway import Gateway

SLOW = {"speed": 15, "latency": 0.1}  # lines a second: a batch takes some
BUDGET = {"settings": {"budget": {"usd": "25", "period": "total"}}}  # of which every batch here holds a part


def priced(count: int, *, bad: int = 10**9) -> bytes:
    """Lines whose prices are known; every `bad`th is refused."""
    lines = [json.loads(raw) for raw in chat_lines(count).splitlines()]
    for number, line in enumerate(lines, 1):
        if number % bad == 0:
            line["body"]["metadata"] = {"simulate": "400"}
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def midway(stops: During) -> During:
    """Does it once some lines are answered, so that there is something to pay."""

    def once(gateway: Gateway, batch_id: str) -> bool:
        batch = gateway.batch(batch_id)
        if batch["status"] in ENDED:
            return True
        return batch["request_counts"]["completed"] > 0 and stops(gateway, batch_id)

    return once


ACCOUNTED = ("before db account._post #1", "after db account._post #1", "after db account._post #2")
FINAL = ("before db finalize._end #1", "after db finalize._end #1")
ENDINGS = {
    "completed": Ending("completed", ("after db create._store #1", *ACCOUNTED, *FINAL), content=priced(30)),
    "partly failed": Ending("completed", ACCOUNTED, content=priced(30, bad=4)),
    "cancelled": Ending(
        "cancelled", ("after db cancel._want_cancelled #1", *ACCOUNTED, *FINAL[:1]), priced(60), midway(cancels), SLOW
    ),
    "expired": Ending(
        "expired",
        ("after db cancel._want_expired #1", ACCOUNTED[2], *FINAL[1:]),
        priced(60),
        midway(closes_window),
        SLOW,
    ),
    "expired at the provider": Ending(
        "expired", ACCOUNTED[1:2], priced(30), simulator={"fail": "expire=1", "window_seconds": 2000}
    ),
    "refused by the provider": Ending("completed", FINAL[1:], priced(30), simulator={"fail": "fail_batch=1"}),
    "not valid": Ending(
        "failed",
        ("before db validate._record_failure #1", "after db validate._record_failure #1"),
        content=mixed_lines(30, model="no/such-model"),
    ),
}


def limited(ending: Ending) -> dict[str, Any]:
    """The options of a run: its simulator's, and a gateway with a budget."""
    return {"content": ending.content, "during": ending.during, **ending.simulator, **BUDGET}


def check_money(name: str, runs: dict[str, Run]) -> None:
    for run in runs.values():
        (budget,) = run.remains.rows["budgets"]
        holds = run.remains.rows["holds"]
        if name == "not valid":
            assert (holds, budget["settled"]) == ([], 0)
            continue
        (hold,) = holds
        settled = hold["settled_amount"] or 0
        assert (settled > 0) == (name != "refused by the provider")
        assert (budget["held"], budget["settled"]) == (0, settled)
        assert hold["amount"] >= settled
        assert (run.remains.batch["amount"] or 0) == budget["settled"]


@pytest.mark.parametrize("name", ENDINGS)
def test_the_money_adds_up_in_every_ending(tmp_path, name):
    ending = ENDINGS[name]
    runs = try_all(tmp_path, ending.crucial, **limited(ending))
    assert faults(runs) == {}
    assert {run.remains.batch["status"] for run in runs.values()} == {ending.status}
    assert [point for point, run in runs.items() if not run.died] == []
    check_money(name, runs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ENDINGS)
def test_the_money_adds_up_in_every_ending_wherever_a_commit_is_the_last(tmp_path, name):
    ending = ENDINGS[name]
    commits = [point for point in discover(tmp_path, **limited(ending)) if " db " in point]
    runs = try_all(tmp_path, first_of_each(commits, times=3), **limited(ending))
    assert faults(runs) == {}
    check_money(name, runs)
    print(f"{name}: {sum(run.died for run in runs.values())} deaths; {slowest(runs)}")
