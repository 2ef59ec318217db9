"""Batches, ledger entries and questions at random, and the answers by counting every entry anew: slow and plain."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from sqlalchemy import select

from batchway.core.principal import Sight
from batchway.core.usage import Usage
from batchway.db import costs, ledger
from batchway.db.costs import DAY, Asked
from batchway.db.schema import batches
from batchway.db.schema import ledger as entries
from batchway.db.transitions import create_batch

FIRST = 20_000  # a day
DAYS = range(FIRST, FIRST + 3)
NAMES = ("team", "te", "a", "a=b", "a%3Db", "")
VALUES = st.one_of(st.sampled_from(["x", "", "c", "b=c", "=1", "ö漢"]), st.just("long " * 100), st.just("long " * 101))
FIELDS = {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"}

counts = st.integers(0, 10**6)
usages = st.builds(Usage, *(counts for _ in msgspec.structs.fields(Usage)))
amounts = st.none() | st.integers(0, 10**15)
owners = st.fixed_dictionaries({"project": st.sampled_from("pq"), "key_id": st.sampled_from(["k1", "k2"])})
batch_rows = st.fixed_dictionaries(
    {"owner": owners, "private": st.booleans(), "metadata": st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)}
)
post_rows = st.tuples(
    st.integers(0, 2),  # which batch
    st.sampled_from([("acc", "m", "native"), ("acc", "n", "native"), ("other", "m", "executed")]),
    usages,
    amounts,
    st.sampled_from([day * DAY + second for day in DAYS for second in (0, 1.5, DAY - 1e-6)]),
)
correction_rows = st.tuples(
    st.integers(0, 2), st.sampled_from(["correction", "refund"]), st.integers(-(10**15), 10**15), st.sampled_from(DAYS)
)
sights = st.none() | st.builds(Sight, st.sampled_from("pq"), st.sampled_from(["k1", "k2"]))
questions = st.builds(
    Asked,
    days=st.sampled_from([DAYS, DAYS[1:2], range(FIRST - 5, FIRST + 9)]),
    sight=sights,
    columns=st.lists(st.sampled_from([*costs.OWNERS, "batch_id"]), unique=True, max_size=3).map(tuple),
    equal=st.dictionaries(st.sampled_from(["project", "key_id"]), st.sampled_from([["p"], ["k1"], ["p", "k1"]])),
    pairs=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=1),
    by_tags=st.lists(st.sampled_from(NAMES), unique=True, max_size=2).map(tuple),
)


def fill(tx: Any, made: list[dict[str, Any]], posts: list[Any], corrected: list[Any]) -> None:
    """Everything through the functions that the gateway itself uses."""
    for number, row in enumerate(made):
        values = {
            "id": f"batch_{number}",
            "metadata": row["metadata"] or None,
            "private": row["private"],
            **row["owner"],
        }
        create_batch(tx, FIRST * DAY, {"window_seconds": 86400, "expires_at": 0, **FIELDS, **values})
    for number, (batch, (account, model, lane), usage, amount, at) in enumerate(posts):
        entry = ledger.Entry(
            job_id=f"job_{number}", first_line=1, batch_id=f"batch_{batch}", account=account, model=model, lane=lane,
            lines=number, usage=usage, **made[batch]["owner"],
        )  # fmt: skip
        for _ in range(2):  # a repeat is not summed up twice
            ledger.post(tx, entry, amount, "s", at)
    for number, (batch, kind, amount, day) in enumerate(corrected):
        fixed = {"batch_id": f"batch_{batch}", **made[batch]["owner"], "account": "", "model": "", "lane": ""}
        entry = {**fixed, "kind": kind, "reference": str(number), "amount": amount, "created_at": float(day * DAY)}
        assert costs.post_correction(tx, entry)
        assert not costs.post_correction(tx, entry)


def recount(tx: Any, asked: Asked) -> dict[Any, list[int]]:
    """(day, group, tags) -> figures, entry by entry."""
    query = select(entries, batches.c.metadata, batches.c.private).join(batches, batches.c.id == entries.c.batch_id)
    sums: dict[Any, list[int]] = {}
    for row in tx.execute(query).mappings():
        day, metadata = int(row["created_at"] // DAY), row["metadata"] or {}
        seen = asked.sight is None or (
            row["project"] == asked.sight.project and (not row["private"] or row["key_id"] == asked.sight.key_id)
        )
        meant = all(row[name] in values for name, values in asked.equal.items())
        paired = all(metadata.get(name) == value for name, value in asked.pairs.items())
        if day not in asked.days or not (seen and meant and paired):
            continue
        tags = tuple(costs.shown(metadata[name]) if name in metadata else None for name in asked.by_tags)
        key = day, tuple(row[name] for name in asked.columns), tags
        figures = sums.setdefault(key, [0] * len(costs.FIGURES))
        parts = [1, row["amount"] is None, row["lines"], *(row[n] for n in costs.USAGE_COLUMNS), row["amount"] or 0]
        sums[key] = [a + b for a, b in zip(figures, parts, strict=True)]
    return sums
