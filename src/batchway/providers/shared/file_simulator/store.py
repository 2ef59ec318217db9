"""What a simulated provider remembers: its files, its batches and the requests it answered, in one SQLite database.

Statements take the connection first; only the event loop uses it. Invariant: a change is on disk (of a `state_dir`)
when the answer that reports it is sent, so a killed simulator comes back knowing everything it accepted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

TERMINAL = ("failed", "completed", "expired", "cancelled")


class File(msgspec.Struct, kw_only=True):
    """A stored file; times in virtual unix seconds, size in bytes."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float | None = None

    def shown(self, status: str) -> dict[str, Any]:
        """The File object of the API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created_at),
            "expires_at": None if self.expires_at is None else int(self.expires_at),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": status,
            "status_details": None,
        }


class Fate(msgspec.Struct, kw_only=True):
    """What was drawn for a batch when it was created: durations in virtual seconds, and what goes wrong.

    `stops_at`: the fraction of lines after which it stands still until it expires; `stalls_for` seconds are lost in the
    middle; `fails`: the code of an error that fails the whole batch.
    """

    validates_for: float
    runs_for: float
    finalizes_for: float
    line_rate: float
    stops_at: float | None = None
    stalls_for: float = 0.0
    fails: str | None = None


class Batch(msgspec.Struct, kw_only=True):
    """A batch: what the client sent, what its scan and its writing found, and when it entered each state.

    `failed_ranks`: 4 bytes a failing line, its place in the order of finishing, ascending. `done`: lines that have run
    when it stopped running; None while it may still run on. `overruns`: whether it runs on when its window has closed.
    `extra`: what the flavor keeps with it.
    """

    id: str
    ordinal: int
    endpoint: str
    input_file_id: str
    metadata: dict[str, str] | None
    output_seconds: int | None
    created_at: float
    expires_at: float
    fate: Fate
    status: str = "validating"
    model: str | None = None
    faults: list[dict[str, Any]] = []
    total: int = 0
    never: int = 0
    tokens: int = 0
    failed_ranks: bytes = b""
    done: int | None = None
    scanned_at: float | None = None
    written_at: float | None = None
    stamps: dict[str, float] = {}
    completed: int = 0
    failed: int = 0
    usage: dict[str, int] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    overruns: bool = False
    extra: dict[str, Any] = {}


_SCHEMA = """
create table if not exists meta (name text primary key, value real not null);
create table if not exists files (
  ordinal integer primary key autoincrement, id text unique not null, purpose text not null, expires_at real,
  document blob not null);
create index if not exists files_expiring on files (expires_at);
create table if not exists batches (
  ordinal integer primary key, id text unique not null, active integer not null, model text,
  input_file_id text not null, created_at real not null, document blob not null);
create index if not exists batches_active on batches (active, model);
create table if not exists requests (
  model text not null, sha256 text not null, custom_id text not null, attempts integer not null,
  answered integer not null, primary key (model, sha256, custom_id)) without rowid;
"""


def open_store(folder: Path | None) -> sqlite3.Connection:
    """The database in a folder, or one in memory."""
    location = ":memory:" if folder is None else folder / "simulator.sqlite"
    # Opened where the app is made, used where it is served: that may be another thread, but never two at once.
    db = sqlite3.connect(location, isolation_level=None, check_same_thread=False)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = off")  # outlives a killed process; a power cut is not what is simulated
    db.executescript(_SCHEMA)
    return db


def read_meta(db: sqlite3.Connection) -> dict[str, float]:
    """The clock as it was kept; empty in a new store."""
    return dict(db.execute("select name, value from meta").fetchall())


def write_meta(db: sqlite3.Connection, **values: float) -> None:
    """Keeps numbers by name."""
    db.executemany("insert or replace into meta values (?, ?)", values.items())


def add_file(db: sqlite3.Connection, file: File) -> None:
    """Lists a file whose bytes are on disk."""
    db.execute(
        "insert into files (id, purpose, expires_at, document) values (?, ?, ?, ?)",
        (file.id, file.purpose, file.expires_at, msgspec.msgpack.encode(file)),
    )


def get_file(db: sqlite3.Connection, identity: str) -> File | None:
    """The file with this id, or None."""
    row = db.execute("select document from files where id = ?", (identity,)).fetchone()
    return None if row is None else msgspec.msgpack.decode(row[0], type=File)


def remove_file(db: sqlite3.Connection, identity: str) -> None:
    """Lists a file no longer."""
    db.execute("delete from files where id = ?", (identity,))


def expired_files(db: sqlite3.Connection, now: float) -> list[str]:
    """Ids of files whose time is over."""
    return [row[0] for row in db.execute("select id from files where expires_at <= ?", (now,))]


_FILE_PAGE = """
select document from files where (?1 is null or purpose = ?1)
and (?2 is null or ordinal {side} (select ordinal from files where id = ?2)) order by ordinal {order} limit ?3
"""


def list_files(
    db: sqlite3.Connection, *, purpose: str | None, after: str | None, ascending: bool, limit: int
) -> list[File]:
    """A page of files, newest first unless `ascending`."""
    side, order = (">", "asc") if ascending else ("<", "desc")
    rows = db.execute(
        _FILE_PAGE.format(side=side, order=order),
        (purpose, after, limit),
    )
    return [msgspec.msgpack.decode(row[0], type=File) for row in rows]


def next_ordinal(db: sqlite3.Connection) -> int:
    """The number of the next batch, from 1."""
    return db.execute("select coalesce(max(ordinal), 0) + 1 from batches").fetchone()[0]


def save_batch(db: sqlite3.Connection, batch: Batch) -> None:
    """Stores a batch as it is now, new or changed."""
    db.execute(
        "insert or replace into batches values (?, ?, ?, ?, ?, ?, ?)",
        (
            batch.ordinal,
            batch.id,
            batch.status not in TERMINAL,
            batch.model,
            batch.input_file_id,
            batch.created_at,
            msgspec.msgpack.encode(batch),
        ),
    )


def get_batch(db: sqlite3.Connection, identity: str) -> Batch | None:
    """The batch with this id as it was stored last, or None."""
    row = db.execute("select document from batches where id = ?", (identity,)).fetchone()
    return None if row is None else msgspec.msgpack.decode(row[0], type=Batch)


def list_batches(db: sqlite3.Connection, *, after: str | None, limit: int) -> list[Batch]:
    """A page of batches, newest first; a negative limit is no limit."""
    rows = db.execute(
        "select document from batches where ?1 is null or ordinal < (select ordinal from batches where id = ?1) "
        "order by ordinal desc limit ?2",
        (after, limit),
    )
    return [msgspec.msgpack.decode(row[0], type=Batch) for row in rows]


def active_batches(db: sqlite3.Connection, model: str | None = None) -> Iterator[Batch]:
    """Batches that have not ended, of one model or of all."""
    rows = db.execute("select document from batches where active and (?1 is null or model = ?1)", (model,)).fetchall()
    return (msgspec.msgpack.decode(row[0], type=Batch) for row in rows)


def created_since(db: sqlite3.Connection, moment: float) -> int:
    """How many batches were created after a virtual moment."""
    return db.execute("select count(*) from batches where created_at > ?", (moment,)).fetchone()[0]


def is_read(db: sqlite3.Connection, file_id: str) -> bool:
    """Whether a batch that has not ended reads this file."""
    row = db.execute("select 1 from batches where active and input_file_id = ?", (file_id,)).fetchone()
    return row is not None


def count_attempt(db: sqlite3.Connection, key: tuple[str, str, str]) -> int:
    """Counts one attempt of (model, body hash, custom id); returns the attempts so far, this one included."""
    return db.execute(
        "insert into requests values (?, ?, ?, 1, 0) on conflict do update "
        "set attempts = attempts + 1 returning attempts",
        key,
    ).fetchone()[0]


def mark_answered(db: sqlite3.Connection, key: tuple[str, str, str]) -> None:
    """Counts one answer given."""
    db.execute("update requests set answered = answered + 1 where (model, sha256, custom_id) = (?, ?, ?)", key)


def requests_counted(db: sqlite3.Connection, at_least: int) -> list[dict[str, Any]]:
    """Requests answered at least so often, most often first."""
    rows = db.execute(
        "select model, sha256, custom_id, attempts, answered from requests where answered >= ? "
        "order by answered desc, custom_id",
        (at_least,),
    )
    names = ("model", "sha256", "custom_id", "attempts", "answered")
    return [dict(zip(names, row, strict=True)) for row in rows]


def request_totals(db: sqlite3.Connection) -> dict[str, int]:
    """Distinct requests, their attempts, and how many answers were given (and would be billed)."""
    row = db.execute("select count(*), coalesce(sum(attempts), 0), coalesce(sum(answered), 0) from requests").fetchone()
    return dict(zip(("distinct", "attempts", "answered"), row, strict=True))
