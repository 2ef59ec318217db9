"""The dialect of Gemini: GenerateContent requests and answers, embedContent rows; responses go over the bridge.

The body is that of Vertex AI. The Gemini Developer API takes the same without `labels`, which its provider removes.
An embeddings line with several inputs has several rows: `to_rows` and `from_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchway.dialects import bridge
from batchway.dialects.bridge_answer import from_chat
from batchway.dialects.gemini.answer import from_answer
from batchway.dialects.gemini.embeddings import from_answers, is_old, rows_of
from batchway.dialects.gemini.parameters import PARAMS
from batchway.dialects.gemini.request import to_request
from batchway.dialects.protocol import CHAT, EMBEDDINGS, RESPONSES, Refused, admit, table_for

__all__ = ["PARAMS", "from_native", "from_rows", "has_old_rows", "to_native", "to_rows"]

has_old_rows = is_old


def to_native(endpoint: str, body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The native request body: of an embeddings line the only row."""
    if endpoint == EMBEDDINGS:
        rows = to_rows(body, model)
        if len(rows) != 1:
            raise Refused("input", "Invalid 'input': one text a request is taken here.", "invalid_value")
        return rows[0]
    admit(table_for(PARAMS, endpoint), body)
    if endpoint == RESPONSES:
        return bridge.through(body, PARAMS[CHAT], lambda chat: to_request(chat, model))
    return to_request(body, model)


def from_native(endpoint: str, answer: Mapping[str, Any], body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """OpenAI's answer body for a native one."""
    if endpoint == EMBEDDINGS:
        return from_rows([answer], body, model)
    chat = from_answer(answer, model)
    return from_chat(chat, body) if endpoint == RESPONSES else chat


def to_rows(body: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """The native rows of an embeddings line, one an input, in order."""
    admit(PARAMS[EMBEDDINGS], body)
    return rows_of(body, model)


def from_rows(answers: Sequence[Mapping[str, Any]], body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """OpenAI's answer to an embeddings line, from the native answers of all its rows in the order of its inputs."""
    return from_answers(answers, body, model)
