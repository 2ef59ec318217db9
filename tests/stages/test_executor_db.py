from __future__ import annotations

import threading
from collections import Counter

import pytest

from batchway.core.jobs import Counts
from batchway.core.states import JobState
from batchway.db import chunks, leases, segments, turns
from batchway.db.engine import Database
from batchway.db.segments import NewSegment
from batchway.db.transitions import create_batch, create_jobs, move_job
from batchway.executor.dispatcher import _choose
from tests.postgres import postgres  # noqa: F401 - a fixture


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'batchway.db'}"
    else:
        url = request.getfixturevalue("postgres").fresh()
    made = Database(url)
    yield made
    made.close()


def plan(db, job="job_1", *, count=3, account="local", deadline=100.0, priority=0, project="p"):
    batch = {
        "id": f"batch_of_{job}",
        "project": project,
        "key_id": "k",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "window_seconds": 86400,
        "expires_at": deadline,
    }
    row = {
        "id": job,
        "batch_id": batch["id"],
        "ordinal": 0,
        "token": f"token-{job}",
        "account": account,
        "model": "m",
        "lane": "executed",
        "models": ["m"],
        "endpoint": "/v1/chat/completions",
        "file_key": "files/f",
        "span_start": 0,
        "span_end": count * 10,
        "first_line": 1,
        "lines": count,
        "bytes": count * 10,
        "window_seconds": 86400,
        "deadline": deadline,
        "priority": priority,
    }
    pieces = [
        {
            "id": f"{job}.{at}",
            "job_id": job,
            "ordinal": at,
            "account": account,
            "deadline": deadline,
            "priority": priority,
            "span_start": at * 10,
            "span_end": at * 10 + 10,
            "first_line": at + 1,
            "lines": 1,
        }
        for at in range(count)
    ]
    db.write_now(create_batch, 1.0, batch)
    db.write_now(create_jobs, 1.0, [row])
    db.write_now(move_job, job, JobState.PLANNED, JobState.SUBMITTING, 1.0)
    return pieces


def planned(db, job="job_1", **what):
    assert db.write_now(chunks.add, job, plan(db, job, **what))


def segment(chunk, number):
    return NewSegment(
        batch_id=chunk.batch_id,
        job_id=chunk.job_id,
        chunk_id=chunk.id,
        storage_key=f"segments/{number}",
        bytes=1,
        counts=Counts(1, 0),
        numbers=segments.pack([number]),
    )


def test_chunks_are_planned_once(db):
    rows = plan(db)
    assert db.write_now(chunks.add, "job_1", rows)
    assert not db.write_now(chunks.add, "job_1", rows)
    assert db.write_now(chunks.progress, "job_1") == chunks.Progress(chunks=3, lines=3, open=3)


def chosen(db, *, slots=4, chunk_lines=2, now=50.0):
    return db.write_now(_choose, {"local": slots}, 1, now, chunk_lines)


def test_within_a_project_priority_is_first_and_then_whoever_has_least(db):
    planned(db, "job_1", deadline=5000.0)
    planned(db, "job_2", deadline=4000.0)
    planned(db, "job_3", deadline=5000.0, priority=5)
    planned(db, "job_4", account="other", deadline=1000.0)
    found = chosen(db)
    assert found == ["job_3.0", "job_3.1", "job_3.2", "job_2.0"]
    db.write_now(chunks.queued, found, 50.0)
    assert chosen(db, slots=8) == ["job_1.0", "job_2.1", "job_1.1", "job_2.2"]
    assert db.write_now(chunks.overdue, 51.0, 3) != []
    assert db.write_now(chunks.overdue, 50.0, 3) == []


def test_a_job_whose_deadline_is_near_goes_before_those_with_less_in_hand(db):
    planned(db, "job_1", count=5, deadline=9000.0)
    planned(db, "job_2", count=5, deadline=100.0)
    assert chosen(db) == ["job_2.0", "job_2.1", "job_2.2", "job_2.3"]


def test_a_small_batch_of_another_project_waits_for_nobody_however_full_the_engine_is(db):
    planned(db, "job_1", count=40)
    first = chosen(db)
    assert len(first) == 4
    db.write_now(chunks.queued, first, 50.0)
    assert chosen(db) == []
    planned(db, "job_2", count=2, project="q", deadline=9000.0)
    assert chosen(db) == ["job_2.0"]
    db.write_now(chunks.queued, ["job_2.0"], 50.0)
    assert chosen(db) == []


def test_projects_that_always_have_work_get_the_same(db):
    for project in ("p", "q", "r"):
        planned(db, f"job_{project}", count=40, project=project, deadline=9000.0)
    found = chosen(db, slots=12, chunk_lines=0)
    assert Counter(name.partition(".")[0] for name in found) == {"job_p": 4, "job_q": 4, "job_r": 4}


def test_only_the_owner_of_the_token_may_write(db):
    planned(db)
    zombie = db.write_now(chunks.begin, "job_1.0")
    owner = db.write_now(chunks.begin, "job_1.0")
    assert (zombie.token, owner.token) == (1, 2)
    assert owner.span.models == {"m"}
    assert not db.write_now(chunks.grow, zombie, 1, 5.0)
    assert db.write_now(chunks.grow, owner, 1, None)
    assert db.write_now(chunks.grow, owner, 0, 5.0)
    assert not db.write_now(chunks.grow, owner, 1, 6.0)
    assert db.write_now(chunks.begin, "job_1.0") is None
    assert db.write_now(chunks.progress, "job_1") == chunks.Progress(chunks=3, lines=3, answered=1, open=2)


def test_segments_are_numbered_in_commit_order_without_gaps(db):
    planned(db, count=8)
    held = [db.write_now(chunks.begin, f"job_1.{at}") for at in range(8)]

    def commit(tx, chunk, number):
        assert chunks.grow(tx, chunk, 1, None)
        segments.append(tx, segment(chunk, number))

    threads = [
        threading.Thread(target=lambda at=at, chunk=chunk: [db.write_now(commit, chunk, at * 10 + n) for n in range(5)])
        for at, chunk in enumerate(held)
    ]
    if db.is_sqlite:  # one writer: its connection serves one thread at a time
        for thread in threads:
            thread.run()
    else:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = db.write_now(segments.of_job, "job_1")
    assert [row["seq"] for row in rows] == list(range(1, 41))
    assert db.write_now(segments.counts, "job_1") == Counts(40, 0)
    assert db.write_now(segments.answered, "job_1.3") == frozenset(range(30, 35))
    assert [row["seq"] for row in db.write_now(segments.after, "batch_of_job_1", 38, 10)] == [39, 40]


def test_a_stop_ends_what_nobody_runs_and_asks_the_rest(db):
    planned(db)
    running = db.write_now(chunks.begin, "job_1.0")
    assert not db.write_now(chunks.stop, "job_1", 7.0)
    assert db.write_now(chunks.progress, "job_1").open == 1
    assert db.write_now(chunks.signals, ["job_1.0", "job_1.1"]) == {"job_1.0": (1, True)}
    assert db.write_now(chunks.grow, running, 0, 8.0)
    assert db.write_now(chunks.ended, "job_1")
    assert db.write_now(chunks.progress, "job_1").stopped


def test_a_stop_ends_a_job_that_never_began(db):
    planned(db)
    assert db.write_now(chunks.stop, "job_1", 7.0)
    assert not db.write_now(chunks.stop, "job_1", 8.0)  # it had ended
    assert db.write_now(chunks.begin, "job_1.0") is None


def test_a_chunk_that_failed_waits_and_is_stopped_at_once(db):
    planned(db, count=1)
    chunk = db.write_now(chunks.begin, "job_1.0")
    db.write_now(chunks.queued, [chunk.id], 5.0)
    db.write_now(chunks.postpone, chunk, 60.0)
    assert db.write_now(turns.next_chunks, "job_1", 59.0, 9) == []
    assert db.write_now(turns.next_chunks, "job_1", 60.0, 9) == [("job_1.0", 1)]
    assert chosen(db, now=59.0) == []
    assert chosen(db, now=60.0) == ["job_1.0"]
    assert db.write_now(chunks.begin, "job_1.0").attempts == 1
    db.write_now(chunks.postpone, db.write_now(chunks.begin, "job_1.0"), 60.0)
    assert db.write_now(chunks.stop, "job_1", 10.0)


def test_chunks_that_nobody_was_given_end_at_the_deadline(db):
    planned(db, "job_1", deadline=10.0)
    planned(db, "job_2", deadline=10.0)
    db.write_now(chunks.queued, ["job_2.0"], 5.0)
    assert db.write_now(chunks.close_expired, 9.0) == []
    assert db.write_now(chunks.close_expired, 10.0) == ["job_1"]
    assert db.write_now(chunks.progress, "job_2").open == 1


def test_forgetting_a_job_leaves_no_rows(db):
    planned(db)
    chunk = db.write_now(chunks.begin, "job_1.0")
    db.write_now(segments.append, segment(chunk, 1))
    db.write_now(segments.forget, "job_1")
    db.write_now(chunks.forget, "job_1")
    assert db.write_now(segments.of_job, "job_1") == []
    assert not db.write_now(chunks.exist, "job_1")


def test_a_lease_has_one_holder_until_it_runs_out(db):
    assert db.write_now(leases.take, "leader", "a", 0.0, 10.0)
    assert db.write_now(leases.take, "leader", "a", 5.0, 10.0)
    assert not db.write_now(leases.take, "leader", "b", 14.0, 10.0)
    assert db.write_now(leases.take, "leader", "b", 15.0, 10.0)
    assert db.write_now(leases.take, "member:c", "c", 15.0, 10.0)
    assert db.write_now(leases.take, "member:d", "d", 5.0, 10.0)
    assert db.write_now(leases.living, "member:", 15.5) == 1
    db.write_now(leases.give_back, "b")
    assert db.write_now(leases.take, "leader", "a", 16.0, 10.0)
    db.write_now(leases.forget_old, 16.0)
    assert db.write_now(leases.take, "member:d", "e", 16.0, 1.0)
