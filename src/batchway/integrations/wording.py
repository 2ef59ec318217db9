"""Events in words, for those who are told by a message: what happened, to what, and the figures that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchway.core.events import Event, EventType
from batchway.core.money import to_dollars

NOTABLE = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "batch.paused",
    "budget.threshold",
)
"""The patterns of an entry that names none: what a person wants to hear of."""

LONGEST = 200  # characters of one value


def headline(event: Event) -> str:
    """One line."""
    data = event.data
    if event.type is EventType.BUDGET_THRESHOLD:
        return f"{data.get('percent')} % of the budget of {_short(data.get('owner'))} are used"
    if event.type.startswith("batch."):
        lines = data.get("total") or 0
        of = f" ({lines} lines, {_short(data.get('endpoint'))})" if lines else ""
        return f"Batch {_short(event.subject)} {_verb(event.type)}{of}"
    return f"{event.type.value}: {_short(event.subject)}"


def figures(event: Event) -> list[tuple[str, str]]:
    """(word, value) pairs, most telling first; values are one line each, as somebody else wrote them."""
    data = event.data
    if event.type is EventType.BUDGET_THRESHOLD:
        amounts = [(word, data.get(word)) for word in ("settled", "held", "amount")]
        told = [(word, f"${to_dollars(pico)}") for word, pico in amounts if isinstance(pico, int)]
        return [*told, ("period", _short(data.get("period"))), ("project", _short(event.project))]
    if not event.type.startswith("batch."):
        return [("project", _short(event.project))]
    found = [
        ("answered", data.get("completed")),
        ("failed", data.get("failed")),
        ("amount", _amount(data)),
        ("took", _duration(data.get("total_seconds"))),
        ("models", ", ".join(map(str, data.get("models") or ()))),
        ("why", _why(data)),
        ("project", event.project),
        ("metadata", _pairs(data.get("metadata"))),
    ]
    return [(word, _short(value)) for word, value in found if value not in (None, "", 0)]


def _verb(kind: EventType) -> str:
    word = kind.partition(".")[2].replace("_", " ")
    return {"created": "was created", "validated": "was validated", "paused": "is paused"}.get(word, f"is {word}")


def _amount(data: Mapping[str, Any]) -> str | None:
    if data.get("amount_status") == "unknown":
        return "unknown"
    return f"${data['amount_usd']}" if data.get("amount_usd") else None


def _duration(seconds: Any) -> str | None:
    if not isinstance(seconds, (int, float)):
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _why(data: Mapping[str, Any]) -> str | None:
    pause: Mapping[str, Any] = data.get("pause") or {}
    faults: Sequence[Mapping[str, Any]] = data.get("errors") or ()
    return pause.get("message") or (faults[0].get("message") if faults else None)


def _pairs(metadata: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in (metadata or {}).items())


def _short(value: Any) -> str:
    """One line of at most LONGEST characters, without control characters."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
