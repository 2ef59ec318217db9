"""Names and values that spans, metrics and log records share: ids that repeats repeat, times, GenAI attributes.

A trace's id is drawn from its batch's id and a span's from what it is about, by sha-256: telling an event again makes
the same spans, and every process makes the same ones without asking anybody.

The `gen_ai.*` names are those of OpenTelemetry's semantic conventions for generative AI (semconv 1.37 to 1.41, read
2026-11-22). They have no word for money: `gen_ai.usage.cost`, in dollars, is what trace platforms read in practice.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, cast

import msgspec

from batchway.core.usage import Usage
from batchway.integrations.otlp.messages import AnyValue, ArrayValue, KeyValue

LONGEST = 4096  # characters of one value

OPERATIONS = {  # path of an endpoint -> gen_ai.operation.name
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


def trace_id(batch_id: str) -> str:
    """32 hex digits."""
    return sha256(f"batchway trace {batch_id}".encode()).hexdigest()[:32]


def span_id(*about: object) -> str:
    """16 hex digits."""
    return sha256("\n".join(["batchway span", *map(str, about)]).encode()).hexdigest()[:16]


def nanoseconds(seconds: float) -> str:
    """Unix time, to the microsecond: a float holds no more of today's."""
    return str(round(seconds * 1_000_000) * 1000)


def operation(endpoint: str) -> str:
    """`gen_ai.operation.name`: a well-known one, or the last word of the path."""
    return OPERATIONS.get(endpoint) or endpoint.rstrip("/").rpartition("/")[2]


def attributes(values: Mapping[str, Any], *, longest: int = LONGEST) -> list[KeyValue]:
    """As OTLP has them; None is left out, what is no plain value becomes JSON, long text is cut."""
    return [KeyValue(key=key, value=any_value(value, longest)) for key, value in values.items() if value is not None]


def any_value(value: Any, longest: int = LONGEST) -> AnyValue:
    """One value."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=str(value))
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value[:longest])
    if isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value)):
        words = cast("list[str]", value)
        return AnyValue(array_value=ArrayValue(values=[any_value(word, longest) for word in words]))
    return AnyValue(string_value=msgspec.json.encode(value).decode()[:longest])


def usage(tokens: Usage | None, prefix: str = "gen_ai.usage") -> dict[str, Any]:
    """Token counts. Under another prefix than GenAI's they are not added up by platforms that sum over spans."""
    if tokens is None:
        return {}
    return {
        f"{prefix}.input_tokens": tokens.input_tokens,
        f"{prefix}.output_tokens": tokens.output_tokens,
        f"{prefix}.cache_read.input_tokens": tokens.cached_tokens or None,
        f"{prefix}.cache_creation.input_tokens": tokens.cache_write_tokens or None,
        f"{prefix}.reasoning.output_tokens": tokens.reasoning_tokens or None,
    }


def tags(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """A batch's metadata: each pair, and the session and user that it names."""
    pairs = metadata or {}
    return {f"batchway.metadata.{key}": value for key, value in pairs.items()} | {
        "session.id": pairs.get("session_id"),
        "user.id": pairs.get("user_id") or pairs.get("trace_user_id"),  # the second is what users of LiteLLM send
        "batchway.tags": [f"{key}:{value}" for key, value in pairs.items()] or None,
    }
