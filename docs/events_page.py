"""docs/events.md and docs/events.schema.json: the events, from `core/events.py` and `core/event_data.py`."""

from __future__ import annotations

import inspect
import json
from typing import Any

from batchway.core import event_data
from batchway.core.event_data import DATA
from batchway.core.events import CALL_TYPES, VERSION, EventType

INTRODUCTION = f"""# Events

Every change of a batch, a job, a file, a key, a project or a budget is an event, stored in the transaction of the
change: an event exists exactly when the change does. Whoever should know is told by a [receiver](receivers/README.md),
a webhook, or the stream of one batch (`GET /v1/batches/ID/events`, `batchway watch ID`).

```json
{{
  "id": "evt_6f0e...", "type": "batch.completed", "version": {VERSION}, "position": 4711,
  "subject": "batch_9a2c...", "project": "default", "key_id": "key_51d7...", "created_at": 1795375472.501,
  "data": {{"status": "completed", "completed": 12, "amount_usd": "0.000123", "...": "..."}}
}}
```

[events.schema.json](events.schema.json) is the JSON Schema of all of them. Within a version fields are added, never
renamed or taken away.

## What is promised

- **At least once.** Each receiver has a place of its own in the order of the events, which moves only after it took
  them. A crash or an outage repeats some; a repeat carries the same `id`, so drop what you know.
- **In order.** `position` has no gaps, and causes come before their effects: all events about one batch and its jobs,
  whose `subject` is the batch, come in the order in which they happened.
- **Nobody waits.** A receiver that is slow, fails or hangs holds up no batch, no request and no other receiver. It is
  told again after 1 s, 2 s, 4 s ... 5 min, or when it says; what it refuses for good, or could not take for 72 hours,
  becomes a dead letter, kept for 30 days. `batchway receivers list` shows how far each is behind and why,
  `batchway receivers retry NAME` tells it again at once, dead letters too.
- A receiver with a new name begins with what happens from then on; with `from: start` it is told of all that is still
  stored. Told events are kept for 7 days; the place of a receiver that is no longer configured, too.

## The stream of a batch

`GET /v1/batches/ID/events` answers server-sent events until the batch has ended. `event: batch` holds the status and
the counts whenever they change; every other event has its own type, and its id as the stream's `id`. A client that
comes back with `Last-Event-ID`, as browsers do by themselves, gets what it missed first. A client that reads too slowly
is sent away, and comes back the same way.

## Line records

Receivers that take them (`lines: true`) also get a record of every answered line, in parts of at most 500 lines or
4 MiB, before the `job.accounted` of their job. What they show of requests and responses is the project's `redaction`:
`none` takes nothing away, `hash` leaves `{{"sha256": "..."}}`, `drop` leaves nothing.

## Types
"""


def page() -> str:
    """The whole text of docs/events.md."""
    rows = [
        f"| `{kind}` | [{data.__name__}](#{data.__name__.lower()}) | {_call(kind)} |" for kind, data in DATA.items()
    ]
    table = "\n".join(["| type | data | call type |", "|---|---|---|", *rows])
    return "\n\n".join([INTRODUCTION, table, "## Data", _rules(), *_structs()])


def schema() -> str:
    """The whole text of docs/events.schema.json."""
    return json.dumps(event_data.schema(), indent=1)


def _call(kind: EventType) -> str:
    return f"`{CALL_TYPES[kind]}`" if kind in CALL_TYPES else ""


def _rules() -> str:
    return (inspect.getdoc(event_data) or "").split("\n\n", 1)[1]


def _structs() -> list[str]:
    parts = event_data.schema()["$defs"]
    return [
        "\n\n".join([f"### {name}", parts[name].get("description", ""), _fields(parts[name])])
        for name in (*dict.fromkeys(data.__name__ for data in DATA.values()), "Usage")
    ]


def _fields(part: dict[str, Any]) -> str:
    rows = [f"| `{name}` | {_kind(about)} |" for name, about in part["properties"].items()]
    return "\n".join(["| field | JSON |", "|---|---|", *rows])


def _kind(about: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(_kind(one) for one in about["anyOf"])
    if "enum" in about:
        return ", ".join(f"`{word}`" for word in about["enum"])
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if about.get("type") == "array":
        return f"array of {_kind(about['items'])}"
    if about.get("type") == "object" and isinstance(about.get("additionalProperties"), dict):
        return f"object of {_kind(about['additionalProperties'])}" if about["additionalProperties"] else "object"
    return about.get("type", "any")
