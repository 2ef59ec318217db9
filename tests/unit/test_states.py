from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from batchway.core.events import CALL_TYPES, EventType
from batchway.core.states import (
    BATCH_STEPS,
    FINAL_BATCH_STATES,
    JOB_STEPS,
    LIVE_BATCH_STATES,
    BatchState,
    JobState,
    Outcome,
    step,
)
from batchway.db.engine import Database
from batchway.db.outbox import of_subject
from batchway.db.schema import batches, jobs
from batchway.db.transitions import create_batch, create_jobs, move_batch, move_job
from tests.stages.world import emptied

SOURCES = Path(__file__).resolve().parents[2] / "src" / "batchway"
NOW = 1_790_000_000.0
BATCH = {
    "id": "batch_1", "project": "p", "key_id": "k", "endpoint": "/v1/chat/completions", "input_file_id": "file-1",
    "completion_window": "24h", "window_seconds": 86400, "expires_at": NOW + 86400,
}  # fmt: skip
JOB = {
    "id": "job_1", "batch_id": "batch_1", "ordinal": 0, "token": "t", "account": "a", "model": "m", "lane": "native",
    "models": [], "endpoint": "/v1/chat/completions", "file_key": "f", "span_start": 0, "span_end": 1, "first_line": 1,
    "lines": 1, "bytes": 1, "window_seconds": 86400, "deadline": NOW,
}  # fmt: skip
# What a job must have to be in a state, whatever road led there.
NEEDS = {"running": {"remote_id": "r"}, "ended": {"outcome": "succeeded"}}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request, tmp_path):
    on_postgres = request.param == "postgresql"
    database = Database(emptied(request.getfixturevalue("postgres")) if on_postgres else f"sqlite:///{tmp_path}/db")
    database.write_now(create_batch, NOW, BATCH)
    database.write_now(create_jobs, NOW, [JOB])
    yield database
    database.close()


# The tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "states"), [(BATCH_STEPS, BatchState), (JOB_STEPS, JobState)])
def test_every_state_has_its_steps_and_only_to_states(table, states):
    assert set(table) == set(states)
    assert {new for after in table.values() for new in after} <= set(states)


@pytest.mark.parametrize(
    ("table", "first", "last"),
    [(BATCH_STEPS, BatchState.VALIDATING, FINAL_BATCH_STATES), (JOB_STEPS, JobState.PLANNED, {JobState.ACCOUNTED})],
)
def test_every_state_is_reached_and_leads_to_an_end(table, first, last):
    reached, waiting = {first}, [first]
    while waiting:
        for new in table[waiting.pop()] - reached:
            reached.add(new)
            waiting.append(new)
    assert reached == set(table)
    for state in table:
        ends, waiting = {state}, [state]
        while waiting:
            for new in table[waiting.pop()] - ends:
                ends.add(new)
                waiting.append(new)
        assert ends & set(last)
    assert {state for state, after in table.items() if not after} == set(last)


def test_live_and_final_share_nothing():
    assert set(BatchState) == FINAL_BATCH_STATES | LIVE_BATCH_STATES
    assert not FINAL_BATCH_STATES & LIVE_BATCH_STATES
    assert {"completed", "failed", "expired", "cancelled"} == FINAL_BATCH_STATES


def test_the_one_way_back_of_a_job_is_a_submit_that_never_was():
    order = list(JobState)
    back = {(old, new) for old, after in JOB_STEPS.items() for new in after if order.index(new) < order.index(old)}
    assert back == {(JobState.SUBMITTING, JobState.PLANNED)}


@pytest.mark.parametrize(("table", "states"), [(BATCH_STEPS, BatchState), (JOB_STEPS, JobState)])
def test_a_step_that_is_not_in_the_table_is_refused(table, states):
    for old in states:
        for new in states:
            if new in table[old]:
                assert step(table, old, new) is new
            else:
                with pytest.raises(ValueError, match="no step"):
                    step(table, old, new)


# The one writer -------------------------------------------------------------------------------------------------------


# The shipped suite tries to write impossible ones; deliveries have a status of their own, and only read batches.
ALLOWED = {SOURCES / "db" / "transitions.py", SOURCES / "testing" / "db_suite.py", SOURCES / "db" / "deliveries.py"}


def writes_status(tree: ast.AST) -> list[int]:
    """Lines that write a column `status` of the tables batches or jobs: in a dict, or as a keyword of `values`."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="values"), keywords=keywords):
                found += [word.lineno for word in keywords if word.arg == "status"]
            case _:
                pass
        if isinstance(node, ast.Dict):
            found += [key.lineno for key in node.keys if isinstance(key, ast.Constant) and key.value == "status"]
    return found


def imports_tables(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "batchway.db.schema"
        and {"batches", "jobs"} & {name.name for name in node.names}
        for node in ast.walk(tree)
    )


def test_only_transitions_write_a_status_of_a_batch_or_a_job():
    found = [
        f"{path.relative_to(SOURCES)}:{line}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path not in ALLOWED and imports_tables(tree := ast.parse(path.read_text()))
        for line in writes_status(tree)
    ]
    # jobs.py alone knows what values a caller may note beside the status, and takes them as they come.
    assert not found
    for noted in ("pipeline", "executor", "worker.py"):
        for path in [SOURCES / noted] if noted.endswith(".py") else sorted((SOURCES / noted).rglob("*.py")):
            assert not writes_status(ast.parse(path.read_text())), path


def test_the_search_finds_what_it_is_for():
    assert writes_status(ast.parse("update(jobs).values(status=1)"))
    assert writes_status(ast.parse("jobs.note(tx, i, {'status': 'ended'})"))
    assert not writes_status(ast.parse("select(jobs).where(jobs.c.status == 1)"))
    assert writes_status(ast.parse((SOURCES / "db" / "transitions.py").read_text()))


# The steps in the database --------------------------------------------------------------------------------------------


def walk(db, *steps) -> list[str]:
    """Moves the job from state to state; the events that this told."""
    states = [JobState.PLANNED, *steps]
    for old, new in itertools.pairwise(states):
        assert db.write_now(move_job, "job_1", old, new, NOW, NEEDS.get(new))
    return [event.type.value for event in db.write_now(of_subject, "batch_1")]


def test_each_step_that_matters_tells_exactly_one_event(db):
    told = walk(
        db, *(JobState(word) for word in "submitting planned submitting running ended collected accounted".split())
    )
    assert told == ["batch.created", "job.submitted", "job.ended", "job.accounted"]


def test_a_step_sets_its_time_and_clears_the_waiting(db):
    db.write_now(lambda tx: tx.execute(update(jobs).values(not_before=NOW + 99, attempts=7)))
    assert db.write_now(move_job, "job_1", JobState.PLANNED, JobState.SUBMITTING, NOW + 5)
    row = db.write_now(lambda tx: tx.execute(jobs.select()).mappings().one())
    assert (row["submitting_at"], row["not_before"], row["attempts"]) == (NOW + 5, 0, 0)


def test_whoever_comes_second_makes_no_step_and_tells_nothing(db):
    for wanted in (True, False):
        assert db.write_now(move_batch, "batch_1", BatchState.VALIDATING, BatchState.IN_PROGRESS, NOW) is wanted
    assert not db.write_now(move_job, "job_1", JobState.RUNNING, JobState.ENDED, NOW, {"outcome": "failed"})
    assert not db.write_now(move_job, "job_none", JobState.PLANNED, JobState.SUBMITTING, NOW)
    told = [event.type.value for event in db.write_now(of_subject, "batch_1")]
    assert told == ["batch.created", "batch.in_progress"]


def test_a_step_that_is_rolled_back_tells_nothing(db):
    def fail(tx):
        assert move_batch(tx, "batch_1", BatchState.VALIDATING, BatchState.FAILED, NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.write_now(fail)
    assert [event.type.value for event in db.write_now(of_subject, "batch_1")] == ["batch.created"]


def test_every_batch_road_tells_each_of_its_states(db):
    road = [BatchState(word) for word in "validating in_progress finalizing cancelling cancelled".split()]
    for old, new in itertools.pairwise(road):
        assert db.write_now(move_batch, "batch_1", old, new, NOW)
    events = db.write_now(of_subject, "batch_1")
    assert [event.type.value for event in events][1:] == [f"batch.{state}" for state in road[1:]]
    assert [event.data["status"] for event in events] == [state.value for state in road]


def test_every_state_has_its_event():
    words = {event.value for event in EventType}
    assert {f"batch.{state}" for state in BatchState if state is not BatchState.VALIDATING} <= words
    assert CALL_TYPES[EventType.BATCH_COMPLETED] == "batch_success"


# What the database itself refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"status": "unheard_of"},
        *({"status": state.value} for state in sorted(FINAL_BATCH_STATES)),  # each without its time
    ],
)
def test_an_impossible_batch_is_refused(db, values):
    with pytest.raises(IntegrityError):
        db.write_now(lambda tx: tx.execute(update(batches).values(values)))


@pytest.mark.parametrize(
    "values",
    [
        {"status": "unheard_of"},
        {"outcome": "unheard_of"},
        {"status": "running"},
        {"status": "ended"},
        {"status": "collected"},
        {"status": "accounted", "accounted_at": NOW},
        {"status": "accounted", "outcome": "succeeded"},
    ],
)
def test_an_impossible_job_is_refused(db, values):
    with pytest.raises(IntegrityError):
        db.write_now(lambda tx: tx.execute(update(jobs).values(values)))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "job_2", "ordinal": 1},  # the same token
        {"id": "job_2", "token": "u"},  # the same place in the batch
        {"token": "u", "ordinal": 1},  # the same id
        {"id": "job_2", "token": "u", "ordinal": 1, "batch_id": "batch_none"},
    ],
)
def test_a_job_that_is_there_already_or_belongs_nowhere_is_refused(db, changes):
    row = {**JOB, "status": "planned", "planned_at": NOW, **changes}
    with pytest.raises(IntegrityError):
        db.write_now(lambda tx: tx.execute(insert(jobs).values(row)))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_a_possible_one(db, outcome):
    db.write_now(lambda tx: tx.execute(update(jobs).values(status="ended", outcome=outcome)))
