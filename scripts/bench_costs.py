#!/usr/bin/env python3
"""Times GET /v1/costs of a real gateway on SQLite while the ledger grows: 10^5, 10^6, then 10^7 entries of a year.

    python scripts/bench_costs.py [--entries 100000 1000000 10000000] [--folder FOLDER]

Entries are made by SQL in bulk, ten to a batch, and from them the sums (`costs`) as `db/costs.py` would have kept them.
Every batch has a tag of its own, so there are many sums that no question here needs. Answers over the sums must take
the same time at every size; those over single batches read the entries of a day, so they grow with it.
"""

# ruff: noqa: S608, T201 - the statements hold names of our own columns; a bench tells what it measured

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from batchway.db.costs import DAY
from batchway.db.engine import Database
from batchway.db.schema import USAGE_COLUMNS

KEY = "sk-bench"
DAYS = 365
FIRST = int(time.time()) // DAY - DAYS + 1
TIMES = 15
USAGE = ", ".join(USAGE_COLUMNS)
BATCH_ROWS = f"""
    with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < :count)
    insert into batches (id, project, key_id, private, endpoint, input_file_id, completion_window, window_seconds,
        metadata, priority, input_tokens, status, expiring, total, completed, failed, segment_seq, amount_known,
        created_at, expires_at, failed_at, not_before, attempts)
    select printf('batch_%010d', i), 'project-' || (i % 20), 'key_' || (i % 40), 0, '/v1/embeddings', 'file', '24h',
        86400, json_object('team', 'team-' || (i % 10), 'run', 'run-' || i), 0, 0, 'failed', 0, 10, 10, 0, 0, 1,
        {FIRST * DAY} + i * {DAYS * DAY - 1000.0} / :count, 0, 0, 0, 0
    from n
"""
ENTRY_ROWS = f"""
    insert into ledger (batch_id, job_id, first_line, last_line, kind, reference, project, key_id, account, model, lane,
        lines, {USAGE}, amount, created_at)
    select b.id, 'job_' || m.value, 1, 0, 'usage', '', b.project, b.key_id, 'account-' || (m.value % 2),
        'model-' || (m.value % 5), 'native', 50, {", ".join("1000" for _ in USAGE_COLUMNS)},
        case when m.value = 9 and b.rowid % 100 = 0 then null else 1000003 * m.value + b.rowid end,
        b.created_at + m.value
    from batches b, json_each('[0,1,2,3,4,5,6,7,8,9]') m
"""
SUMS = f"""
    insert into costs (day, tag, project, key_id, account, model, lane, private, entries, unknown, lines, {USAGE},
        amount)
    select cast(l.created_at / {DAY} as int), {{tag}}, l.project, l.key_id, l.account, l.model, l.lane, 0, count(*),
        count(*) - count(l.amount), sum(l.lines), {", ".join(f"sum(l.{name})" for name in USAGE_COLUMNS)},
        coalesce(sum(l.amount), 0)
    from ledger l {{join}} group by 1, 2, 3, 4, 5, 6, 7
"""
TEAMS = "join batches b on b.id = l.batch_id"


def fill(path: Path, entries: int) -> None:
    """Makes so many entries, in the order of their time, and the sums."""
    with sqlite3.connect(path, isolation_level=None) as db:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000", "temp_store=MEMORY"):
            db.execute(f"pragma {pragma}")
        made = "from sqlite_master where type = 'index' and sql is not null and tbl_name in ('ledger', 'batches')"
        indexes = db.execute(f"select name, sql {made}").fetchall()
        for name, _ in indexes:
            db.execute(f'drop index "{name}"')
        db.execute(BATCH_ROWS, {"count": entries // 10})
        db.execute(ENTRY_ROWS)
        for _, statement in indexes:
            db.execute(statement)
        db.execute(SUMS.format(tag="''", join=""))
        db.execute(SUMS.format(tag="'team=' || (b.metadata ->> 'team')", join=TEAMS))
        db.execute(SUMS.format(tag="'run=' || (b.metadata ->> 'run')", join=TEAMS))
        db.execute("pragma journal_mode=WAL")


def question(**parameters: object) -> str:
    """The path of a question; a list is a parameter that is repeated."""
    listed = [
        (name, one) for name, value in parameters.items() for one in (value if isinstance(value, list) else [value])
    ]
    return "/v1/costs?" + "&".join(f"{name}={one}" for name, one in listed)


def ask(port: int, path: str) -> tuple[float, int]:
    """(seconds of all pages together, results in them)."""
    spent, count, page = 0.0, 0, ""
    while True:
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", path + page, headers={"authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        body = answer.read()
        spent += time.perf_counter() - began
        connection.close()
        found = json.loads(body)
        if answer.status != 200:
            raise SystemExit(f"{path}: {found}")
        count += sum(len(bucket["results"]) for bucket in found["data"])
        if found["next_page"] is None:
            return spent, count
        page = f"&page={found['next_page']}"


def measure(home: Path) -> None:
    """Prints the median and the worst of every question."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = home / "batchway.yaml"
    config.write_text(f"home: {home}\nport: {port}\nmaster_key: {KEY}\nlog_level: warning\n")
    command = [sys.executable, "-m", "batchway", "serve", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as gateway:
        try:
            if not any(f":{port}" in line for line in gateway.stdout or ()):
                raise SystemExit("the gateway ended")
            year, month, day = FIRST * DAY, (FIRST + DAYS - 30) * DAY, (FIRST + DAYS - 1) * DAY
            for name, path in {
                "30 days": question(start_time=month, limit=30),
                "30 days by project and model": question(start_time=month, limit=30, group_by=["project", "model"]),
                "365 days (3 pages)": question(start_time=year, limit=180),
                "365 days by project and model (3 pages)": question(
                    start_time=year, limit=180, group_by=["project", "model"]
                ),
                "30 days by tag:team": question(start_time=month, limit=30, group_by="tag:team"),
                "30 days of one project by key": question(
                    start_time=month, limit=30, group_by="key", project="project-3"
                ),
                "1 day by batch, of one project": question(
                    start_time=day, limit=1, group_by="batch", project="project-3"
                ),
                "1 day by batch": question(start_time=day, limit=1, group_by="batch"),
                "365 days of one batch (3 pages)": question(start_time=year, limit=180, batch_id="batch_0000000003"),
            }.items():
                ask(port, path)
                done = [ask(port, path) for _ in range(TIMES)]
                spent = sorted(seconds * 1000 for seconds, _ in done)
                print(f"  {name:42} {statistics.median(spent):8.1f} ms  worst {spent[-1]:8.1f}  {done[0][1]:7} results")
        finally:
            gateway.terminate()


def main() -> None:
    """Fills and measures, size by size."""
    parser = argparse.ArgumentParser(description="Times /v1/costs while the ledger grows.")
    parser.add_argument("--entries", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--folder", type=Path, help="where there is room: 700 bytes an entry")
    given = parser.parse_args()
    for wanted in given.entries:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            path = Path(folder) / "batchway.db"
            Database(f"sqlite:///{path}").close()
            began = time.monotonic()
            fill(path, wanted)
            size = path.stat().st_size / 1e9
            print(f"{wanted} entries (filled in {time.monotonic() - began:.0f} s, {size:.1f} GB)", flush=True)
            measure(Path(folder))


if __name__ == "__main__":
    main()
