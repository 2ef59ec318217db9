"""The Vertex provider over its simulator: every line is answered once, whatever becomes of rows, jobs and calls."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from batchway.core.errors import ConfigError, Fault, ProviderError
from batchway.core.states import Outcome
from batchway.core.usage import line_usage
from batchway.providers.protocol import Account
from batchway.providers.vertex.provider import LIMITS, Options, from_environment
from tests.conformance.vertex_simulated import (
    EMBEDDINGS,
    RESPONSES,
    Running,
    Start,
    Work,
    body_of,
    chat,
    serving,
    sim,
    start,
)

__all__ = ["sim", "start"]


def test_every_line_is_answered_once_and_joined_though_rows_come_shuffled_and_sharded(start: Start) -> None:
    sim = start(shards=3)
    work = Work([chat(f"question {n}") for n in range(250)])

    async def use(account: Account) -> None:
        look, found = await work.done(account, sim)
        assert look.outcome is Outcome.SUCCEEDED
        assert (look.counts.completed, look.counts.failed) == (250, 0)
        assert set(found) == {line.request.custom_id for line in work.lines}
        assert all(answer.ok for answer in found.values())
        assert len({body_of(answer)["choices"][0]["message"]["content"] for answer in found.values()}) > 200
        usage = line_usage(found["id 1 ö"].line)
        assert usage.input_tokens > 0
        assert usage.output_tokens > usage.reasoning_tokens > 0
        assert await work.answers(account, look) == found, "the same again"

    sim.with_account(use)
    outputs = [name for name in sim.objects(f"staging/{work.job.token}/out/") if name.endswith(".jsonl")]
    assert len(outputs) == 3


def test_rows_whose_echo_lost_its_labels_are_matched_by_their_requests(start: Start, caplog: Any) -> None:
    sim = start(echo="bare")
    bodies = [chat(f"question {n}", temperature=1, top_p=0.7, n=1) for n in range(50)]
    work = Work([*bodies, bodies[0], chat("schema", response_format={"type": "json_object"})])

    async def use(account: Account) -> None:
        _, found = await work.done(account, sim)
        assert set(found) == {line.request.custom_id for line in work.lines}

    sim.with_account(use)
    assert "matched by their requests" in caplog.text


def test_refused_lines_are_never_sent_and_answered_with_their_number(sim: Running) -> None:
    work = Work([chat("fine"), chat("odd", logit_bias={"50256": -100}), chat("fine too")])

    async def use(account: Account) -> None:
        look, found = await work.done(account, sim)
        refused = body_of(found["id 2 ö"])
        assert refused["status"] == 400
        assert refused["error"]["param"] == "logit_bias"
        assert refused["error"]["type"] == "invalid_request_error"
        assert refused["error"]["message"].endswith("(line 2)")
        assert found["id 1 ö"].ok
        assert found["id 3 ö"].ok
        assert look.counts.completed == 2

    sim.with_account(use)
    sent = sim.content(f"staging/{work.job.token}/input.jsonl")
    assert [row["request"]["labels"]["batchway_line"] for row in sent] == ["1", "3"]


def test_a_job_whose_every_line_is_refused_submits_nothing(sim: Running) -> None:
    work = Work([chat("odd", logit_bias={"1": 1})] * 3)

    async def use(account: Account) -> None:
        look, found = await work.done(account, sim)
        assert work.job.remote_id == f"nothing-sent:{work.job.token}"
        assert look.outcome is Outcome.SUCCEEDED
        assert [body_of(answer)["status"] for answer in found.values()] == [400] * 3
        await account.native.cancel(work.job)
        await account.native.clean(work.job, look)

    sim.with_account(use)
    assert sim.jobs() == []
    assert sim.objects() == []


def test_failed_rows_become_error_lines_with_a_sensible_status(sim: Running) -> None:
    words = {"429": 429, "400": 400, "403": 403, "500": 500, "503": 503, "plain": 500}
    work = Work(
        [chat(word, metadata={"simulate": word}) for word in words] + [chat("b", metadata={"simulate": "block"})]
    )

    async def use(account: Account) -> None:
        look, found = await work.done(account, sim)
        answers = [body_of(found[line.request.custom_id]) for line in work.lines]
        assert [answer["status"] for answer in answers[:-1]] == list(words.values())
        assert answers[0]["error"]["code"] == "resource_exhausted"
        assert answers[0]["error"]["type"] == "rate_limit_error"
        assert answers[5]["error"]["message"] == "Simulated: a failure without a code"
        assert answers[-1]["choices"][0]["finish_reason"] == "content_filter"
        assert look.counts.failed == 6

    sim.with_account(use)


def test_claude_rows_are_joined_by_custom_id(sim: Running) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    work = Work(
        [chat("hi"), chat("call", tools=[tool], tool_choice="required"), chat("no", user="simulate-429")],
        model="claude-sonnet-4-5@20250929",
    )

    async def use(account: Account) -> None:
        _, found = await work.done(account, sim)
        assert body_of(found["id 1 ö"])["choices"][0]["message"]["content"]
        assert body_of(found["id 2 ö"])["choices"][0]["finish_reason"] == "tool_calls"
        assert body_of(found["id 3 ö"])["status"] == 429

    sim.with_account(use)
    (job,) = sim.jobs()
    assert job["model"] == "publishers/anthropic/models/claude-sonnet-4-5@20250929"
    first = sim.content(f"staging/{work.job.token}/input.jsonl")[0]
    assert first["custom_id"] == "1"
    assert first["request"]["anthropic_version"] == "vertex-2023-10-16"
    assert not {"model", "stream"} & set(first["request"])


@pytest.mark.parametrize("model", ["gemini-embedding-001", "text-embedding-005"])
def test_an_embeddings_line_with_several_inputs_comes_back_as_one(start: Start, model: str) -> None:
    sim = start(shards=2)
    bodies = [{"model": "m", "input": [f"{n} {i}" for i in range(n)], "dimensions": 8} for n in range(1, 40)]
    work = Work([*bodies, {"model": "m", "input": "alone", "encoding_format": "base64"}], model, EMBEDDINGS)
    alone = Work([{"model": "m", "input": text, "dimensions": 8} for text in bodies[30]["input"]], model, EMBEDDINGS)

    async def use(account: Account) -> None:
        _, found = await work.done(account, sim)
        _, single = await alone.done(account, sim)
        assert len(found) == 40
        joined = body_of(found["id 31 ö"])
        assert [each["index"] for each in joined["data"]] == list(range(31))
        expected = [body_of(single[f"id {n} ö"])["data"][0]["embedding"] for n in range(1, 32)]
        assert [each["embedding"] for each in joined["data"]] == expected
        assert isinstance(body_of(found["id 40 ö"])["data"][0]["embedding"], str)
        assert line_usage(found["id 31 ö"].line).input_tokens == sum(
            line_usage(answer.line).input_tokens for answer in single.values()
        )

    sim.with_account(use)


def test_a_failed_input_fails_its_embeddings_line_once(sim: Running) -> None:
    work = Work(
        [{"model": "m", "input": ["a", "", "", "b"]}, {"model": "m", "input": "c"}], "gemini-embedding-001", EMBEDDINGS
    )

    async def use(account: Account) -> None:
        await work.submit(account)
        await asyncio.to_thread(sim.advance, 5_000)
        look = await account.native.look(work.job)
        found = [each async for window in account.native.answers(work.job, look, work.source) for each in window]
        assert {answer.custom_id: answer.ok for answer in found} == {"id 1 ö": False, "id 2 ö": True}

    sim.with_account(use)


def test_responses_go_over_the_bridge(sim: Running) -> None:
    work = Work([{"model": "m", "input": "hi", "instructions": "be short"}], "gemini-2.5-pro", RESPONSES)

    async def use(account: Account) -> None:
        _, found = await work.done(account, sim)
        answer = body_of(found["id 1 ö"])
        assert answer["object"] == "response"
        assert answer["output"]

    sim.with_account(use)


def test_an_expired_and_a_cancelled_job_keep_what_was_answered(sim: Running) -> None:
    sim.faults("expire=1")
    expired, cancelled = (Work([chat(f"{n}") for n in range(100)]) for _ in range(2))

    async def use(account: Account) -> None:
        look, found = await expired.done(account, sim, 90_000)
        assert look.outcome is Outcome.EXPIRED
        assert 0 < len(found) == look.counts.completed < 100
        await asyncio.to_thread(sim.faults, "stall=1")
        await cancelled.submit(account)
        await asyncio.to_thread(sim.advance, 3_000)
        assert (await account.native.look(cancelled.job)).outcome is None
        await account.native.cancel(cancelled.job)
        await account.native.cancel(cancelled.job)
        assert (await account.native.look(cancelled.job)).status == "JOB_STATE_CANCELLING"
        await asyncio.to_thread(sim.advance, 200)
        look = await account.native.look(cancelled.job)
        assert look.outcome is Outcome.CANCELLED
        assert 0 < len(await cancelled.answers(account, look)) < 100
        await account.native.cancel(cancelled.job)

    sim.with_account(use)


@pytest.mark.parametrize(
    ("settings", "faults", "outcome", "code"),
    [({"max_rows": 2}, "", Outcome.REJECTED, "invalid_argument"), ({}, "fail_batch=1", Outcome.FAILED, "internal")],
)
def test_a_failed_job_says_why(start: Start, settings: Any, faults: str, outcome: Outcome, code: str) -> None:
    sim = start(**settings)
    sim.faults(faults)
    work = Work([chat("a"), chat("b"), chat("c")])

    async def use(account: Account) -> None:
        look, found = await work.done(account, sim)
        assert (look.outcome, look.code) == (outcome, code)
        assert look.message
        assert found == {}

    sim.with_account(use)


@pytest.mark.parametrize("lie", ["500", "reset"])
def test_a_lied_about_submit_is_lost_and_found_again(sim: Running, lie: str) -> None:
    work = Work([chat("a")])

    async def use(account: Account) -> None:
        assert await account.native.find(work.job) is None
        await asyncio.to_thread(sim.faults, f"accept_then_{lie}=1")
        with pytest.raises(ProviderError) as lost:
            await work.submit(account)
        assert lost.value.fault is Fault.LOST
        found = await account.native.find(work.job)
        assert found == sim.jobs()[0]["name"]
        other = msgspec.structs.replace(work.job, token="bw" + "0" * 32)
        assert await account.native.find(other) is None

    sim.with_account(use)


def test_errors_of_the_provider_are_provider_errors(start: Start) -> None:
    sim = start(access_token="sim", models=("gemini-2.5-flash",))
    work = Work([chat("a")])
    absent = msgspec.structs.replace(work.job, remote_id="projects/p/locations/us-central1/batchPredictionJobs/1")

    async def failing(account: Account) -> None:
        with pytest.raises(ProviderError) as missing:
            await account.native.look(absent)
        assert missing.value.status == 404
        await account.native.clean(absent, await _nothing(account))
        unknown = Work([chat("a")], model="gemini-9-none")
        with pytest.raises(ProviderError) as rejected:
            await unknown.submit(account)
        assert rejected.value.fault is Fault.REJECTED
        assert sim.objects(f"staging/{unknown.job.token}/") == []
        foreign = Work([chat("a")], model="publishers/meta/models/llama-4")
        with pytest.raises(ProviderError):
            await foreign.submit(account)

    async def denied(account: Account) -> None:
        with pytest.raises(ProviderError) as refused:
            await work.submit(account)
        assert refused.value.fault is Fault.DENIED

    async def throttled(account: Account) -> None:
        await asyncio.to_thread(sim.faults, "429=1")
        with pytest.raises(ProviderError) as refused:
            await account.native.find(work.job)
        assert refused.value.fault is Fault.THROTTLED

    sim.with_account(failing)
    sim.with_account(denied, access_token="wrong")
    sim.with_account(throttled)


async def _nothing(account: Account) -> Any:
    work = Work([chat("odd", logit_bias={"1": 1})])
    return await account.native.look(await work.submit(account))


def test_clean_removes_the_job_and_all_its_objects_and_can_be_repeated(sim: Running) -> None:
    work, other = Work([chat("a")]), Work([chat("b")])

    async def use(account: Account) -> None:
        await other.submit(account)
        look, _ = await work.done(account, sim)
        await account.native.clean(work.job, look)
        await account.native.clean(work.job, look)
        assert await account.native.find(work.job) is None

    sim.with_account(use)
    assert len(sim.jobs()) == 1
    assert sim.objects(f"staging/{work.job.token}/") == []
    assert sim.objects(f"staging/{other.job.token}/") != []


def test_a_large_input_goes_up_in_pieces_and_lost_pieces_are_sent_again(start: Start) -> None:
    sim = start()
    work = Work([chat("long " * 4_000) for _ in range(1_000)])

    async def use(account: Account) -> None:
        await asyncio.to_thread(sim.faults, "500=0.2")
        await work.submit(account)
        await asyncio.to_thread(sim.faults, "")

    sim.with_account(use)
    rows = sim.content(f"staging/{work.job.token}/input.jsonl")
    assert [row["request"]["labels"]["batchway_line"] for row in rows] == [str(n) for n in range(1, 1_001)]


def test_translated_lines_that_outgrow_a_job_are_rejected(sim: Running) -> None:
    work = Work([chat("a" * 500)] * 100)

    async def use(account: Account) -> None:
        with pytest.raises(ProviderError) as rejected:
            await work.submit(account)
        assert (rejected.value.fault, rejected.value.code) == (Fault.REJECTED, "job_too_large")

    sim.with_account(use, max_bytes=20_000)
    assert sim.jobs() == []


def test_the_job_carries_the_token_the_accounts_labels_and_its_rights(sim: Running) -> None:
    work = Work([chat("a")])

    async def use(account: Account) -> None:
        await work.submit(account)
        limits = account.native.limits("gemini-2.5-flash")
        assert limits.lines == LIMITS.lines
        assert EMBEDDINGS not in limits.endpoints
        assert account.native.limits("gemini-embedding-001").endpoints == {EMBEDDINGS}
        assert account.native.limits("publishers/meta/models/llama-4").endpoints == frozenset()
        assert account.native.limits("").endpoints == LIMITS.endpoints

    sim.with_account(use, labels={"team": "x"}, service_account="me@p.iam.gserviceaccount.com", kms_key="k")
    (job,) = sim.jobs()
    assert job["labels"] == {"team": "x", "batchway_token": work.job.token}
    assert work.job.token in job["displayName"]
    assert job["serviceAccount"] == "me@p.iam.gserviceaccount.com"
    assert job["encryptionSpec"] == {"kmsKeyName": "k"}


def test_state_outlives_the_simulator_with_its_folder(tmp_path: Any) -> None:
    work = Work([chat("a"), chat("b")])

    async def begin(account: Account) -> None:
        await work.submit(account)

    async def end(account: Account) -> None:
        assert await account.native.find(work.job) == work.job.remote_id
        await asyncio.to_thread(again.advance, 5_000)
        assert len(await work.answers(account, await account.native.look(work.job))) == 2

    with serving(state_dir=tmp_path) as before:
        before.with_account(begin)
    with serving(state_dir=tmp_path) as again:
        again.with_account(end)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"bucket": "not-a-bucket"}, "gs://"),
        ({"project": None}, "project is missing"),
        ({"labels": {"Team": "x"}}, "labels"),
        ({"credentials": "{}"}, "not both"),
        ({"access_token": None, "credentials": "/does/not/exist.json"}, "cannot be read"),
        ({"access_token": None, "credentials": "{broken"}, "neither JSON"),
        ({"access_token": None, "credentials": {"type": "service_account", "project_id": "p"}}, "service-account key"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_listens(sim: Running, entry: Any, told: str) -> None:
    async def use(account: Account) -> None:
        raise AssertionError(account)

    with pytest.raises(ConfigError, match=rf"providers\.vertex: .*{told}"):
        sim.with_account(use, **entry)


def test_the_environment_makes_an_entry_once_it_names_a_bucket() -> None:
    assert from_environment({"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_APPLICATION_CREDENTIALS": "k"}) is None
    found = from_environment({"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_STAGING_BUCKET": "my-bucket/x"})
    assert found == {"bucket": "gs://my-bucket/x", "project": "p"}
    assert msgspec.convert(found, Options).location == "global"
