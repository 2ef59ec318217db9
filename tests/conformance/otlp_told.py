"""What the tests of OpenTelemetry stand on: the peer, receivers that tell it, and the events of one batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from batchway.core.events import Event, EventType
from batchway.integrations.otlp import KINDS
from batchway.testing.receiver_ground import event
from tests.conformance.otlp_read import items
from tests.conformance.receiving import HttpPeer, opened_tools

KEY = "key-of-the-platform"
ENDS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
PLATFORM_KEYS: dict[str, dict[str, str]] = {
    "langfuse": {"public_key": "pk", "secret_key": KEY},
    "mlflow": {"token": KEY},
    "datadog": {"api_key": KEY},
    "honeycomb": {"api_key": KEY},
    "langsmith": {"api_key": KEY},
    "opik": {"api_key": KEY},
}


@pytest.fixture
async def tools(tmp_path: Path):
    async with opened_tools(tmp_path) as made:
        yield made


@pytest.fixture
async def peer():
    made = HttpPeer()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OTEL_", "DD_", "LANGFUSE_", "MLFLOW_")):
            monkeypatch.delenv(name)


def opened(tools, peer: HttpPeer, kind: str = "otlp", **options: Any):
    options.setdefault("endpoint", peer.url)
    opener = KINDS[kind]
    return opener.open_receiver(kind, opener.Options(**options), tools)


def life(**changes: Any) -> tuple[Event, Event]:
    """The `job.accounted` and the `batch.completed` of one batch."""
    job = event(EventType.JOB_ACCOUNTED, "batch_1", **changes)
    return job, event(EventType.BATCH_COMPLETED, "batch_1", **changes)


async def spans_of(receiver: Any, peer: HttpPeer, *told: Event) -> dict[str, dict[str, Any]]:
    await receiver.tell(told)
    return {span["name"]: span for span in items(peer.asked, "traces")}


def temporalities(peer: HttpPeer) -> set[int]:
    held = [metric.get("sum") or metric["histogram"] for metric in items(peer.asked, "metrics")]
    return {one["aggregationTemporality"] for one in held}
