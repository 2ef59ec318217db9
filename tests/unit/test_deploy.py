"""What is shipped for Prometheus and Grafana: it is valid, it names only metrics that exist, and it alerts."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from batchway import metrics
from tests.prometheus import ROOT, prometheus

__all__ = ["prometheus"]

RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "batchway.json"
OF_OTHERS = {"up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes"}
NAME = re.compile(r"\b(?:batchway|process)_[a-z_]+\b|\bup\b|\bALERTS\b")


def known() -> dict[str, set[str]]:
    """Each series that can be asked for, with its labels."""
    found: dict[str, set[str]] = {}
    for one in metrics.DECLARED:
        endings = ("_bucket", "_count", "_sum") if one.kind == "histogram" else ("",)
        for ending in endings:
            found[one.name + ending] = {*one.labels, *(["le"] if ending == "_bucket" else [])}
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return group["rules"]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


def test_every_expression_names_metrics_that_exist():
    asked = {(where, name) for where, text in expressions() for name in NAME.findall(text)}
    assert {pair for pair in asked if pair[1] not in OF_OTHERS | set(known())} == set()
    assert all(NAME.search(text) for _, text in expressions())


def test_every_selector_and_grouping_uses_labels_that_the_metrics_have():
    everywhere = {"instance", "job", "le"}
    for where, text in expressions():
        allowed = everywhere.union(*(known().get(name, set()) for name in NAME.findall(text)))
        grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", text) for label in group.split(",")}
        selected = {
            label for braces in re.findall(r"\{([^}]*)\}", text) for label in re.findall(r"(\w+)\s*[=!]", braces)
        }
        assert grouped | selected <= allowed | {""}, where


def test_each_metric_is_shown_or_alerted_on():
    asked = {name for _, text in expressions() for name in NAME.findall(text)}
    unused = {one.name for one in metrics.DECLARED if not {one.name, f"{one.name}_bucket", f"{one.name}_count"} & asked}
    assert unused <= {"batchway_holds_open", "batchway_budget_dollars"}


def test_the_dashboard_can_be_imported_anywhere():
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "batchway"
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Money", "Batches", "API", "Providers", "Executor", "Receivers", "Engine"]


def test_every_alert_says_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}


def test_every_alert_is_raised_by_a_test_of_its_own():
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text())["tests"]
    raised = {
        match[1]
        for test in tests
        for question in test["promql_expr_test"]
        for sample in question["exp_samples"]
        if (match := re.search(r'alertname="(\w+)"', sample["labels"]))
    }
    assert raised == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(prometheus: dict[str, str], command: list[str]):
    done = subprocess.run([prometheus["promtool"], *command], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
