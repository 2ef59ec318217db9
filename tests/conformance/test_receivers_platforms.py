"""Where OpenTelemetry goes: the entry's options, OpenTelemetry's variables, and a row for each platform."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from batchway.integrations.otlp import KINDS
from tests.conformance.otlp_read import items, parsed, plain
from tests.conformance.otlp_told import (
    KEY,
    PLATFORM_KEYS,
    life,
    no_variables,
    opened,
    peer,
    spans_of,
    tools,
)
from tests.conformance.receiving import HttpPeer

__all__ = ["no_variables", "peer", "tools"]


async def test_the_variables_of_opentelemetry_are_honoured(tools, peer: HttpPeer, monkeypatch) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{peer.url}/base/",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{peer.url}/elsewhere",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-general=a%20b",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-own=c",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.name=lost",
        "OTEL_SERVICE_NAME": "my-gateway",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    await opened(tools, peer, endpoint=None).tell(life())
    asked = {one.path: one for one in peer.asked}
    assert set(asked) == {"/base/v1/logs", "/elsewhere", "/base/v1/metrics"}
    assert (asked["/elsewhere"].headers["x-own"], "x-general" in asked["/elsewhere"].headers) == ("c", False)
    assert asked["/base/v1/metrics"].headers["x-general"] == "a b"
    assert {one.headers["content-encoding"] for one in peer.asked} == {"gzip"}
    logs = parsed(asked["/base/v1/logs"])["resourceLogs"][0]
    said = plain(logs["resource"]["attributes"])
    assert said == {"service.name": "my-gateway", "deployment.environment.name": "test"}
    temporality = [
        (one.get("sum") or one["histogram"])["aggregationTemporality"] for one in items(peer.asked, "metrics")
    ]
    assert set(temporality) == {1}


@pytest.mark.parametrize("kind", PLATFORM_KEYS)
async def test_a_platform_is_a_row(tools, peer: HttpPeer, kind: str) -> None:
    row = KINDS[kind].row
    host = {name: peer.url for name in ("host", "tracking_uri") if name in row.settings}
    options = {"endpoint": None} if host else {}
    await opened(tools, peer, kind, **host, **options, **PLATFORM_KEYS[kind]).tell(life())
    signals = [asked.path.rpartition("/")[2] for asked in peer.asked]
    assert set(signals) == set(row.signals)
    assert all(KEY in str(asked.headers) or "basic" in asked.headers["authorization"].lower() for asked in peer.asked)
    assert list(items(peer.asked, "traces"))


async def test_langfuse_finds_its_names_and_credentials(tools, peer: HttpPeer, monkeypatch) -> None:
    monkeypatch.setenv("LANGFUSE_HOST", peer.url)
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk")
    _, end = life(metadata={"session_id": "s-1", "user_id": "u-1", "team": "research"})
    receiver = opened(tools, peer, "langfuse", endpoint=None, secret_key="sk")
    root = (await spans_of(receiver, peer, end))["batch /v1/chat/completions"]["attributes"]
    (asked,) = peer.asked
    assert asked.path == "/api/public/otel/v1/traces"
    assert asked.headers["authorization"] == f"Basic {b64encode(b'pk:sk').decode()}"
    assert asked.headers["x-langfuse-ingestion-version"] == "4"
    wanted = {
        "langfuse.trace.name": "batch /v1/chat/completions",
        "langfuse.trace.tags": ["session_id:s-1", "user_id:u-1", "team:research"],
        "langfuse.trace.metadata.team": "research",
        "session.id": "s-1",
        "user.id": "u-1",
    }
    assert wanted.items() <= root.items()


async def test_datadog_gets_delta_sums_and_marked_spans(tools, peer: HttpPeer) -> None:
    await opened(tools, peer, "datadog", api_key=KEY).tell(life())
    assert all(asked.headers["dd-otlp-source"] == "llmobs" for asked in peer.asked)
    assert all(span["attributes"]["dd_llmobs_enabled"] is True for span in items(peer.asked, "traces"))
    assert all(
        (one.get("sum") or one["histogram"])["aggregationTemporality"] == 1 for one in items(peer.asked, "metrics")
    )


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("langfuse", {}, "`public_key` is missing: set it, or the variable LANGFUSE_PUBLIC_KEY"),
        ("mlflow", {"signals": ["logs"]}, "signals: logs cannot be sent there; it takes traces"),
        ("otlp", {"endpoint": "collector:4318"}, "url: must begin with https:// or http://"),
        ("otlp", {"headers": {"a": "b\r\nc"}}, "headers: 'a' cannot be sent"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(kind: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        KINDS[kind].Options(**options)


def test_grpc_in_the_environment_is_refused_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match="'grpc' is not spoken; set `protocol`"):
        KINDS["otlp"].Options()
    KINDS["otlp"].Options(protocol="http/protobuf")
