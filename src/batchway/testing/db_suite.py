"""What every database must do: subclass `DatabaseSuite` and provide a fixture `database_url`, empty for each test.

The tests need pytest and pytest-asyncio (mode "auto"), and run the statements for real. They ask for what the pipeline
rests upon: whole transactions, one winner of those who meet, exact values, and rows that cannot be impossible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import IntegrityError

from batchway.core.errors import NotFound
from batchway.core.events import EventType
from batchway.core.jobs import Counts
from batchway.core.states import BatchState, JobState
from batchway.db import batches, jobs, leases, segments
from batchway.db.engine import Database
from batchway.db.outbox import About, of_subject, tell
from batchway.db.schema import batches as batches_table
from batchway.db.schema import jobs as jobs_table
from batchway.db.transitions import create_batch, create_jobs, move_batch, move_job

NOW = 1_790_000_000.25
BIG = (1 << 62) + 1  # as an amount in pico-dollars: 4.6 million dollars


def batch(batch_id: str = "batch_1", **changes: Any) -> dict[str, Any]:
    """Values of a new batch."""
    values = {
        "id": batch_id,
        "project": "p",
        "key_id": "k",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "window_seconds": 86400,
        "expires_at": NOW + 86400,
    }
    return values | changes


def job(number: int, **changes: Any) -> dict[str, Any]:
    """Values of a new job of `batch_1`."""
    values = {
        "id": f"job_{number}",
        "batch_id": "batch_1",
        "ordinal": number,
        "token": f"token_{number}",
        "account": "a",
        "model": "m",
        "lane": "native",
        "models": ["m"],
        "endpoint": "/v1/chat/completions",
        "file_key": "files/f",
        "span_start": 0,
        "span_end": 1,
        "first_line": 1,
        "lines": 1,
        "bytes": 1,
        "window_seconds": 86400,
        "deadline": NOW,
    }
    return values | changes


class DatabaseSuite:
    """Committed or never happened; of those who meet one succeeds; what was stored comes back as it was."""

    @pytest.fixture
    def database(self, database_url: str) -> Iterator[Database]:
        opened = Database(database_url)
        opened.write_now(create_batch, NOW, batch())
        yield opened
        opened.close()

    async def test_what_was_stored_comes_back_as_it_was(self, database: Database) -> None:
        metadata = {"ü 漢": 'quote " and \\ and \x01', "empty": ""}
        await database.write(
            create_batch, NOW, batch("batch_2", metadata=metadata, extra={"deep": [1, None, 2.5, True]})
        )
        await database.write(batches.note, "batch_2", {"amount": BIG, "usage": {"input_tokens": BIG}})
        row = await database.read(batches.get, "batch_2")
        assert (row["metadata"], row["extra"]) == (metadata, {"deep": [1, None, 2.5, True]})
        assert (row["amount"], row["usage"], row["created_at"]) == (BIG, {"input_tokens": BIG}, NOW)
        assert (row["expiring"], row["model"], row["errors"]) == (False, None, None)

    async def test_a_transaction_that_fails_never_happened(self, database: Database) -> None:
        def fail(tx: Connection) -> None:
            create_batch(tx, NOW, batch("batch_2"))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await database.write(fail)
        with pytest.raises(NotFound):
            await database.read(batches.get, "batch_2")
        assert await database.read(of_subject, "batch_2") == []

    async def test_a_reader_sees_no_half_of_a_transaction(self, database: Database) -> None:
        def two(tx: Connection, number: int) -> None:
            create_batch(tx, NOW, batch(f"batch_a{number}"))
            create_batch(tx, NOW, batch(f"batch_b{number}"))

        def count(tx: Connection) -> int:
            return tx.execute(select(func.count()).select_from(batches_table)).scalar_one()

        async def look() -> set[int]:
            return {await database.read(count) % 2 for _ in range(30)}

        odd, *_ = await asyncio.gather(look(), *(database.write(two, number) for number in range(10)))
        assert odd == {1}  # the one from the start, and pairs

    async def test_of_many_who_make_the_same_step_one_succeeds(self, database: Database) -> None:
        step = (BatchState.VALIDATING, BatchState.IN_PROGRESS, NOW)
        made = await asyncio.gather(*(database.write(move_batch, "batch_1", *step) for _ in range(12)))
        assert sorted(made) == [False] * 11 + [True]
        events = await database.read(of_subject, "batch_1")
        assert [event.type for event in events] == [EventType.BATCH_CREATED, EventType.BATCH_IN_PROGRESS]

    async def test_who_holds_a_row_is_waited_for(self, database: Database) -> None:
        def add(tx: Connection) -> None:
            row = batches.get(tx, "batch_1", hold=True)
            batches.note(tx, "batch_1", {"total": row["total"] + 1})

        await asyncio.gather(*(database.write(add) for _ in range(20)))
        assert (await database.read(batches.get, "batch_1"))["total"] == 20

    async def test_a_due_look_is_claimed_by_one(self, database: Database) -> None:
        await database.write(create_jobs, NOW, [job(number) for number in range(40)])
        for number in range(40):
            await database.write(move_job, f"job_{number}", JobState.PLANNED, JobState.SUBMITTING, NOW)
            running = (JobState.SUBMITTING, JobState.RUNNING, NOW, {"remote_id": "r"})
            await database.write(move_job, f"job_{number}", *running)
        claimed = await asyncio.gather(*(database.write(jobs.claim_polls, NOW, 60.0, 15) for _ in range(6)))
        ids = [row["id"] for rows in claimed for row in rows]
        assert len(ids) == len(set(ids))
        rest = await database.write(jobs.claim_polls, NOW, 60.0, 100)
        assert len(ids) + len(rest) == 40
        assert len(await database.write(jobs.claim_polls, NOW + 60, 60.0, 100)) == 40

    async def test_a_report_counts_upwards_and_only_while_the_job_runs(self, database: Database) -> None:
        await database.write(create_jobs, NOW, [job(1)])
        await database.write(jobs.report, "job_1", Counts(5, 5), {})
        await database.write(move_job, "job_1", JobState.PLANNED, JobState.SUBMITTING, NOW)
        await database.write(move_job, "job_1", JobState.SUBMITTING, JobState.RUNNING, NOW, {"remote_id": "r"})
        for counts in (Counts(3, 1), Counts(2, 2), Counts(0, 0)):
            await database.write(jobs.report, "job_1", counts, {"remote_status": "going"})
        row = await database.read(jobs.get, "job_1")
        assert (row["completed"], row["failed"], row["remote_status"]) == (3, 2, "going")

    async def test_segments_of_many_writers_are_numbered_without_a_gap(self, database: Database) -> None:
        def segment(number: int) -> segments.NewSegment:
            return segments.NewSegment(
                batch_id="batch_1",
                job_id="job_1",
                chunk_id=f"chunk_{number}",
                storage_key=f"segments/{number}",
                bytes=1,
                counts=Counts(number, 1),
                numbers=segments.pack([number, (1 << 32) - 1]),
            )

        await asyncio.gather(*(database.write(segments.append, segment(number)) for number in range(10)))
        rows = await database.read(segments.after, "batch_1", 0, 100)
        assert [row["seq"] for row in rows] == list(range(1, 11))
        assert await database.read(segments.counts, "job_1") == Counts(45, 10)
        assert await database.read(segments.answered, "chunk_7") == {7, (1 << 32) - 1}

    async def test_a_lease_has_one_holder_until_it_runs_out(self, database: Database) -> None:
        taken = await asyncio.gather(*(database.write(leases.take, "lead", f"h{n}", NOW, 10.0) for n in range(6)))
        assert sum(taken) == 1
        holder = f"h{taken.index(True)}"
        assert await database.write(leases.take, "lead", holder, NOW + 5, 10.0)
        assert not await database.write(leases.take, "lead", "another", NOW + 14, 10.0)
        assert await database.write(leases.take, "lead", "another", NOW + 15, 10.0)
        assert await database.read(leases.living, "le", NOW + 20) == 1
        assert await database.read(leases.living, "l_", NOW + 20) == 0

    async def test_events_keep_the_order_in_which_they_were_told(self, database: Database) -> None:
        for number in range(20):
            told = (EventType.JOB_ENDED, About("batch_1", "p", "key_1"), NOW, {"n": number})
            await database.write(tell, *told)
        events = await database.read(of_subject, "batch_1")
        assert [event.data.get("n") for event in events[1:]] == list(range(20))
        assert len({event.id for event in events}) == 21

    @pytest.mark.parametrize(
        ("table", "values"),
        [
            (batches_table, {"status": "unheard_of"}),
            (batches_table, {"status": "completed"}),
            (batches_table, {"status": "failed"}),
            (batches_table, {"project": None}),
            (jobs_table, {"status": "running"}),
            (jobs_table, {"status": "ended"}),
            (jobs_table, {"outcome": "unheard_of"}),
            (jobs_table, {"status": "accounted", "outcome": "succeeded"}),
        ],
    )
    async def test_an_impossible_row_is_refused(self, database: Database, table: Any, values: dict[str, Any]) -> None:
        await database.write(create_jobs, NOW, [job(1)])
        with pytest.raises(IntegrityError):
            await database.write(lambda tx: tx.execute(update(table).values(values)))

    @pytest.mark.parametrize("changes", [{"token": "token_1"}, {"ordinal": 1}, {"id": "job_1"}, {"batch_id": "none"}])
    async def test_a_key_is_unique_and_a_reference_leads_somewhere(
        self, database: Database, changes: dict[str, Any]
    ) -> None:
        await database.write(create_jobs, NOW, [job(1)])
        with pytest.raises(IntegrityError):
            await database.write(create_jobs, NOW, [job(2, **changes)])
        assert len(await database.read(jobs.of_batch, "batch_1")) == 1

    async def test_opening_again_finds_everything(self, database: Database, database_url: str) -> None:
        again = Database(database_url)
        try:
            assert (await again.read(batches.get, "batch_1"))["project"] == "p"
        finally:
            again.close()
