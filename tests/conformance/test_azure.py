"""The Azure provider beyond the shipped suite: surfaces and forms, deployments, quotas, and who it says it is."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batchway.billing.prices import Prices
from batchway.core.errors import ConfigError, Fault, ProviderError
from batchway.core.states import Outcome
from batchway.core.usage import line_usage
from batchway.providers.azure import provider as azure
from batchway.providers.azure.native import serving
from batchway.providers.protocol import Tools
from batchway.providers.registry import open_accounts
from batchway.providers.shared import file_jobs
from batchway.providers.shared.file_shapes import Remote, answer_of
from batchway.wire.lines import output_line
from tests.conformance.azure_simulated import (
    CHAT,
    GA,
    KEY,
    OLD_CHAT,
    PREVIEW,
    Running,
    Start,
    Trial,
    line,
    opened,
    sim,
    start,
    tools,
)

__all__ = ["sim", "start", "tools"]

MODEL = "gpt-4o-mini-batch"


# Surfaces and forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("version", [None, "preview", GA, PREVIEW])
async def test_every_surface_runs_a_job_in_its_old_and_its_new_form(
    start: Start, tools: Tools, version: str | None, old: bool
) -> None:
    sim = start(old_shapes=old)
    trial = Trial(opened(tools, sim, api_version=version), [line(n, model="mine/x") for n in range(20)], model=MODEL)
    await trial.submit()
    assert await trial.native.find(trial.job) == trial.job.remote_id
    look = await trial.look()
    assert (look.outcome, look.endpoint) == (None, CHAT)
    assert look.created_at is not None
    assert abs(look.created_at - time.time()) < 3_600
    dated = version in (GA, PREVIEW)
    sent = b"".join([chunk async for chunk in trial.native.fetch_input(look)])
    for raw in sent.splitlines():
        found = json.loads(raw)
        assert (found["url"], found["body"]["model"]) == (OLD_CHAT if dated else CHAT, MODEL)
    sim.advance(2_000)
    look = await trial.look()
    assert (look.outcome, look.status, look.counts.completed) == (Outcome.SUCCEEDED, "completed", 20)
    found = await trial.answers(look)
    assert sorted(found) == sorted(f"line-{n}" for n in range(20))
    again = await trial.answers(look)
    for name, answer in found.items():
        parsed = output_line.decode(answer.line)  # strict: with an id, though Azure sends none
        assert answer.ok
        assert parsed.ok
        assert parsed.id == output_line.decode(again[name].line).id
    assert len({output_line.decode(answer.line).id for answer in found.values()}) == 20
    await trial.native.clean(trial.job, look)
    assert sim.files() == []


async def test_a_filtered_prompt_is_an_error_line_with_azures_words(sim: Running, tools: Tools) -> None:
    trial = Trial(opened(tools, sim), [line(1), line(2, simulate="content_filter")], model=MODEL)
    await trial.submit()
    sim.advance(2_000)
    found = await trial.answers(await trial.look())
    assert (found["line-1"].ok, found["line-2"].ok) == (True, False)
    response = output_line.decode(found["line-2"].line).response
    assert response is not None
    assert json.loads(bytes(response.body))["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"


def test_times_are_read_as_numbers_and_as_iso() -> None:
    moment = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
    for text in ("2026-11-22T15:00:00Z", "2026-11-22T15:00:00+00:00", "2026-11-22T15:00:00"):
        assert Remote(id="b", created_at=text).created == moment.timestamp()
    assert Remote(id="b", created_at=5).created == 5
    assert Remote(id="b", created_at="soon").created is None


async def test_a_job_outlives_its_window_until_it_is_cancelled(sim: Running, tools: Tools) -> None:
    trial = Trial(opened(tools, sim), [line(1), line(2, simulate="expire")], model=MODEL)
    await trial.submit()
    sim.advance(200_000)
    assert (await trial.look()).outcome is None
    await trial.native.cancel(trial.job)
    sim.advance(1_000)
    look = await trial.look()
    assert look.outcome is Outcome.CANCELLED
    assert list(await trial.answers(look)) == ["line-1"]


async def test_it_waits_until_its_file_is_processed_and_never_longer_than_it_may(start: Start, tools: Tools) -> None:
    sim = start(process_seconds=0.3)
    trial = Trial(opened(tools, sim), [line(1)], model=MODEL)
    assert await trial.submit()
    sim = start(process_seconds=10_000.0)
    trial = Trial(opened(tools, sim), [line(1)], model=MODEL)
    trial.native._dealer = _impatient(trial.native._dealer)
    with pytest.raises(ProviderError) as early:
        await trial.submit()
    assert early.value.retryable
    assert sim.files() == []


def _impatient(dealer: Any) -> Any:
    return type(dealer)(**{**dealer.__dict__, "processing": 0.1})


async def test_uploads_expire_where_the_version_knows_it(sim: Running, tools: Tools) -> None:
    for version, kept in ((None, True), (PREVIEW, True), (GA, False)):
        await Trial(opened(tools, sim, api_version=version), [line(1)], model=MODEL).submit()
        newest = sim.raw("/openai/v1/files")["data"][0]
        assert (newest["expires_at"] - newest["created_at"] == 14 * 86_400) is kept


async def test_a_job_is_found_behind_many_newer_ones(
    sim: Running, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_jobs, "PAGE", 2)
    account = opened(tools, sim)
    trials = [Trial(account, [line(1)], model=MODEL, token=f"token{number}") for number in range(6)]
    for each in trials:
        await each.submit()
    for each in trials:
        assert await each.native.find(each.job) == each.job.remote_id


# Deployments and quotas -----------------------------------------------------------------------------------------------


async def test_a_full_quota_is_a_reason_to_wait_and_leaves_no_file(start: Start, tools: Tools) -> None:
    sim = start(enqueued_token_limit=10, fail_fast=True)
    trial = Trial(opened(tools, sim), [line(n) for n in range(5)], model=MODEL)
    with pytest.raises(ProviderError) as full:
        await trial.submit()
    assert (full.value.fault, full.value.code) == (Fault.THROTTLED, "token_limit_exceeded")
    assert sim.files() == []
    assert await trial.native.find(trial.job) is None


async def test_a_quota_found_full_later_refuses_the_job_with_its_code(start: Start, tools: Tools) -> None:
    sim = start(enqueued_token_limit=10)
    trial = Trial(opened(tools, sim), [line(n) for n in range(5)], model=MODEL)
    await trial.submit()
    sim.advance(1_000)
    look = await trial.look()
    assert (look.outcome, look.code) == (Outcome.REJECTED, "token_limit_exceeded")
    assert MODEL in (look.message or "")


async def test_deployments_of_one_model_share_its_jobs_and_stand_in_for_each_other(start: Start, tools: Tools) -> None:
    sim = start(enqueued_token_limit=600, fail_fast=True)
    three = {name: {"base_model": "gpt-4o-mini"} for name in ("one", "two", "three")}
    account = opened(tools, sim, deployments=three)
    for number in range(3):  # each deployment has room for one of these
        lines = [line(n, model="gpt-4o-mini") for n in range(10)]
        await Trial(account, lines, model="gpt-4o-mini", token=f"token{number}").submit()
        sim.advance(100)
    models = {each["model"] for each in sim.raw("/_sim/batches")["data"]}
    assert models == {"one", "two", "three"}
    with pytest.raises(ProviderError) as full:
        await Trial(account, [line(n) for n in range(10)], model="gpt-4o-mini", token="token9").submit()
    assert full.value.fault is Fault.THROTTLED


async def test_a_lost_creation_is_tried_nowhere_else(sim: Running, tools: Tools) -> None:
    account = opened(tools, sim, deployments={name: {"base_model": "m"} for name in ("one", "two")})
    sim.faults("accept_then_500=1")
    trial = Trial(account, [line(1)], model="m")
    with pytest.raises(ProviderError) as lost:
        await trial.submit()
    assert lost.value.fault is Fault.LOST
    assert len(sim.raw("/_sim/batches")["data"]) == 1
    assert await trial.native.find(trial.job) is not None


def test_jobs_are_spread_by_their_token_and_a_named_deployment_is_obeyed() -> None:
    table = {"a": "m", "b": "m", "c": "n"}
    firsts = [serving(table, "m", f"t{number}")[0] for number in range(200)]
    assert set(firsts) == {"a", "b"}
    assert 60 < firsts.count("a") < 140
    assert sorted(serving(table, "m", "t")) == ["a", "b"]
    assert serving(table, "m", "t") == serving(table, "m", "t")
    assert (serving(table, "a", "t"), serving(table, "unlisted", "t")) == (["a"], ["unlisted"])


def test_prices_are_known_by_the_base_model(sim: Running, tools: Tools) -> None:
    deployments = {
        "cheap": {"base_model": "gpt-4o-mini"},
        "european": {"base_model": "eu/gpt-4.1-mini"},
        "gpt-4.1": None,
    }
    account = opened(tools, sim, deployments=deployments)
    prices = Prices()
    figures = {
        name: prices.price("azure", account.priced_as(name), "native", 2e9) for name in (*deployments, "gpt-4o-mini")
    }
    assert all(figures.values())
    assert figures["cheap"] == figures["gpt-4o-mini"]
    assert figures["european"] != prices.price("azure", "gpt-4.1-mini", "native", 2e9)
    assert prices.price("azure", "cheap", "native", 2e9) is None
    assert account.models == ("cheap", "european", "gpt-4.1")
    assert account.known("gpt-4o-mini")
    assert not account.known("gpt-5")


def test_a_data_zone_has_its_own_price_or_none_at_all(sim: Running, tools: Tools) -> None:
    mini = {"base_model": "gpt-4.1-mini"}
    nano = {"base_model": "gpt-4.1-nano", "data_zone": "us"}
    zones = {"eu": mini | {"data_zone": "eu"}, "apac": mini | {"data_zone": "apac"}}
    account = opened(tools, sim, deployments={**zones, "nano": nano})
    prices = Prices()
    eu, apac, anywhere = (prices.price("azure", account.priced_as(name), "native", 2e9) for name in ("eu", "apac", "x"))
    assert eu is not None
    assert eu == prices.price("azure", "eu/gpt-4.1-mini", "native", 2e9)
    assert (apac, anywhere) == (None, None)
    assert account.priced_as("gpt-4.1-nano") == "us/gpt-4.1-nano", "all its deployments are in one zone"
    assert prices.price("azure", account.priced_as("gpt-4.1-mini"), "native", 2e9) is None, "they are in several"


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"api_key": "k"}, "either 'endpoint'"),
        ({"endpoint": "https://r", "base_url": "https://r", "api_key": "k"}, "either 'endpoint'"),
        ({"endpoint": "https://r"}, "no credentials"),
        ({"endpoint": "https://r", "tenant_id": "t", "client_id": "c"}, "client_secret is missing"),
        ({"endpoint": "https://r", "api_key": "k", "deployments": {"d": {"base": "m"}}}, "base"),
        ({"endpoint": "https://r", "api_key": "k", "api_version": GA, "executed": True}, "executed"),
        ({"endpoint": "https://r", "api_key": "k", "api_version": GA, "storage": {"container_url": "u"}}, "storage"),
        ({"endpoint": "https://r", "api_key": "k", "storage": {"container_url": "https://u/c"}}, "no credentials"),
        ({"endpoint": "https://r", "api_key": "k", "identity": "none"}, "identity"),
        ({"base_url": "https://r/openai/v1", "api_key": "k", "api_version": GA}, "v1 surface"),
    ],
)
def test_settings_that_do_not_fit_together_say_so(tools: Tools, entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=r"providers\.azure: ") as refused:
        open_accounts({"azure": entry}, tools)
    assert told in str(refused.value)


def test_azures_own_variables_make_an_entry() -> None:
    assert azure.from_environment({"AZURE_OPENAI_API_KEY": "k"}) is None
    env = {"AZURE_OPENAI_ENDPOINT": "https://r", "AZURE_OPENAI_API_KEY": KEY, "OPENAI_API_VERSION": GA}
    assert azure.from_environment(env) == {"endpoint": "https://r", "api_key": KEY, "api_version": GA}
    client = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}
    entry = azure.from_environment({"AZURE_OPENAI_ENDPOINT": "https://r", **client})
    assert entry == {"endpoint": "https://r", "tenant_id": "t", "client_id": "c", "client_secret": "s"}
    federated = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "/f"}
    entry = azure.from_environment({"AZURE_OPENAI_ENDPOINT": "https://r", **federated})
    assert entry is not None
    assert entry["identity"] == "workload"


def test_limits_are_azures_and_can_be_lowered(tools: Tools) -> None:
    def limits(**options: Any) -> Any:
        (account,) = open_accounts({"azure": {"endpoint": "https://r", "api_key": "k", **options}}, tools)
        assert account.native is not None
        return account.native.limits("any")

    plain = limits()
    assert (plain.lines, plain.bytes, plain.windows) == (100_000, 200_000_000, (86_400, 86_400))
    assert plain.endpoints == {"/v1/chat/completions", "/v1/responses"}
    blobs = limits(storage={"container_url": "https://a.blob.core.windows.net/c", "account_key": "a2V5"})
    assert blobs.bytes == 1_000_000_000
    assert limits(max_lines=10, endpoints=["/v1/embeddings"]).endpoints == {"/v1/embeddings"}


def test_single_requests_are_offered_only_when_asked_for(tools: Tools) -> None:
    def endpoint(**options: Any) -> Any:
        entry = {"endpoint": "https://r/", "api_key": "k", **options}
        return open_accounts({"azure": entry}, tools)[0].endpoint

    assert endpoint() is None
    found = endpoint(executed=True)
    assert (found.base_url, found.headers) == ("https://r/openai/v1", {"api-key": "k"})


# Samples --------------------------------------------------------------------------------------------------------------

SAMPLES = Path(azure.__file__).parent / "samples"


def test_lines_in_azures_form_become_lines_in_openais() -> None:
    answer = answer_of((SAMPLES / "output.jsonl").read_bytes().strip(), "token0")
    assert (answer.custom_id, answer.ok) == ("task-0", True)
    usage = line_usage(answer.line)
    assert (usage.input_tokens, usage.output_tokens) == (12, 9)
    filtered = answer_of((SAMPLES / "filtered.jsonl").read_bytes().strip(), "token0")
    assert (filtered.custom_id, filtered.ok) == ("task-1", False)
    assert b"ResponsibleAIPolicyViolation" in filtered.line
    with pytest.raises(ProviderError):
        answer_of(b'{"no": "answer"}', "token0")


@pytest.mark.parametrize(
    ("name", "outcome", "completed", "results", "endpoint"),
    [
        ("batch", Outcome.SUCCEEDED, 2, ("file-1e6f0e5b", "file-2c7d"), CHAT),
        ("batch_old", None, 0, (), CHAT),
        (
            "batch_blobs",
            Outcome.SUCCEEDED,
            2,
            tuple(
                f"https://acct.blob.core.windows.net/batches/b632a805/{word}.jsonl" for word in ("results", "errors")
            ),
            CHAT,
        ),
        ("batch_failed", Outcome.REJECTED, 0, (), None),
    ],
)
async def test_objects_in_every_form_become_the_same_look(
    tools: Tools, name: str, outcome: Outcome | None, completed: int, results: tuple[str, ...], endpoint: str | None
) -> None:
    body = (SAMPLES / f"{name}.json").read_bytes()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        storage = {"container_url": "https://acct.blob.core.windows.net/batches", "account_key": "a2V5"}
        entry = {"base_url": f"http://127.0.0.1:{port}", "api_key": "k", "storage": storage}
        (account,) = open_accounts({"azure": entry}, tools)
        look = await Trial(account, [line(1)], model=MODEL).look()
    assert (look.outcome, look.counts.completed, look.results) == (outcome, completed, results)
    assert look.endpoint == endpoint
    assert look.created_at
    assert (look.code == "token_limit_exceeded") is (name == "batch_failed")
