"""What must hold of an ended batch, whatever happened on the way; read from the database, the files, the simulator.

`violations` answers sentences, none when all is well, so that a crash test shows everything that went wrong at once.
Nothing here uses the stages: lines, tokens and money are counted again from the bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from batchway.billing.prices import Prices
from batchway.core.money import to_pico
from batchway.db.engine import driver_url
from tests.simulator import FINAL, Simulator

NEVER_RUN = frozenset({"batch_expired", "batch_cancelled"})  # in the error file, but not counted as failed
ADDED = frozenset({"cursor", "amount_usd"})  # what `/results` puts into a line
TABLES = ("batches", "jobs", "ledger", "holds", "budgets", "outbox", "files", "segments", "chunks")
USAGE = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True)
class Remains:
    """What one batch left behind; rows are dicts."""

    batch: dict[str, Any]
    rows: Mapping[str, list[dict[str, Any]]]
    storage: Path
    input: list[bytes]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The parsed lines of the output or error file; none when there is no file."""
        file_id = self.batch[f"{name}_file_id"]
        if file_id is None:
            return []
        return [json.loads(line) for line in (self.storage / "files" / file_id).read_bytes().splitlines()]


def read(database: str, storage: Path, batch_id: str) -> Remains:
    """Everything about one batch. `storage` is the folder of a local storage."""
    engine = sa.create_engine(driver_url(database))
    with engine.connect() as connection:
        rows = {
            name: [dict(row) for row in connection.execute(sa.text(f"select * from {name}")).mappings()]
            for name in TABLES
        }
    engine.dispose()
    batch = next(row for row in rows["batches"] if row["id"] == batch_id)
    source = next(row for row in rows["files"] if row["id"] == batch["input_file_id"])
    of_batch = {
        name: [row for row in found if row.get("batch_id", batch_id) == batch_id or name == "files"]
        for name, found in rows.items()
    }
    of_batch["every hold"] = rows["holds"]  # budgets are not one batch's
    return Remains(batch, of_batch, storage, (storage / source["storage_key"]).read_bytes().splitlines())


def violations(
    remains: Remains, simulators: Iterable[Simulator], kinds: Mapping[str, str], *, cut_uploads: int = 0
) -> list[str]:
    """What does not hold. `kinds` are the provider kinds of the accounts.

    `cut_uploads` were ended by a kill: each may have left an object that no row names, as `pipeline/intake.py` says.
    """
    output, errors = remains.lines("output"), remains.lines("error")
    found = [
        *_ending(remains),
        *_lines(remains, output, errors),
        *_counts(remains, output, errors),
        *_money(remains, output, kinds),
        *_budgets(remains),
        *_events(remains),
        *_objects(remains, cut_uploads),
    ]
    for simulator in simulators:
        found += _provider(remains, simulator)
    return found


def results_violations(remains: Remains, results: list[dict[str, Any]]) -> list[str]:
    """`/results` gives each line once, the same line that stands in the files, and what each costs."""
    stored = {line["custom_id"]: line for name in ("output", "error") for line in remains.lines(name)}
    times = Counter(line["custom_id"] for line in results)
    found = [f"/results gives {name} {count} times" for name, count in times.items() if count > 1]
    if missing := set(stored) - set(times):
        found.append(f"/results lacks {len(missing)} of {len(stored)} lines, such as {sorted(missing)[:3]}")
    for line in results:
        bare = {key: value for key, value in line.items() if key not in ADDED}
        if stored.get(line["custom_id"]) != bare:
            found.append(f"/results and the files differ on {line['custom_id']}")
    amount = sum(to_pico(line["amount_usd"]) for line in results if "amount_usd" in line)
    if amount != (_ledger_sum(remains) or 0):
        found.append(f"the amounts of /results add up to {amount}, the ledger's to {_ledger_sum(remains)}")
    return found[:20]


def _ending(remains: Remains) -> Iterator[str]:
    status = remains.batch["status"]
    if status not in FINAL:
        yield f"the batch is {status}"
    for job in remains.rows["jobs"]:
        if job["status"] != "accounted":
            yield f"job {job['ordinal']} is {job['status']}"
    for hold in remains.rows["holds"]:
        if hold["settled_at"] is None:
            yield "a hold is open"
        elif hold["settled_amount"] != _ledger_sum(remains):
            yield f"the hold was settled with {hold['settled_amount']}, the ledger says {_ledger_sum(remains)}"
    if status != "failed" and len(remains.rows["holds"]) > 1:
        yield f"there are {len(remains.rows['holds'])} holds"


def _lines(remains: Remains, output: list[dict[str, Any]], errors: list[dict[str, Any]]) -> Iterator[str]:
    if remains.batch["status"] == "failed":
        return
    place = {json.loads(line)["custom_id"]: number for number, line in enumerate(remains.input)}
    times = Counter(line["custom_id"] for line in output + errors)
    if doubled := [name for name, count in times.items() if count > 1]:
        yield f"{len(doubled)} lines stand more than once, such as {doubled[:3]}"
    if missing := place.keys() - times.keys():
        yield f"{len(missing)} lines are lost, such as {sorted(missing)[:3]}"
    if foreign := times.keys() - place.keys():
        yield f"{len(foreign)} lines are foreign, such as {sorted(foreign)[:3]}"
    for name, lines in (("output", output), ("error", errors)):
        order = [place.get(line["custom_id"], -1) for line in lines]
        if order != sorted(order):
            yield f"the {name} file is not in input order"
    if wrong := [line["custom_id"] for line in output if not _answered(line)]:
        yield f"{len(wrong)} lines of the output file have no answer, such as {wrong[:3]}"
    if wrong := [line["custom_id"] for line in errors if _answered(line)]:
        yield f"{len(wrong)} lines of the error file are answered, such as {wrong[:3]}"


def _answered(line: dict[str, Any]) -> bool:
    return line["response"] is not None and 200 <= line["response"]["status_code"] < 300


def _counts(remains: Remains, output: list[dict[str, Any]], errors: list[dict[str, Any]]) -> Iterator[str]:
    batch, jobs = remains.batch, remains.rows["jobs"]
    if batch["status"] == "failed":
        return
    failed = sum((line["error"] or {}).get("code") not in NEVER_RUN for line in errors)
    wanted = {"total": len(remains.input), "completed": len(output), "failed": failed}
    said = {name: batch[name] for name in wanted}
    if said != wanted:
        yield f"the batch counts {said}, the files {wanted}"
    summed = {name: sum(job[name] for job in jobs) for name in ("completed", "failed")}
    if summed != {name: wanted[name] for name in summed}:
        yield f"the jobs count {summed}, the files {wanted}"
    if sum(job["lines"] for job in jobs) not in (len(remains.input), 0):
        yield f"the jobs hold {sum(job['lines'] for job in jobs)} lines of {len(remains.input)}"


def _money(remains: Remains, output: list[dict[str, Any]], kinds: Mapping[str, str]) -> Iterator[str]:
    answered = _by_job(remains, output)
    entries = Counter(entry["job_id"] for entry in remains.rows["ledger"])
    if entries != Counter(dict.fromkeys(answered, 1)):
        yield f"ledger entries by job {dict(entries)}, jobs with answered lines {sorted(answered)}"
    jobs = {job["id"]: job for job in remains.rows["jobs"]}
    for entry in remains.rows["ledger"]:
        job, lines = jobs[entry["job_id"]], answered.get(entry["job_id"], [])
        usages = [_usage(line) for line in lines]
        total = {name: sum(usage[name] for usage in usages) for name in USAGE}
        if {name: entry[name] for name in USAGE} != total or entry["lines"] != len(lines):
            yield f"job {job['ordinal']}: the ledger has {entry}, the output file {total} in {len(lines)} lines"
        amount = _amount(job, usages, kinds)
        if entry["amount"] != amount or job["amount"] != amount:
            yield f"job {job['ordinal']}: ledger {entry['amount']}, job {job['amount']}, recount {amount}"
    if remains.batch["status"] == "failed":
        return
    every = [_usage(line) for line in output]
    usage = _parsed(remains.batch["usage"])
    if {name: usage[name] for name in USAGE} != {name: sum(one[name] for one in every) for name in USAGE}:
        yield f"the batch's usage is {usage}, not that of its output file"
    known = all(entry["amount"] is not None for entry in remains.rows["ledger"])
    if bool(remains.batch["amount_known"]) != known:
        yield f"the batch's amount is said to be {'un' if known else ''}known"
    if known and remains.batch["amount"] != (_ledger_sum(remains) or 0):
        yield f"the batch's amount is {remains.batch['amount']}, the ledger's {_ledger_sum(remains)}"


def _budgets(remains: Remains) -> Iterator[str]:
    """A budget says what the holds of its owner say that were opened in its period."""
    for budget in remains.rows["budgets"]:
        kind, _, name = budget["owner"].partition(":")
        column = {"key": "key_id", "project": "project"}.get(kind)
        mine = [
            hold
            for hold in remains.rows["every hold"]
            if hold["opened_at"] >= budget["starts_at"] and (column is None or hold[column] == name)
        ]
        held = sum(hold["amount"] or 0 for hold in mine if hold["settled_at"] is None)
        settled = sum(hold["settled_amount"] or 0 for hold in mine)
        if (budget["held"], budget["settled"]) != (held, settled):
            yield f"{budget['owner']} says {budget['held']} held and {budget['settled']} settled: {held}, {settled}"


def _ledger_sum(remains: Remains) -> int | None:
    amounts = [entry["amount"] for entry in remains.rows["ledger"] if entry["amount"] is not None]
    return sum(amounts) if amounts else None


def _amount(job: dict[str, Any], usages: list[dict[str, int]], kinds: Mapping[str, str]) -> int | None:
    """What the lines cost in pico-dollars, each by its own length."""
    price = Prices().price(kinds[job["account"]], job["model"], job["lane"], job["accounted_at"])
    if price is None:
        return None
    total = 0
    for usage in usages:
        tier = price.for_length(usage["input_tokens"])
        fresh = usage["input_tokens"] - usage["cached_tokens"] - usage["cache_write_tokens"]
        total += fresh * tier.input + usage["cached_tokens"] * tier.cached
        total += usage["cache_write_tokens"] * tier.cache_write + usage["output_tokens"] * tier.output
    return total


def _usage(line: dict[str, Any]) -> dict[str, int]:
    usage = line["response"]["body"]["usage"]
    parts, out_parts = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "cached_tokens": parts.get("cached_tokens", 0),
        "cache_write_tokens": parts.get("cache_write_tokens", 0),
        "output_tokens": usage["completion_tokens"],
        "reasoning_tokens": out_parts.get("reasoning_tokens", 0),
    }


def _by_job(remains: Remains, output: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The answered lines of each job that has one: by where the input line stands, and its model."""
    lines = {line["custom_id"]: line for line in output}
    found: dict[str, list[dict[str, Any]]] = {}
    at = 0
    for raw in remains.input:
        parsed = json.loads(raw)
        if parsed["custom_id"] in lines:
            owner = next(job["id"] for job in remains.rows["jobs"] if _holds(job, at, parsed["body"]["model"]))
            found.setdefault(owner, []).append(lines[parsed["custom_id"]])
        at += len(raw) + 1
    return found


def _holds(job: dict[str, Any], at: int, model: str) -> bool:
    models = _parsed(job["models"])
    return job["span_start"] <= at < job["span_end"] and (not models or model in models)


def _parsed(value: Any) -> Any:
    """A JSON column: SQLite gives its text."""
    return json.loads(value) if isinstance(value, str) else value


def _events(remains: Remains) -> Iterator[str]:
    batch_id, status = remains.batch["id"], remains.batch["status"]
    told = Counter(event["type"] for event in remains.rows["outbox"] if event["subject"] == batch_id)
    jobs = remains.rows["jobs"]
    wanted = {"batch.created": 1, f"batch.{status}": 1}
    wanted |= {"job.ended": len(jobs), "job.accounted": len(jobs)}
    for kind, count in wanted.items():
        if told[kind] != count:
            yield f"{told[kind]} events {kind}, not {count}"
    if told["job.submitted"] != sum(job["remote_id"] is not None for job in jobs):
        yield f"{told['job.submitted']} events job.submitted"
    if others := [kind for kind, count in told.items() if kind.startswith("batch.") and count > 1]:
        yield f"told more than once: {others}"


def _objects(remains: Remains, cut_uploads: int) -> Iterator[str]:
    """Rows have their bytes; bytes have a row, or a place that housekeeping empties."""
    names = [path.relative_to(remains.storage) for path in remains.storage.rglob("*") if path.is_file()]
    keys = {name.as_posix() for name in names if name.parts[0] != ".writing"}  # unfinished: swept after a day
    for file in remains.rows["files"]:
        key = file["storage_key"]
        if key not in keys:
            yield f"the bytes of {file['purpose']} {file['id']} are missing"
        elif hashlib.sha256((remains.storage / key).read_bytes()).hexdigest() != file["sha256"]:
            yield f"the bytes of {file['purpose']} {file['id']} are others than its row says"
        keys -= {key, f"{key}.index"}
    for segment in remains.rows["segments"]:
        if segment["storage_key"] not in keys:
            yield f"the bytes of segment {segment['seq']} are missing"
    batch_id = remains.batch["id"]
    swept = (f"answers/{batch_id}/", f"segments/{batch_id}/")  # go with the batch, rows or not
    stray = sorted(key for key in keys if not key.startswith(swept))
    if len({key.removesuffix(".index") for key in stray}) > cut_uploads:
        yield f"objects that nothing names: {stray}"


def _provider(remains: Remains, simulator: Simulator) -> Iterator[str]:
    jobs = {job["token"]: job for job in remains.rows["jobs"]}
    seen: Counter[str] = Counter()
    for batch in simulator.batches():
        token = (batch["metadata"] or {}).get("batchway_token", "")
        seen[token] += 1
        if token not in jobs:
            yield f"the provider's {batch['id']} belongs to no job"
        elif jobs[token]["remote_id"] != batch["id"]:
            yield f"the provider's {batch['id']} is unknown: its job has {jobs[token]['remote_id']}"
        if batch["status"] not in FINAL:
            yield f"the provider's {batch['id']} is still {batch['status']}"
    if doubled := [token for token, count in seen.items() if count > 1]:
        yield f"{len(doubled)} jobs were submitted more than once"
