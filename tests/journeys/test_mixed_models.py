"""One batch to its owner: many models, several providers, more lines than one provider's job takes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from urllib.parse import quote

import openai

from tests.journeys.trips import CHAT, Running, chat, jsonl, line, names

ALIAS = "a-name-much-longer-than-the-model-it-stands-for"
GOOD = {"endpoint": CHAT, "completion_window": "24h"}


def accounts(batch: dict) -> Counter[tuple[str, str, str]]:
    """(provider, model there, lane) of each job."""
    return Counter((job["provider"], job["model"], job["lane"]) for job in batch["batchway"]["jobs"])


def test_three_models_on_three_providers_are_one_batch_in_input_order(world):
    models = ["fast", ALIAS, "lively", "openai/gpt-4.1-mini", "gpt-4.1-nano"]
    batch = world.run(jsonl(line(number, models[number % 5]) for number in range(60)))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert accounts(batch) == Counter(
        [
            ("openai", "gpt-4o-mini", "native"),
            ("second", "gpt-4.1-mini", "native"),
            ("live", "gpt-4.1-nano", "executed"),
            ("openai", "gpt-4.1-mini", "native"),
        ]
    )
    output, errors = world.files_of(batch)
    assert errors == []
    assert names(output) == list(range(60))
    answered = [one["response"]["body"]["model"].split("-20")[0] for one in output]  # results name the dated model
    assert answered[:5] == ["gpt-4o-mini", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4.1-mini", "gpt-4.1-nano"]
    assert batch["usage"]["total_tokens"] == sum(one["response"]["body"]["usage"]["total_tokens"] for one in output)
    ledger = world.rows("select * from ledger where batch_id = :id", id=batch["id"])
    assert len(ledger) == 4
    assert sum(entry["lines"] for entry in ledger) == 60
    # A price nobody knows (a server of one's own) is said to be unknown, never 0.
    assert (batch["batchway"]["amount_usd"], batch["batchway"]["amount_status"]) == (None, "unknown")


def test_an_amount_is_the_sum_over_all_providers(world):
    batch = world.run(jsonl(line(number, ["fast", ALIAS][number % 2]) for number in range(20)))
    assert world.violations(batch["id"]) == []
    entries = world.rows("select amount from ledger where batch_id = :id", id=batch["id"])
    assert len(entries) == 2
    assert batch["batchway"]["amount_status"] == "final"
    assert Decimal(batch["batchway"]["amount_usd"]) * 10**12 == sum(entry["amount"] for entry in entries) > 0


def test_a_batch_larger_than_a_providers_jobs_is_split_and_comes_back_in_order(world):
    words = {0: "400", 511: "400", 512: "400", 1299: "400"}
    content = jsonl(line(number, simulate=words.get(number)) for number in range(1300))
    batch = world.run(content)
    assert [job["request_counts"]["total"] for job in batch["batchway"]["jobs"]] == [512, 512, 276]
    assert batch["request_counts"] == {"total": 1300, "completed": 1296, "failed": 4}
    output, errors = world.files_of(batch)
    assert names(errors) == sorted(words)
    assert names(output) == [number for number in range(1300) if number not in words]
    assert world.violations(batch["id"]) == []
    remote = {job["remote_id"] for job in batch["batchway"]["jobs"]}
    assert len(remote) == 3
    assert remote <= {one["id"] for one in world.simulators["openai"].batches()}


def test_interleaved_models_with_different_limits_come_back_in_order(world):
    content = jsonl(line(number, ["second/gpt-4o-mini", "fast", "lively"][number * 7 % 3]) for number in range(450))
    batch = world.run(content)
    jobs = accounts(batch)
    assert jobs["second", "gpt-4o-mini", "native"] == 2, "100 lines at most"
    assert jobs["openai", "gpt-4o-mini", "native"] == 1
    assert names(world.files_of(batch)[0]) == list(range(450))
    assert world.violations(batch["id"]) == []


def test_the_model_of_the_batch_overrides_that_of_the_lines_and_spares_them_one(world):
    requests = [line(0, "fast"), line(1, "nobody-serves-this"), line(2)]
    del requests[2]["body"]["model"]
    batch = world.run(jsonl(requests), model="openai/gpt-4.1-mini")
    assert batch["status"] == "completed", batch["errors"]
    assert batch["model"] == "openai/gpt-4.1-mini"
    output, _ = world.files_of(batch)
    assert {one["response"]["body"]["model"].split("-20")[0] for one in output} == {"gpt-4.1-mini"}
    assert names(output) == [0, 1, 2]
    assert len(batch["batchway"]["jobs"]) == 1
    other = world.run(jsonl(requests))
    assert [(fault["line"], fault["code"]) for fault in other["errors"]["data"]] == [
        (2, "model_not_found"), (3, "invalid_request"),
    ]  # fmt: skip


def test_a_forced_provider_takes_every_line_however_it_is_said(world):
    wanted = {**GOOD, "input_file_id": world.upload(jsonl([line(0, "gpt-4o-mini"), line(1, "openai/gpt-4o-mini")]))}
    made = [
        world.ask("POST", "/second/v1/batches", wanted),
        world.ask("POST", "/v1/batches?provider=second", wanted),
        world.ask("POST", "/v1/batches", wanted, custom_llm_provider="second"),
        world.ask("POST", "/v1/batches", {**wanted, "custom_llm_provider": "second"}),
    ]
    assert [answer.status for answer in made] == [200] * 4
    for batch in [world.wait(answer.json["id"]) for answer in made]:
        assert accounts(batch) == {("second", "gpt-4o-mini", "native"): 1}
        assert batch["request_counts"]["completed"] == 2
    listed = [one["id"] for one in world.ask("GET", "/v1/batches?provider=second&limit=100").json["data"]]
    assert {answer.json["id"] for answer in made} <= set(listed)


def test_a_window_that_the_native_lane_cannot_keep_is_executed(world):
    made = world.ask("POST", "/v1/batches", {**GOOD, "completion_window": "2h", "input_file_id": world.upload(chat(4))})
    batch = world.wait(made.json["id"])
    assert accounts(batch) == {("openai", "gpt-4o-mini", "executed"): 1}
    assert batch["expires_at"] == batch["created_at"] + 7200
    assert batch["request_counts"]["completed"] == 4
    assert batch["batchway"]["amount_status"] == "final", "executed lines of a known provider have its live price"


def taken(world: Running, batch_id: str, after: str = "", status: str = "") -> list[dict]:
    query = "&".join(part for part in (after and f"after={after}", status and f"status={status}") if part)
    answer = world.ask("GET", f"/v1/batches/{batch_id}/results?{query}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(text) for text in answer.body.splitlines()]


def test_results_while_running_give_each_line_once_and_go_on_from_a_cursor(world):
    words = {5: "400", 700: "400"}
    content = jsonl(
        line(number, "lively" if number % 3 else "fast", simulate=words.get(number)) for number in range(1500)
    )
    batch_id = world.create(world.upload(content))["id"]
    seen: list[dict] = []
    looks = 0

    def look(batch: dict) -> bool:
        nonlocal looks
        fresh = taken(world, batch_id, seen[-1]["cursor"] if seen else "")
        looks += bool(fresh)
        if len(fresh) > 10 and looks % 2:
            fresh = fresh[: len(fresh) // 2]  # a client that broke off in the middle of a segment
        seen.extend(fresh)
        return batch["status"] == "completed"

    batch = world.until(batch_id, look)
    while fresh := taken(world, batch_id, seen[-1]["cursor"]):
        seen.extend(fresh)
    assert looks > 2, "results came while it ran"
    assert Counter(names(seen)) == Counter(range(1500))
    assert sorted(names(taken(world, batch_id))) == list(range(1500))
    assert names(sorted(taken(world, batch_id, status="failed"), key=lambda one: int(one["custom_id"][4:]))) == [5, 700]
    assert len(taken(world, batch_id, status="completed")) == 1498
    assert taken(world, batch_id, seen[-1]["cursor"]) == []
    output, errors = world.files_of(batch)
    stored = {one["custom_id"]: one for one in output + errors}
    assert all(stored[one["custom_id"]].items() <= one.items() for one in seen)
    for cursor in ("x", "1", "1.2.3", "-1.0", "٣.٣"):
        answer = world.ask("GET", "/v1/batches/" + batch_id + "/results?after=" + quote(cursor))
        assert (answer.status, answer.error["param"]) == (400, "after")


def test_a_retry_holds_the_failed_and_expired_lines_only(world, still):
    words = {1: "400", 3: "expire", 4: "expire"}
    content = jsonl(line(number, "frozen", simulate=words.get(number)) for number in range(6))
    old_id = world.create(world.upload(content), metadata={"job": "r"})["id"]
    assert world.ask("POST", f"/v1/batches/{old_id}/retry").status == 409, "it has not ended"
    world.until(old_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    still.advance(90_000)
    assert world.wait(old_id)["status"] == "expired"
    made = world.ask("POST", f"/v1/batches/{old_id}/retry")
    assert made.status == 200
    new = made.json
    assert (new["metadata"], new["endpoint"]) == ({"job": "r"}, CHAT)
    assert new["id"] != old_id
    lines = world.lines(new["input_file_id"])
    assert [one["custom_id"] for one in lines] == ["row-1", "row-3", "row-4"]
    assert lines == [json.loads(text) for number, text in enumerate(content.splitlines()) if number in words]
    assert world.ask("GET", f"/v1/files/{new['input_file_id']}").json["filename"] == "retry_in.jsonl"
    assert world.ask("POST", f"/v1/batches/{new['id']}/cancel").status == 200
    world.until(new["id"], lambda batch: advanced(still) and batch["status"] == "cancelled")


def advanced(still) -> bool:
    still.advance(5)
    return True


def test_a_retry_of_rejected_and_cancelled_lines_runs_them(world):
    second = world.simulators["second"]
    second.faults("fail_batch=1")
    try:
        old = world.run(jsonl(line(number, ["second/gpt-4o-mini", "fast"][number % 2]) for number in range(6)))
    finally:
        second.faults("")
    assert old["request_counts"] == {"total": 6, "completed": 3, "failed": 3}
    new = world.wait(world.ask("POST", f"/v1/batches/{old['id']}/retry").json["id"])
    assert new["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert names(world.files_of(new)[0]) == [0, 2, 4]
    assert world.violations(new["id"]) == []


def test_a_batch_made_elsewhere_is_adopted_once_and_ends_like_any_other(world):
    simulator = world.simulators["openai"]
    words = {2: "400"}
    content = jsonl(line(number, "gpt-4o-mini", simulate=words.get(number)) for number in range(9))
    with openai.OpenAI(base_url=simulator.base_url, api_key="sim") as direct:
        file = direct.files.create(file=("theirs.jsonl", content), purpose="batch")
        remote = direct.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
    wanted = {"provider": "openai", "remote_id": remote, "metadata": {"from": "elsewhere"}}
    made = world.ask("POST", "/v1/batches/adopt", wanted)
    assert made.status == 200, made.body
    assert (made.json["status"], made.json["metadata"]) == ("in_progress", {"from": "elsewhere"})
    batch = world.wait(made.json["id"])
    assert batch["request_counts"] == {"total": 9, "completed": 8, "failed": 1}
    output, errors = world.files_of(batch)
    assert (names(output), names(errors)) == ([0, 1, 3, 4, 5, 6, 7, 8], [2])
    assert [job["remote_id"] for job in batch["batchway"]["jobs"]] == [remote]
    assert world.violations(batch["id"]) == []
    assert batch["batchway"]["amount_usd"] not in (None, "0")
    assert world.ask("POST", "/v1/batches/adopt", wanted).json["id"] == batch["id"]
    stranger = world.served.key("adopters")
    assert world.ask("POST", "/v1/batches/adopt", wanted, key=stranger).status == 403
    unknown = world.ask("POST", "/v1/batches/adopt", {**wanted, "remote_id": "batch_none"})
    assert (unknown.status, unknown.error["param"]) == (404, "remote_id")
    for provider in ("nobody", "local"):
        refused = world.ask("POST", "/v1/batches/adopt", {**wanted, "provider": provider})
        assert (refused.status, refused.error["param"]) == (400, "provider")
    for path in ("", "..", "../files", "a/../../files", "a?b", "a#b", "a%2e", "a b", "/a", "a/", "a\n", "."):
        elsewhere = world.ask("POST", "/v1/batches/adopt", {**wanted, "remote_id": path})
        assert (elsewhere.status, elsewhere.error["param"]) == (400, "remote_id"), path
    for path in (
        "projects/p/locations/l/batchPredictionJobs/1",
        "arn:aws:bedrock:us-east-1:1:model-invocation-job/x..y",
    ):
        assert world.ask("POST", "/v1/batches/adopt", {**wanted, "remote_id": path}).status == 404, path


def test_adopting_one_batch_many_times_at_once_makes_one(world):
    simulator = world.simulators["openai"]
    with openai.OpenAI(base_url=simulator.base_url, api_key="sim") as direct:
        file = direct.files.create(file=("theirs.jsonl", chat(3, "gpt-4o-mini")), purpose="batch")
        remote = direct.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
    start = threading.Barrier(8)

    def adopt(_: int) -> str:
        start.wait()
        answer = world.ask("POST", "/v1/batches/adopt", {"provider": "openai", "remote_id": remote})
        assert answer.status == 200, answer.body
        return answer.json["id"]

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(adopt, range(8)))
    assert len(made) == 1
    assert len(world.rows("select 1 from jobs where remote_id = :r", r=remote)) == 1


def test_an_estimate_spends_nothing_and_names_every_route(world):
    counts = "select (select count(*) from batches) b, (select count(*) from files where purpose = 'batch') f"
    before = world.rows(counts)
    content = jsonl(line(number, ["fast", ALIAS][number % 2], max_tokens=100) for number in range(10))
    requests = [json.loads(text) for text in content.splitlines()]
    inline = world.ask("POST", "/v1/batches/estimate", {"requests": requests})
    assert inline.status == 200, inline.body
    assert world.rows(counts) == before
    estimate = world.ask("POST", "/v1/batches/estimate", {"input_file_id": world.upload(content)}).json
    assert estimate["input_tokens"] == inline.json["input_tokens"]
    assert estimate["input_tokens_method"] == "counted"
    assert estimate["object"] == "batch.estimate"
    assert estimate["lines"] == 10
    assert {(one["provider"], one["model"], one["lane"], one["lines"]) for one in estimate["routes"]} == {
        ("openai", "gpt-4o-mini", "native", 5), ("second", "gpt-4.1-mini", "native", 5),
    }  # fmt: skip
    assert estimate["output_tokens"]["high"] == 1000
    low, likely, high = (Decimal(estimate["amount_usd"][name]) for name in ("low", "likely", "high"))
    assert 0 < low < likely <= high
    unknown = world.ask("POST", "/v1/batches/estimate", {"requests": [line(0, "lively")]}).json
    assert unknown["amount_usd"] is None
    assert unknown["reason"]
    missing = world.ask("POST", "/v1/batches/estimate", {"requests": [line(0, "fasst")]})
    assert (missing.status, missing.error["code"]) == (400, "model_not_found")
    assert "fast" in missing.error["message"]
    nothing = world.ask("POST", "/v1/batches/estimate", {})
    assert (nothing.status, nothing.error["code"]) == (400, "missing_required_parameter")


def test_every_endpoint_runs_through_both_lanes(world):
    text, vectors = ("openai/gpt-4.1-mini", "lively"), ("openai/text-embedding-3-small", "live/text-embedding-3-small")
    made = [
        (endpoint, world.create(world.upload(jsonl(line(number, model, endpoint) for number in range(6))), endpoint))
        for endpoint, models in {"/v1/embeddings": vectors, "/v1/completions": text, "/v1/responses": text}.items()
        for model in models
    ]
    for endpoint, batch in [(endpoint, world.wait(batch["id"])) for endpoint, batch in made]:
        assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}, batch
        assert names(world.files_of(batch)[0]) == list(range(6))
        assert batch["usage"]["input_tokens"] > 0
        assert (batch["usage"]["output_tokens"] > 0) == (endpoint != "/v1/embeddings")


def test_models_that_lines_may_name_are_listed(world):
    listed = {model["id"] for model in world.ask("GET", "/v1/models").json["data"]}
    assert {"fast", "lively", "tiny", ALIAS} <= listed
