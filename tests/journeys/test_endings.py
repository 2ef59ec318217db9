"""However a batch ends, each input line stands in exactly one file, in input order, and what was answered is paid."""

from __future__ import annotations

import pytest

from tests.journeys.trips import Running, chat, jsonl, line, names

TIMES = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")


def ended(world: Running, batch: dict, status: str, *times: str) -> tuple[list[dict], list[dict]]:
    """Its files, after checking what holds for every ending."""
    assert batch["status"] == status, batch
    assert world.violations(batch["id"]) == []
    told = world.events(batch["id"])
    assert told["batch.created"] == 1
    assert told["batch.completed"] == (status == "completed")
    assert {name for name in TIMES if batch[name]} == {*times, f"{status}_at"}
    moments = [batch["created_at"], *(batch[f"{name}"] for name in times), batch[f"{status}_at"]]
    assert moments == sorted(moments)
    output, errors = world.files_of(batch)
    assert names(output) == sorted(names(output))
    assert names(errors) == sorted(names(errors))
    counts = batch["request_counts"]
    assert counts["completed"] == len(output)
    assert counts["completed"] + counts["failed"] <= counts["total"] == len(output) + len(errors)
    assert batch["usage"]["total_tokens"] == sum(one["response"]["body"]["usage"]["total_tokens"] for one in output)
    call_types = world.rows(
        "select json_extract(data, '$.call_type') as call from outbox where subject = :s", s=batch["id"]
    )
    assert [row["call"] for row in call_types].count("acreate_batch") == 1
    assert [row["call"] for row in call_types].count("batch_success") == (status == "completed")
    return output, errors


def codes(errors: list[dict]) -> set[str]:
    return {one["error"]["code"] for one in errors if one["error"]}


@pytest.mark.parametrize("model", ["fast", "lively"])
def test_completed(world, model):
    batch = world.run(chat(30, model))
    output, errors = ended(world, batch, "completed", "in_progress_at", "finalizing_at")
    assert names(output) == list(range(30))
    assert (errors, batch["error_file_id"], batch["errors"]) == ([], None, None)
    file = world.ask("GET", f"/v1/files/{batch['output_file_id']}").json
    assert file["purpose"] == "batch_output"
    assert file["filename"].endswith(".jsonl")


@pytest.mark.parametrize("model", ["fast", "lively"])
def test_all_lines_failed_is_completed_without_an_output_file(world, model):
    batch = world.run(jsonl(line(number, model, simulate="400") for number in range(5)))
    output, errors = ended(world, batch, "completed", "in_progress_at", "finalizing_at")
    assert (output, batch["output_file_id"]) == ([], None)
    assert batch["request_counts"] == {"total": 5, "completed": 0, "failed": 5}
    assert {(one["response"]["status_code"], one["error"]) for one in errors} == {(400, None)}
    assert batch["usage"]["total_tokens"] == 0
    assert batch["batchway"]["amount_usd"] == "0"


@pytest.mark.parametrize("model", ["fast", "lively"])
def test_a_line_that_fails_takes_no_neighbour_along(world, model):
    words = {3: "400", 7: "422", 11: "403"}
    batch = world.run(jsonl(line(number, model, simulate=words.get(number)) for number in range(15)))
    output, errors = ended(world, batch, "completed", "in_progress_at", "finalizing_at")
    assert {name: one["response"]["status_code"] for name, one in zip(names(errors), errors, strict=True)} == {
        3: 400, 7: 422, 11: 403,
    }  # fmt: skip
    assert names(output) == [number for number in range(15) if number not in words]


def test_lines_that_the_provider_lost_doubled_or_left_without_a_status_are_mended(world):
    words = {1: "lost", 3: "twice", 5: "zero"}
    batch = world.run(jsonl(line(number, simulate=words.get(number)) for number in range(8)))
    output, errors = ended(world, batch, "completed", "in_progress_at", "finalizing_at")
    assert names(output) == [0, 2, 3, 4, 6, 7]
    assert names(errors) == [1, 5]
    assert codes(errors) == {"missing_answer"}


def test_cancelled_in_the_middle_keeps_and_bills_what_was_answered(world, still):
    batch_id = world.create(world.upload(chat(200, "frozen")))["id"]
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    still.advance(300)
    world.until(batch_id, lambda batch: batch["request_counts"]["completed"] > 0)
    asked = world.ask("POST", f"/v1/batches/{batch_id}/cancel")
    assert (asked.status, asked.json["status"]) == (200, "cancelling")
    assert world.ask("POST", f"/v1/batches/{batch_id}/cancel").status == 200
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"][0]["remote_status"] != "in_progress")
    still.advance(60)
    batch = world.wait(batch_id)
    output, errors = ended(world, batch, "cancelled", "in_progress_at", "cancelling_at")
    assert 0 < len(output) < 200
    assert codes(errors) == {"batch_cancelled"}
    assert {one["response"] for one in errors} == {None}
    assert batch["batchway"]["amount_usd"] != "0"
    again = world.ask("POST", f"/v1/batches/{batch_id}/cancel")
    assert (again.status, again.json["status"]) == (200, "cancelled")


def test_cancelled_in_the_middle_of_the_executed_lane(world):
    batch_id = world.create(world.upload(chat(2000, "lively")))["id"]
    world.until(batch_id, lambda batch: batch["request_counts"]["completed"] > 0)
    assert world.ask("POST", f"/v1/batches/{batch_id}/cancel").json["status"] == "cancelling"
    batch = world.wait(batch_id)
    output, errors = ended(world, batch, "cancelled", "in_progress_at", "cancelling_at")
    assert 0 < len(output) < 2000
    assert codes(errors) == {"batch_cancelled"}


def test_cancelled_while_validating_runs_nothing(world):
    file_id = world.upload(chat(2000, "frozen"))
    before = len(world.simulators["still"].batches())
    batch_id = world.create(file_id)["id"]
    assert world.ask("POST", f"/v1/batches/{batch_id}/cancel").json["status"] == "cancelling"
    batch = world.until(batch_id, lambda batch: batch["status"] in ("cancelled", "completed") or moved(world, batch_id))
    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 2000, "completed": 0, "failed": 0}
    output, errors = world.files_of(batch)
    assert output == []
    assert names(errors) == list(range(2000))
    assert codes(errors) == {"batch_cancelled"}
    assert world.violations(batch_id) == []
    running = [one for one in world.simulators["still"].batches()[before:] if one["status"] != "cancelled"]
    assert running == []


def moved(world: Running, batch_id: str) -> bool:
    """Lets the still clock go on when a job was submitted before the cancel reached it."""
    world.simulators["still"].advance(5)
    return False


def test_expired_at_the_provider_keeps_what_was_answered(world, still):
    words = {2: "expire", 5: "expire", 6: "400"}
    lines = jsonl(line(number, "frozen", simulate=words.get(number)) for number in range(8))
    batch_id = world.create(world.upload(lines))["id"]
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    still.advance(90_000)
    batch = world.wait(batch_id)
    output, errors = ended(world, batch, "expired", "in_progress_at", "finalizing_at")
    assert names(output) == [0, 1, 3, 4, 7]
    assert names(errors) == [2, 5, 6]
    assert [one["error"] and one["error"]["code"] for one in errors] == ["batch_expired", "batch_expired", None]
    assert batch["request_counts"] == {"total": 8, "completed": 5, "failed": 1}


def test_expired_by_our_own_clock_while_the_provider_stalls(world, still):
    batch_id = world.create(world.upload(chat(100, "frozen")))["id"]
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    still.advance(300)
    world.until(batch_id, lambda batch: batch["request_counts"]["completed"] > 0)
    world.rows("update batches set expires_at = created_at where id = :id", id=batch_id)
    world.until(
        batch_id, lambda _: world.rows("select 1 from jobs where batch_id = :id and cancel_at > 0", id=batch_id)
    )
    still.advance(60)
    batch = world.wait(batch_id)
    output, errors = ended(world, batch, "expired", "in_progress_at", "finalizing_at")
    assert 0 < len(output) < 100
    assert codes(errors) == {"batch_expired"}


def test_expired_in_the_executed_lane(world):
    batch_id = world.create(world.upload(chat(3000, "lively")))["id"]
    world.until(batch_id, lambda batch: batch["request_counts"]["completed"] > 0)
    world.rows("update batches set expires_at = created_at where id = :id", id=batch_id)
    batch = world.wait(batch_id)
    output, errors = ended(world, batch, "expired", "in_progress_at", "finalizing_at")
    assert 0 < len(output) < 3000
    assert codes(errors) == {"batch_expired"}


def test_a_job_that_the_provider_rejects_fails_its_lines_and_no_others(world):
    batch = world.wait(refused_job(world, "fail_batch=1"))
    output, errors = ended(world, batch, "completed", "in_progress_at", "finalizing_at")
    assert (names(output), names(errors)) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert codes(errors) == {"billing_hard_limit_reached"}
    assert batch["request_counts"] == {"total": 10, "completed": 5, "failed": 5}


def test_a_job_refused_for_too_many_waiting_tokens_is_sent_again_later(world):
    batch_id = refused_job(world, "token_limit=1")
    waiting = world.until(batch_id, lambda batch: any(job["status"] == "planned" for job in batch["batchway"]["jobs"]))
    assert waiting["request_counts"]["failed"] == 0
    world.rows("update jobs set not_before = 0 where batch_id = :id and status = 'planned'", id=batch_id)
    batch = world.wait(batch_id)
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 10, "completed": 10, "failed": 0})
    assert names(world.files_of(batch)[0]) == list(range(10))
    assert len(world.rows("select 1 from ledger where batch_id = :id", id=batch_id)) == 2
    assert world.open_holds() == []


def refused_job(world: Running, fault: str) -> str:
    """A batch of ten lines, every second of them in a job that its provider has refused whole."""
    second = world.simulators["second"]
    second.faults(fault)
    try:
        lines = jsonl(line(number, "second/gpt-4o-mini" if number % 2 else "fast") for number in range(10))
        batch_id = world.create(world.upload(lines))["id"]
        refused = "select 1 from jobs where batch_id = :id and outcome = 'rejected'"
        world.until(batch_id, lambda _: world.rows(refused, id=batch_id))
    finally:
        second.faults("")
    return batch_id


def test_failed_validation_spends_nothing(world):
    before = {name: len(simulator.batches()) for name, simulator in world.simulators.items()}
    bad = jsonl([line(0), {**line(1), "url": "/v1/embeddings"}, line(0), line(2)])
    batch = world.run(bad)
    assert batch["status"] == "failed"
    assert [(fault["line"], fault["code"]) for fault in batch["errors"]["data"]] == [
        (2, "invalid_url"), (3, "duplicate_custom_id"),
    ]  # fmt: skip
    assert batch["errors"]["object"] == "list"
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["output_file_id"], batch["error_file_id"], batch["in_progress_at"]) == (None, None, None)
    assert batch["failed_at"] >= batch["created_at"]
    told = world.events(batch["id"])
    assert (told["batch.created"], told["batch.failed"], told["batch.completed"]) == (1, 1, 0)
    assert world.rows("select 1 from holds where batch_id = :id", id=batch["id"]) == []
    assert before == {name: len(simulator.batches()) for name, simulator in world.simulators.items()}


def test_an_ended_batch_stays_as_it_is_and_is_billed_once_whoever_looks(world):
    batch = world.run(chat(3))
    seen = {str(world.batch(batch["id"])) for _ in range(5)}
    assert len(seen) == 1
    assert len(world.rows("select 1 from ledger where batch_id = :id", id=batch["id"])) == 1
    refused = world.ask("POST", f"/v1/batches/{batch['id']}/cancel")
    assert refused.status == 409
    assert refused.error == {
        "message": "Cannot cancel a batch with status 'completed'.", "type": "invalid_request_error",
        "param": None, "code": None,
    }  # fmt: skip


def test_output_files_go_when_the_client_said(world):
    file_id = world.upload(chat(2))
    soon = world.create(file_id, output_expires_after={"anchor": "created_at", "seconds": 7200})["id"]
    plain = world.create(file_id)["id"]
    for batch_id, seconds in [(soon, 7200), (plain, 30 * 86400)]:
        file = world.ask("GET", f"/v1/files/{world.wait(batch_id)['output_file_id']}").json
        assert file["expires_at"] - file["created_at"] == seconds
