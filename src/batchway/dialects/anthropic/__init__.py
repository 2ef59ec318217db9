"""The dialect of Claude: Messages requests and answers; responses go over the bridge, embeddings are not offered.

The native body stands for itself without `model`: whoever sends it adds `model` (Anthropic's own API) or
`anthropic_version` (Vertex, Bedrock). Answers hold no time, so `created` is 0 unless the sender knows better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchway.dialects import bridge
from batchway.dialects.anthropic.answer import from_answer
from batchway.dialects.anthropic.parameters import PARAMS
from batchway.dialects.anthropic.request import to_request
from batchway.dialects.bridge_answer import from_chat
from batchway.dialects.protocol import CHAT, RESPONSES, admit, table_for

__all__ = ["PARAMS", "from_native", "to_native"]


def to_native(endpoint: str, body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The native request body."""
    admit(table_for(PARAMS, endpoint), body)
    if endpoint == RESPONSES:
        return bridge.through(body, PARAMS[CHAT], lambda chat: to_request(chat, model))
    return to_request(body, model)


def from_native(endpoint: str, answer: Mapping[str, Any], body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """OpenAI's answer body for a native one."""
    chat = from_answer(answer, model)
    return from_chat(chat, body) if endpoint == RESPONSES else chat
