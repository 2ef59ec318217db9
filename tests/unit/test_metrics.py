"""What is counted: declared once, bounded, cheap, and told in Prometheus's form."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchway import metrics
from batchway.core.errors import Fault, ProviderError
from batchway.metrics import Counter, Histogram, Reading


def value(name: str, **labels: str) -> float:
    return metrics._registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def undeclared(monkeypatch):
    monkeypatch.setattr(metrics, "DECLARED", [])
    monkeypatch.setattr(metrics, "_registry", metrics.CollectorRegistry())


def test_names_and_units_follow_prometheus():
    for one in metrics.DECLARED:
        assert re.fullmatch(r"batchway_[a-z_]+", one.name)
        assert one.name.endswith("_total") == (one.kind == "counter"), one.name
        assert one.kind != "histogram" or one.name.endswith("_seconds")
        assert one.help.endswith("."), one.name
    assert len({one.name for one in metrics.DECLARED}) == len(metrics.DECLARED)


def test_no_label_is_an_id():
    assert {label for one in metrics.DECLARED for label in one.labels} <= {
        "account", "function", "lane", "method", "model", "operation", "outcome", "part", "project", "receiver",
        "route", "scope", "state", "status", "type",
    }  # fmt: skip


@pytest.mark.parametrize("make", [Counter, lambda *args: Histogram(*args, buckets=(1,))])
def test_a_metric_has_no_end_of_label_values(undeclared, make):
    metric = make("batchway_x_total", "X.", "model")
    record = metric.add if isinstance(metric, Counter) else lambda name: metric.observe(0.5, name)
    for number in range(10 * metrics.MOST):
        record(f"m{number}")
    record("m0")
    (family,) = metrics._registry.collect()
    counted = {s.labels["model"]: s.value for s in family.samples if s.name.endswith(("x_total", "_count"))}
    assert len(counted) == metrics.MOST + 1
    assert counted["m0"] == 2
    assert counted["other"] == 9 * metrics.MOST
    assert len(metric._children) <= 2 * metrics.MOST


def test_what_is_told_can_be_read_by_prometheus_in_both_forms():
    metrics.HTTP_REQUESTS.add("/v1/files", "GET", "2xx")
    body, kind = metrics.render({metrics.BATCHES: [(("in_progress",), 3)], metrics.HOLDS: [((), 2)]}, "")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert kind.startswith("text/plain")
    assert [sample[:3] for sample in families["batchway_batches"].samples] == [
        ("batchway_batches", {"state": "in_progress"}, 3.0)
    ]
    assert "process_resident_memory_bytes" in families
    assert b"_created" not in body
    open_form, kind = metrics.render({}, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert open_form.endswith(b"# EOF\n")


async def test_a_call_is_counted_by_how_it_ended():
    async def call(error: BaseException | None) -> None:
        with metrics.calling("acc", "look"):
            await asyncio.sleep(0)
            if error is not None:
                raise error

    for error in (None, ProviderError("no", fault=Fault.DENIED), KeyError("bug"), asyncio.CancelledError()):
        with pytest.raises(type(error)) if error is not None else metrics.calling("other", "find"):
            await call(error)
    for outcome in ("ok", "denied", "broken", "abandoned"):
        assert value(
            "batchway_provider_call_seconds_count", account="acc", operation="look", outcome=outcome
        ) == 1  # fmt: skip


def test_tries_are_counted_for_the_account_that_is_called():
    before = value("batchway_throttled_total", account="busy", lane="native")
    refusal = ProviderError("slow down", fault=Fault.THROTTLED, status=429)
    with metrics.calling("busy", "submit"):
        with metrics.calling("busy2", "find"):
            pass
        metrics.tried(refusal, again=True)
        metrics.tried(refusal, again=False)
    assert value("batchway_throttled_total", account="busy", lane="native") == before + 2
    assert value("batchway_provider_repeats_total", account="busy") == 1


async def test_the_lag_of_a_blocked_loop_is_seen(monkeypatch):
    monkeypatch.setattr(metrics, "LAG_SECONDS", 0.01)
    before = value("batchway_event_loop_lag_seconds_sum")
    watching = asyncio.create_task(metrics.watch_loop())
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - this is the blocked loop
    while value("batchway_event_loop_lag_seconds_sum") < before + 0.1:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.005)
    watching.cancel()


def best(call, times: int = 2000) -> float:
    """Seconds a call, in the best of several rounds: a busy machine makes some slow."""
    rounds = []
    for _ in range(10):
        begun = time.perf_counter()
        for _ in range(times):
            call()
        rounds.append((time.perf_counter() - begun) / times)
    return min(rounds)


def test_counting_costs_next_to_nothing():
    plain: dict[str, int] = {}

    def least() -> None:
        plain["x"] = plain.get("x", 0) + 1

    measure = best(least)
    assert best(lambda: metrics.HTTP_REQUESTS.add("/v1/files", "GET", "2xx")) < 40 * measure
    assert best(lambda: metrics.EXECUTOR_SECONDS.observe(3, "acc", "ok")) < 80 * measure


def test_importing_batchway_or_its_command_loads_no_metrics():
    code = "import sys, batchway, batchway.cli.main; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_reading_is_a_counter_by_its_name():
    assert {one.kind for one in metrics.DECLARED if isinstance(one, Reading)} == {"counter", "gauge"}
