"""What the server keeps in the database: the master key, answers to repeats, uploads that nobody completed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from batchway.core.errors import KeyReused, NotFound
from batchway.core.principal import Sight
from batchway.db import idempotency, keys, uploads
from batchway.db.engine import Database
from batchway.db.idempotency import AlreadyAnswered
from batchway.server.auth import digest, ensure_master_key
from tests.postgres import postgres

__all__ = ["postgres"]

DAY = 86400.0


@dataclass(frozen=True)
class Wanted:
    master_key: str | None = None
    no_auth: bool = False


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gateway.db"
    return request.getfixturevalue("postgres").fresh()


@pytest.fixture
def db(url):
    made = Database(url)
    yield made
    made.close()


def test_the_first_start_makes_one_master_key_and_stores_its_hash_only(db):
    assert ensure_master_key(db, Wanted(master_key="sk-given")) is None
    assert ensure_master_key(db, Wanted(no_auth=True)) is None
    assert db.write_now(keys.master_hash) is None
    fresh = ensure_master_key(db, Wanted())
    assert fresh is not None
    assert fresh.startswith("sk-bw-")
    assert db.write_now(keys.master_hash) == digest(fresh)
    assert ensure_master_key(db, Wanted()) is None


def test_of_several_first_starts_one_shows_its_key(url):
    databases = [Database(url) for _ in range(4)]
    start = threading.Barrier(4)

    def begin(db: Database) -> str | None:
        start.wait()
        return ensure_master_key(db, Wanted())

    with ThreadPoolExecutor(4) as pool:
        shown = [key for key in pool.map(begin, databases) if key]
    assert [digest(key) for key in shown] == [databases[0].write_now(keys.master_hash)]
    for db in databases:
        db.close()


def test_an_answer_is_kept_for_a_day_and_is_its_callers_own(db):
    def remember(key_id: str, fingerprint: str, body: str, now: float) -> None:
        db.write_now(idempotency.remember, key_id, "k", fingerprint, body, now)

    def recall(key_id: str, fingerprint: str, now: float) -> str | None:
        return db.write_now(idempotency.recall, key_id, "k", fingerprint, now)

    remember("a", "f", "one", 1000.0)
    assert recall("a", "f", 1000.0 + DAY - 1) == "one"
    assert recall("b", "f", 1000.0) is None
    with pytest.raises(KeyReused):
        recall("a", "other", 1000.0)
    with pytest.raises(AlreadyAnswered) as again:
        remember("a", "f", "two", 1001.0)
    assert again.value.body == "one"
    with pytest.raises(KeyReused):
        remember("a", "other", "two", 1001.0)
    assert recall("a", "f", 1000.0 + DAY) is None
    remember("a", "other", "two", 1000.0 + DAY)
    assert recall("a", "other", 1000.0 + DAY) == "two"
    remember("b", "f", "three", 5000.0 + DAY)
    assert db.write_now(idempotency.forget_old, 1000.0 + 2 * DAY) == 1
    assert recall("b", "f", 1000.0 + 2 * DAY) == "three"


def test_an_upload_that_nobody_completed_expires_once_with_its_parts(db):
    texts = {"project": "p", "key_id": "k", "filename": "f", "purpose": "batch", "mime_type": "x/y"}
    row = {**texts, "bytes": 4, "created_at": 0.0}
    part = {"bytes": 4, "storage_key": "x", "created_at": 0.0}
    for upload_id, expires_at in (("upload_a", 100.0), ("upload_b", 200.0)):
        db.write_now(uploads.add, {**row, "id": upload_id, "expires_at": expires_at})
        assert db.write_now(uploads.add_part, {**part, "id": f"part_{upload_id}", "upload_id": upload_id})
    assert db.write_now(uploads.expire, 150.0, 10) == ["upload_a"]
    assert db.write_now(uploads.expire, 150.0, 10) == []
    assert db.write_now(uploads.get, "upload_a")["status"] == "expired"
    assert db.write_now(uploads.parts, "upload_a") == {}
    assert not db.write_now(uploads.add_part, {**part, "id": "part_late", "upload_id": "upload_a"})
    assert not db.write_now(uploads.end, "upload_a", "completed", "file-1")
    assert list(db.write_now(uploads.parts, "upload_b")) == ["part_upload_b"]
    with pytest.raises(NotFound):
        db.write_now(uploads.get, "upload_b", Sight("another project", "k"))
