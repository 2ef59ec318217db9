"""Batches made without an upload, of inline requests or of an old batch's lines: once for each Idempotency-Key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.journeys.serving import Answer
from tests.journeys.trips import CHAT, Running, jsonl, line, names

GOOD = {"endpoint": CHAT, "completion_window": "24h"}
AT_ONCE = 20


def together(ask: Callable[[], Answer]) -> set[str]:
    """The ids that many clients get who ask at once."""
    start = threading.Barrier(AT_ONCE)

    def one(_: int) -> str:
        start.wait()
        answer = ask()
        assert answer.status == 200, answer.body
        return answer.json["id"]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return set(pool.map(one, range(AT_ONCE)))


def stored_files(world: Running) -> int:
    return world.rows("select count(*) as n from files")[0]["n"]


def test_inline_requests_are_a_batch_without_an_upload(world):
    requests = [line(number, ["fast", "lively"][number % 2]) for number in range(6)]
    made = world.ask("POST", "/v1/batches", {**GOOD, "requests": requests, "metadata": {"how": "inline"}})
    assert made.status == 200, made.body
    batch = world.wait(made.json["id"])
    assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
    assert world.lines(batch["input_file_id"]) == requests
    assert names(world.files_of(batch)[0]) == list(range(6))
    faulty = world.ask("POST", "/v1/batches", {**GOOD, "requests": [line(0), line(0), {"custom_id": "x"}]})
    failed = world.wait(faulty.json["id"])
    assert [(fault["line"], fault["code"]) for fault in failed["errors"]["data"]] == [
        (2, "duplicate_custom_id"), (3, "missing_required_parameter"),
    ]  # fmt: skip


def test_wrong_inline_requests_are_named_and_leave_no_file(world):
    before = stored_files(world)
    for change, param in [
        ({"requests": []}, "requests"),
        ({"requests": {}}, "requests"),
        ({"requests": ["x"]}, "requests[0]"),
        ({"requests": [line(0)], "input_file_id": "file-x"}, "requests"),
        ({"requests": [line(0)], "metadata": {"a": 1}}, "metadata.a"),
        ({"requests": [line(0)], "endpoint": "/x"}, "endpoint"),
    ]:
        refused = world.ask("POST", "/v1/batches", {**GOOD, **change})
        assert (refused.status, refused.error["param"]) == (400, param), change
    assert stored_files(world) == before


def test_inline_requests_sent_twenty_times_with_one_key_are_one_batch_and_one_file(world):
    before = stored_files(world)
    wanted = {**GOOD, "requests": [line(number) for number in range(50)]}
    (batch_id,) = together(lambda: world.ask("POST", "/v1/batches", wanted, Idempotency_Key="inline-twenty"))
    assert stored_files(world) == before + 1
    other = {**wanted, "requests": [line(0)]}
    assert world.ask("POST", "/v1/batches", other, Idempotency_Key="inline-twenty").status == 422
    assert stored_files(world) == before + 1
    assert world.wait(batch_id)["request_counts"]["completed"] == 50


def test_a_retry_asked_twenty_times_with_one_key_is_one_batch_and_one_file(world):
    old = world.run(jsonl(line(number, simulate="400") for number in range(3)))["id"]
    before = stored_files(world)
    made = together(lambda: world.ask("POST", f"/v1/batches/{old}/retry", Idempotency_Key=f"retry-{old}"))
    assert len(made) == 1
    assert stored_files(world) == before + 1
    rows = world.rows("select id from batches where json_extract(extra, '$.retry_of') = :old", old=old)
    assert {row["id"] for row in rows} == made
    world.wait(*made)
