"""docs/metrics.md out of the declarations in metrics.py and the alerts in deploy/prometheus: neither can be missing.

`generate.py` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from batchway import metrics

ALERTS = Path(__file__).resolve().parent.parent / "deploy" / "prometheus" / "alerts.yml"

OPENING = """\
# Metrics and alerts

`GET /metrics` tells them in Prometheus's form. [How to scrape it](receivers/prometheus.md); a Grafana dashboard is
`deploy/grafana/batchway.json`, the alerts are `deploy/prometheus/alerts.yml`.

Where a metric comes from decides how to sum it over processes:

- **process**: counted in this process since it began. Sum it: `sum(rate(...))`.
- **now**: read when it is asked for, of this process.
- **database**: read from the database, at most every 5 seconds. Every process tells the same, so take it once:
  `max by (...) (...)`.

Labels hold names of accounts, models, projects, receivers, routes and states: never an id, a key or a client's words.
A metric has at most {most} sets of label values; what comes later is counted as `other`. Beside these stand the
`process_*` metrics of Prometheus's client (CPU, memory, open files)."""


def page() -> str:
    """The whole text."""
    return "\n\n".join([OPENING.format(most=metrics.MOST), "\n".join(_table()), "## Alerts", *_alerts()])


def _table() -> Iterator[str]:
    yield "| metric | labels | from | what |"
    yield "|---|---|---|---|"
    for one in metrics.DECLARED:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        yield f"| `{one.name}` ({one.kind}) | {labels} | {one.source} | {one.help} |"


def _alerts() -> Iterator[str]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            notes = rule["annotations"]
            severity = rule["labels"]["severity"]
            asked = f"after {rule['for']}" if "for" in rule else "at once"
            yield f"### {rule['alert']}"
            yield f"{notes['summary']} ({severity}, {asked})"
            yield f"```promql\n{rule['expr']}\n```"
            yield notes["runbook"]
