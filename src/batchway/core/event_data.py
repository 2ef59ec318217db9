"""What the `data` of each event type holds: `DATA` names its struct, `schema()` says the same as JSON Schema.

Readers must bear fields that they do not know: within a version fields are added, never renamed or taken away. Times
are unix seconds, durations seconds, sizes bytes. Money stands twice: `amount` in whole pico-dollars (1e-12 USD; above
9,000 dollars more than a double holds exactly) and `amount_usd`, the same as a decimal string. An amount that is not
known is null in both, and `amount_status` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from batchway.core.events import VERSION, Event, EventType
from batchway.core.usage import Usage

AmountStatus = Literal["pending", "final", "unknown"]
"""Not summed up yet; exact; a price is not known."""


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of one event type."""


class FileData(Data, frozen=True, kw_only=True):
    """An uploaded file.

    `models` maps the models that its lines name to counts of lines, bytes and tokens; null when they are over 100.
    """

    id: str
    project: str
    key_id: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    lines: int | None = None
    fault_count: int | None = None
    models: dict[str, Any] | None = None


class BatchData(Data, frozen=True, kw_only=True):
    """A batch as it is after the change.

    `model` and `provider` are those that its creator forced on every line; `models` and `providers` (accounts) those
    that its jobs have used so far. `times` maps each state that it reached to when; `created` is there always.
    """

    id: str
    project: str
    key_id: str
    endpoint: str
    status: str
    metadata: dict[str, str] | None
    model: str | None
    provider: str | None
    models: list[str]
    providers: list[str]
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    total: int  # lines
    completed: int
    failed: int
    usage: Usage | None
    amount: int | None
    amount_usd: str | None
    amount_status: AmountStatus
    errors: list[dict[str, Any]] | None  # the first 20 faults of a refused input
    times: dict[str, float]
    queued_seconds: float | None  # from creation until its jobs run
    running_seconds: float | None  # from then until its last job is accounted
    total_seconds: float | None  # from creation to its end
    pause: dict[str, Any] | None = None
    retry_of: str | None = None
    traceparent: str | None = None  # of the request that created it
    call_type: str | None = None  # acreate_batch or batch_success: what cost-tracking callbacks know it by


class JobData(Data, frozen=True, kw_only=True):
    """A job as it is after the change; `provider` is the account. `times` is as in a batch's data."""

    id: str
    batch_id: str
    provider: str
    model: str
    lane: str
    endpoint: str
    status: str
    outcome: str | None
    code: str | None
    remote_id: str | None
    metadata: dict[str, str] | None  # its batch's
    first_line: int
    lines: int
    completed: int
    failed: int
    usage: Usage | None
    amount: int | None
    amount_usd: str | None
    amount_status: AmountStatus
    times: dict[str, float]
    queued_seconds: float | None  # from the cut until the provider has it
    running_seconds: float | None  # from then until the provider is done
    total_seconds: float | None
    traceparent: str | None = None


class CorrectionData(Data, frozen=True, kw_only=True):
    """A ledger entry that changes what an ended batch amounts to by `amount`; `corrections_usd` sums all such."""

    batch_id: str
    kind: str  # correction or refund
    reference: str
    note: str
    amount: int
    amount_usd: str
    corrections_usd: str
    provider: str | None = None
    model: str | None = None


class BudgetData(Data, frozen=True, kw_only=True):
    """A budget of which `percent` is now held or settled, in pico-dollars. `owner` is gateway, project:<> or key:<>."""

    owner: str
    percent: int
    period: str  # day, month or total
    starts_at: float
    amount: int
    held: int
    settled: int
    remainder: int


class KeyData(Data, frozen=True, kw_only=True):
    """A key, never its secret; `changed` names the fields that were set."""

    id: str
    project: str
    name: str
    changed: list[str]


class ProjectData(Data, frozen=True, kw_only=True):
    """A project; `changed` names the fields that were set."""

    name: str
    changed: list[str]


E = EventType

DATA: Mapping[EventType, type[Data]] = {
    E.FILE_CREATED: FileData,
    **{kind: BatchData for kind in E if kind.startswith("batch.")},
    **{kind: JobData for kind in E if kind.startswith("job.")},
    E.COST_CORRECTED: CorrectionData,
    E.BUDGET_THRESHOLD: BudgetData,
    **{kind: KeyData for kind in E if kind.startswith("key.")},
    **{kind: ProjectData for kind in E if kind.startswith("project.")},
}


def data_of(event: Event) -> Data:
    """The event's data as its struct; msgspec.ValidationError when they do not fit."""
    return msgspec.convert(event.data, DATA[event.type])


def schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) that every event as JSON fulfils."""
    (envelope, *_), parts = msgspec.json.schema_components([Event, *DATA.values()], ref_template="#/$defs/{name}")
    kinds = [
        {
            "title": kind.value,
            "allOf": [envelope],
            "properties": {"type": {"const": kind.value}, "data": {"$ref": f"#/$defs/{data.__name__}"}},
        }
        for kind, data in DATA.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"An event of Batchway, version {VERSION}",
        "oneOf": kinds,
        "$defs": parts,
    }
