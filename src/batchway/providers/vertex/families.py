"""The families of models that Vertex runs batches for, and the form of their rows: which dialect, which name for a row.

A model's name leads to its publisher's resource name, its family and the name under which its price is known.
Other publishers' models (Llama, Qwen, gpt-oss, DeepSeek) are a declared gap: no source verifies the form of their rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec

from batchway.dialects import anthropic, gemini
from batchway.providers.vertex.rows import LABEL, Place, named

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
ANTHROPIC_VERSION = "vertex-2023-10-16"

KNOWN = re.compile(
    r"(gemini-|claude-|text-embedding-00\d|text-multilingual-embedding-|publishers/[^/]+/models/|projects/[^/]+/locations/)"
)
_VERSIONED = re.compile(r"(gemini-\d[\w.]*?(?:-[a-z]+)+)-00\d")
_PUBLISHED = re.compile(r"publishers/([^/]+)/models/(.+)")

Body = Mapping[str, Any]
Sent = tuple[Place, dict[str, Any], bytes]  # where a row belongs, the request in it, the row


class Family(Protocol):
    """How one family writes its rows and reads their answers; `to_rows` raises Refused."""

    endpoints: frozenset[str]

    def to_rows(self, number: int, endpoint: str, body: Body, model: str) -> list[Sent]:
        """The rows of one line."""
        ...

    def row_count(self, body: Body) -> int:
        """How many rows `to_rows` makes of this body."""
        ...

    def from_rows(self, endpoint: str, responses: Sequence[dict[str, Any]], body: Body, model: str) -> dict[str, Any]:
        """OpenAI's body out of the answers to all rows of a line, in order."""
        ...


class _Gemini:
    """`{"request": GenerateContentRequest}`; nothing beside the request is echoed, so its labels name the line."""

    endpoints = frozenset({CHAT, RESPONSES})

    def to_rows(self, number: int, endpoint: str, body: Body, model: str) -> list[Sent]:
        request = dict(gemini.to_native(endpoint, body, model))
        request["labels"] = {**request.get("labels", {}), LABEL: str(number)}
        return [(Place(number), request, _encode({"request": request}))]

    def row_count(self, body: Body) -> int:
        return 1

    def from_rows(self, endpoint: str, responses: Sequence[dict[str, Any]], body: Body, model: str) -> dict[str, Any]:
        return gemini.from_native(endpoint, responses[0], body, model)


class _Claude:
    """`{"custom_id", "request": MessagesRequest}`, with a version in the place of model and stream."""

    endpoints = frozenset({CHAT, RESPONSES})

    def to_rows(self, number: int, endpoint: str, body: Body, model: str) -> list[Sent]:
        native = anthropic.to_native(endpoint, body, model)
        request = {name: value for name, value in native.items() if name not in ("model", "stream")}
        request = {"anthropic_version": ANTHROPIC_VERSION, **request}
        return [(Place(number), request, _encode({"custom_id": str(number), "request": request}))]

    def row_count(self, body: Body) -> int:
        return 1

    def from_rows(self, endpoint: str, responses: Sequence[dict[str, Any]], body: Body, model: str) -> dict[str, Any]:
        return anthropic.from_native(endpoint, responses[0], body, model)


class _Embedding:
    """One row an input: `{"key", "request": EmbedContentRequest}`; `key` is echoed."""

    endpoints = frozenset({EMBEDDINGS})

    def to_rows(self, number: int, endpoint: str, body: Body, model: str) -> list[Sent]:
        places = ((Place(number, part), request) for part, request in enumerate(gemini.to_rows(body, model)))
        return [(place, request, _encode({"key": named(place), "request": request})) for place, request in places]

    def row_count(self, body: Body) -> int:
        return len(cast("list[object]", body["input"])) if isinstance(body["input"], list) else 1

    def from_rows(self, endpoint: str, responses: Sequence[dict[str, Any]], body: Body, model: str) -> dict[str, Any]:
        return gemini.from_rows(responses, body, model)


class _OldEmbedding(_Embedding):
    """`{"content", ...}`, known again only by the `instance` that the answer echoes (unverified)."""

    def to_rows(self, number: int, endpoint: str, body: Body, model: str) -> list[Sent]:
        return [
            (Place(number, part), instance, _encode(instance))
            for part, instance in enumerate(gemini.to_rows(body, model))
        ]


GEMINI, CLAUDE, EMBEDDING, OLD_EMBEDDING = _Gemini(), _Claude(), _Embedding(), _OldEmbedding()
_encode = msgspec.json.Encoder().encode


def family(model: str) -> Family | None:
    """The family of a model; None when the form of its rows is not known."""
    published = _PUBLISHED.fullmatch(model)
    publisher, name = (published[1], published[2]) if published else ("", model)
    if publisher == "anthropic" or name.startswith("claude-"):
        return CLAUDE
    if publisher not in ("", "google"):
        return None
    if gemini.has_old_rows(name):
        return OLD_EMBEDDING
    return EMBEDDING if "embedding" in name else GEMINI


def resource(model: str) -> str:
    """The resource name that a job is created with: a publisher's model, or a tuned one as it stands."""
    if model.startswith(("publishers/", "projects/")):
        return model
    return f"publishers/{'anthropic' if model.startswith('claude-') else 'google'}/models/{model}"


def priced_as(model: str) -> str:
    """The name in the price table; a tuned model has none, since its resource name does not tell its base."""
    published = _PUBLISHED.fullmatch(model)
    publisher, name = (published[1], published[2]) if published else ("", model)
    if publisher not in ("", "google", "anthropic"):
        return f"{publisher}/{name}"
    name = name.partition("@")[0]
    versioned = _VERSIONED.fullmatch(name)
    return versioned[1] if versioned else name
