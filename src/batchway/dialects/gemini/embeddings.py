"""OpenAI's embeddings line as Gemini's rows, one row an input, and back.

Models named `text-embedding-*` and `text-multilingual-embedding-*` have an older form of rows, without `request` around
them (`is_old`); all others take the embedContent form.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from batchway.dialects.chat import Integer
from batchway.dialects.protocol import Refused
from batchway.dialects.reading import typed


class Request(msgspec.Struct, gc=False):
    """An OpenAI embeddings request; `input` may also be tokens, which are refused."""

    input: Any
    dimensions: Integer | None = None


class Counted(msgspec.Struct, gc=False, rename="camel"):
    """Tokens of one row."""

    prompt_token_count: int = 0


class Statistics(msgspec.Struct, gc=False):
    """Tokens of one row of the older form."""

    token_count: float = 0


class Vector(msgspec.Struct, gc=False):
    """One embedding."""

    values: list[float]
    statistics: Statistics | None = None


class Prediction(msgspec.Struct, gc=False):
    """The older form's."""

    embeddings: Vector


class Answer(msgspec.Struct, gc=False, rename="camel"):
    """The answer of one row, in either form."""

    embedding: Vector | None = None
    usage_metadata: Counted | None = None
    predictions: list[Prediction] | None = None


def is_old(model: str) -> bool:
    """Whether a model takes the older form of rows."""
    return model.rpartition("/")[2].startswith(("text-embedding-", "text-multilingual-embedding-", "textembedding-"))


def rows_of(body: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """One native row an input, in order."""
    request = typed(body, Request)
    given: object = request.input
    inputs: list[object] = [given] if isinstance(given, str) else typed(given, list[object], "input")
    if not inputs:
        raise Refused("input", "Invalid 'input': at least one text is needed.", "invalid_value")
    rows: list[dict[str, Any]] = []
    for place, text in enumerate(inputs):
        if not isinstance(text, str):
            raise Refused(f"input[{place}]", "Invalid 'input': only texts can be embedded, no tokens.", "invalid_type")
        row: dict[str, Any] = {"content": text} if is_old(model) else {"content": {"parts": [{"text": text}]}}
        if request.dimensions is not None:
            row["output_dimensionality"] = request.dimensions
        rows.append(row)
    return rows


def from_answers(answers: Sequence[Mapping[str, Any]], body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """OpenAI's list of embeddings out of the answers of a line's rows, in the order of its inputs."""
    tokens = 0
    data: list[dict[str, Any]] = []
    for index, native in enumerate(answers):
        answer = msgspec.convert(native, Answer, strict=False)
        vector = answer.embedding or (answer.predictions[0].embeddings if answer.predictions else None)
        if vector is None:
            raise ValueError("The answer of a row holds no embedding.")
        if answer.usage_metadata:
            tokens += answer.usage_metadata.prompt_token_count
        elif vector.statistics:
            tokens += int(vector.statistics.token_count)
        values = packed(vector.values) if body.get("encoding_format") == "base64" else vector.values
        data.append({"object": "embedding", "index": index, "embedding": values})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def packed(values: Sequence[float]) -> str:
    """Base64 of the values as little-endian 32-bit floats, as OpenAI packs them."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
