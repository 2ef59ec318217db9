"""OpenTelemetry and the trace platforms, told over HTTP and read with the official package."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from batchway.core.events import Event, EventType
from batchway.integrations.protocol import ReceiverError
from batchway.testing.receiver_ground import ReceiverGround, Trouble, ends, event, records
from batchway.testing.receiver_suite import ReceiverSuite
from tests.conformance.otlp_read import items, parsed, plain
from tests.conformance.otlp_told import ENDS, KEY, PLATFORM_KEYS, life, no_variables, opened, peer, spans_of, tools
from tests.conformance.receiving import HttpPeer

__all__ = ["no_variables", "peer", "tools"]


class OtlpGround(ReceiverGround):
    patience = 10.0
    secrets = (KEY,)

    def __init__(self, tools, peer: HttpPeer, kind: str = "otlp", **options: Any) -> None:
        self.peer = peer
        self.open = lambda: opened(tools, peer, kind, headers={"authorization": KEY}, lines=True, **options)
        self.receiver = self.open()

    async def taken(self, wanted: int) -> list[str]:
        return [one["attributes"]["batchway.event.id"] for one in items(self.peer.asked, "logs")]

    async def lines_taken(self, wanted: int) -> list[tuple[str, int]]:
        spans = [one["attributes"] for one in items(self.peer.asked, "traces")]
        return [
            (one["batchway.job.id"], one["batchway.line.number"]) for one in spans if one["batchway.span"] == "line"
        ]

    async def disturb(self, how: Trouble) -> None:
        await self.peer.disturb(how)

    async def reopened(self):
        return self.open()


class TestOtlp(ReceiverSuite):
    @pytest.fixture(params=["http/protobuf", "http/json"])
    async def ground(self, request, tools, peer: HttpPeer):
        return OtlpGround(tools, peer, protocol=request.param, compression="gzip", content=True)


class TracesGround(OtlpGround):
    """A platform that takes traces only hears of ends."""

    def tells(self, event: Event) -> bool:
        return event.type in (*ENDS, "job.accounted")

    async def taken(self, wanted: int) -> list[str]:
        spans = [one["attributes"] for one in items(self.peer.asked, "traces")]
        times = {one["batchway.event.id"]: position for position, one in enumerate(spans) if "batchway.span" in one}
        return sorted(times, key=lambda name: times[name])


class TestTracePlatform(ReceiverSuite):
    @pytest.fixture
    async def ground(self, tools, peer: HttpPeer):
        return TracesGround(tools, peer, "langfuse", **PLATFORM_KEYS["langfuse"])


# Traces ---------------------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_trace_from_its_creation_to_its_end(tools, peer: HttpPeer) -> None:
    job, end = life()
    spans = await spans_of(opened(tools, peer), peer, job, end)
    root = spans["batch /v1/chat/completions"]
    assert set(spans) == {root["name"], "validate", "queue", "chat gpt-4o-mini", "collect", "account"}
    assert {span["traceId"] for span in spans.values()} == {root["traceId"]}
    assert "parentSpanId" not in root
    assert {span.get("parentSpanId") for name, span in spans.items() if name != root["name"]} == {root["spanId"]}
    assert int(root["endTimeUnixNano"]) - int(root["startTimeUnixNano"]) == pytest.approx(60e9, abs=1e9)
    assert [one["name"] for one in root["events"]] == ["batch.created", "batch.in_progress", "batch.completed"]


async def test_an_operation_says_what_the_genai_conventions_want(tools, peer: HttpPeer) -> None:
    job, _ = life(provider="azure")
    span = (await spans_of(opened(tools, peer), peer, job))["chat gpt-4o-mini"]
    wanted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "gen_ai.usage.cost": 0.000123,
        "batchway.amount_usd": "0.000123",
    }
    assert wanted.items() <= span["attributes"].items()
    assert span["kind"] == 3


async def test_tokens_and_amounts_stand_on_one_level_of_a_trace(tools, peer: HttpPeer) -> None:
    job, end = life()
    receiver = opened(tools, peer, lines=True)
    await receiver.tell_lines(job, records(job, [1, 2]))
    await receiver.tell([job, end])
    counted = [
        span["attributes"]["batchway.span"]
        for span in items(peer.asked, "traces")
        if {"gen_ai.usage.input_tokens", "gen_ai.usage.cost"} & span["attributes"].keys()
    ]
    assert counted == ["line", "line"]


async def test_a_repeat_makes_the_same_spans(tools, peer: HttpPeer) -> None:
    told = life()
    await opened(tools, peer).tell(told)
    await opened(tools, peer).tell(told)
    first, second = [asked.body for asked in peer.asked if asked.path.endswith("traces")]
    assert first == second


async def test_a_trace_is_linked_to_the_callers(tools, peer: HttpPeer) -> None:
    _, end = life(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    root = (await spans_of(opened(tools, peer), peer, end))["batch /v1/chat/completions"]
    (link,) = root["links"]
    assert (link["traceId"], link["spanId"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert root["traceId"] != link["traceId"]


@pytest.mark.parametrize(("flags", "joined"), [("01", True), ("00", False)])
async def test_a_trace_joins_the_callers_when_asked_and_that_is_recorded(
    tools, peer: HttpPeer, flags: str, joined: bool
) -> None:
    job, end = life(traceparent=f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}")
    spans = await spans_of(opened(tools, peer, join_caller=True), peer, job, end)
    root = spans["batch /v1/chat/completions"]
    assert (root["traceId"] == "0af7651916cd43dd8448eb211c80319c") is joined
    assert (root.get("parentSpanId") == "b7ad6b7169203331") is joined
    assert {span["traceId"] for span in spans.values()} == {root["traceId"]}
    assert {record["traceId"] for record in items(peer.asked, "logs")} == {root["traceId"]}


async def test_what_failed_is_an_error_with_its_type(tools, peer: HttpPeer) -> None:
    failed = event(EventType.BATCH_FAILED, "batch_1")
    lost = event(EventType.JOB_ACCOUNTED, "batch_2", outcome="expired", code="window_closed")
    spans = await spans_of(opened(tools, peer), peer, failed, lost)
    batch, job = spans["batch /v1/chat/completions"], spans["chat gpt-4o-mini"]
    assert (batch["status"]["code"], batch["attributes"]["error.type"]) == (2, "bad")
    assert (job["status"]["code"], job["attributes"]["error.type"]) == (2, "window_closed")


async def test_a_line_says_what_was_asked_and_answered_only_when_wanted(tools, peer: HttpPeer) -> None:
    job, _ = life()
    for content in (False, True):
        await opened(tools, peer, lines=True, content=content).tell_lines(job, records(job, [1]))
    without, with_it = (span["attributes"] for span in items(peer.asked, "traces"))
    assert "gen_ai.input.messages" not in without
    (asked,) = json.loads(with_it["gen_ai.input.messages"])
    assert asked == {"role": "user", "parts": [{"type": "text", "content": "canary-4f1d-in-the-data"}]}
    assert with_it["gen_ai.response.id"] == "chatcmpl-1"


async def test_a_job_shows_its_first_hundred_chunks(tools, peer: HttpPeer) -> None:
    job = event(EventType.JOB_ACCOUNTED, "batch_1", lane="executed")
    values = "account, deadline, span_start, span_end, first_line, lines, queued_at, done_at, priority, token"
    with closing(sqlite3.connect(str(tools.db.url.database))) as database:  # it does not ask for the chunks' job
        database.executemany(
            f"insert into chunks (id, job_id, ordinal, {values}, answered, spent, not_before, attempts)"
            " values (?, ?, ?, 'a', 0, 0, 0, 1, 10, ?, ?, 0, 1, 10, 0, 0, 0)",
            [(f"chunk_{n}", job.data["id"], n, 100.0 + n, 200.0 + n if n else None) for n in range(130)],
        )
        database.commit()
    await opened(tools, peer, signals=["traces"]).tell([job])
    spans = [span for span in items(peer.asked, "traces") if span["name"] == "chunk"]
    assert [span["attributes"]["batchway.chunk.ordinal"] for span in spans] == list(range(1, 101))
    assert spans[0]["startTimeUnixNano"] == str(101 * 10**9)


async def test_many_spans_go_in_parts(tools, peer: HttpPeer) -> None:
    job, _ = life()
    await opened(tools, peer, lines=True, signals=["traces"]).tell_lines(job, records(job, range(1, 1200)))
    counts = [len(parsed(asked)["resourceSpans"][0]["scopeSpans"][0]["spans"]) for asked in peer.asked]
    assert counts == [512, 512, 175]


# Metrics and logs -----------------------------------------------------------------------------------------------------


def points(peer: HttpPeer, name: str) -> list[dict[str, Any]]:
    found = [metric for metric in items(peer.asked, "metrics") if metric["name"] == name]
    held = [metric.get("sum") or metric["histogram"] for metric in found]
    return [point | {"attributes": plain(point["attributes"])} for one in held for point in one["dataPoints"]]


async def test_sums_and_durations_are_metrics(tools, peer: HttpPeer) -> None:
    await opened(tools, peer).tell(life())
    tokens = {point["attributes"]["gen_ai.token.type"]: point["asDouble"] for point in points(peer, "batchway.tokens")}
    assert tokens == {"input": 100, "output": 50}
    (amount,) = points(peer, "batchway.amount")
    assert amount["asDouble"] == pytest.approx(0.000123)
    assert int(amount["startTimeUnixNano"]) <= int(amount["timeUnixNano"])
    (took,) = points(peer, "batchway.batch.duration")
    assert (took["count"], took["sum"]) == ("1", 60.0)
    assert len(took["bucketCounts"]) == len(took["explicitBounds"]) + 1
    assert took["bucketCounts"][took["explicitBounds"].index(60.0)] == "1"


@pytest.mark.parametrize(("temporality", "second"), [("cumulative", 200), ("delta", 100)])
async def test_sums_grow_or_start_again(tools, peer: HttpPeer, temporality: str, second: int) -> None:
    receiver = opened(tools, peer, temporality=temporality)
    for _ in range(2):
        await receiver.tell([life()[0]])
    found = [
        one["asDouble"] for one in points(peer, "batchway.tokens") if one["attributes"]["gen_ai.token.type"] == "input"
    ]
    assert found == [100, second]


async def test_what_the_peer_did_not_take_is_not_counted(tools, peer: HttpPeer) -> None:
    receiver = opened(tools, peer, signals=["metrics"])
    job, _ = life()
    await peer.disturb("busy")
    with pytest.raises(ReceiverError):
        await receiver.tell([job])
    await peer.disturb("")
    await receiver.tell([job])
    assert {one["asDouble"] for one in points(peer, "batchway.tokens")} == {100, 50}


async def test_tokens_of_lines_are_the_conventions_histogram(tools, peer: HttpPeer) -> None:
    job, _ = life()
    await opened(tools, peer, lines=True).tell_lines(job, records(job, range(1, 7)))
    by_type = {one["attributes"]["gen_ai.token.type"]: one for one in points(peer, "gen_ai.client.token.usage")}
    assert (by_type["input"]["count"], by_type["input"]["sum"]) == ("4", 40.0)
    assert (by_type["output"]["min"], by_type["output"]["max"]) == (5.0, 5.0)


async def test_series_are_bounded(tools, peer: HttpPeer) -> None:
    receiver = opened(tools, peer, signals=["metrics"])
    for start in range(0, 2200, 100):
        jobs = [life(model=f"model-{number}")[0] for number in range(start, start + 100)]
        await receiver.tell(jobs)
    overflow = [one for one in points(peer, "batchway.tokens") if "otel.metric.overflow" in one["attributes"]]
    series = {(str(sorted(one["attributes"].items()))) for one in points(peer, "batchway.tokens")}
    assert overflow
    assert len(series) <= 2001


async def test_every_event_is_a_log_record_in_the_trace_of_its_batch(tools, peer: HttpPeer) -> None:
    made, end = event(EventType.FILE_CREATED, "file-1"), life()[1]
    await opened(tools, peer).tell([made, end, event(EventType.BATCH_FAILED)])
    first, second, third = items(peer.asked, "logs")
    (root,) = [span for span in items(peer.asked, "traces") if span["attributes"].get("batchway.batch.id") == "batch_1"
               and span["attributes"].get("batchway.span") == "batch"]  # fmt: skip
    assert "traceId" not in first
    assert (second["traceId"], second["spanId"]) == (root["traceId"], root["spanId"])
    assert second["body"] == {"stringValue": "batch.completed batch_1"}
    assert second["attributes"]["batchway.data.amount_usd"] == "0.000123"
    assert (second["severityText"], third["severityText"]) == ("INFO", "ERROR")


# Answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
async def test_what_a_peer_refuses_in_part_is_logged_and_not_sent_again(
    tools, peer: HttpPeer, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

    partial = service.ExportTracePartialSuccess(rejected_spans=300, error_message="too old")
    peer.reply = service.ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    peer.media = "application/x-protobuf"
    if protocol == "http/json":
        peer.reply, peer.media = b'{"partialSuccess":{"rejectedSpans":"300","errorMessage":"x"}}', "application/json"
    await opened(tools, peer, signals=["traces"], protocol=protocol).tell(ends(1))
    assert len(peer.asked) == 1
    assert "300 of 2 traces were not taken" in caplog.text
    assert "too old" not in caplog.text


@pytest.mark.parametrize("reply", [b"", b"\n", b"\n\xff\xff", b"{", b"<html>", b"\x0a\x02\x08", b"\xff" * 50])
async def test_an_odd_answer_with_status_200_does_no_harm(tools, peer: HttpPeer, reply: bytes) -> None:
    peer.reply = reply
    for media in ("application/json", "application/x-protobuf"):
        peer.media = media
        await opened(tools, peer, signals=["traces"]).tell(ends(1))
