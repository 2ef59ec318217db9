"""OpenAI's chat answers, as every dialect makes them of native ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NO_CONTENT = "The model gave no answer."


class Usage(NamedTuple):
    """The three sums of an answer's tokens, and their details by OpenAI's names (zeros are left out)."""

    prompt: int
    completion: int
    total: int
    prompt_details: Mapping[str, Any]
    completion_details: Mapping[str, Any]


def wire_usage(usage: Usage) -> dict[str, Any]:
    """The `usage` object; details stand in it only when there is something to tell."""
    wire: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
    }
    for name, details in (
        ("prompt_tokens_details", usage.prompt_details),
        ("completion_tokens_details", usage.completion_details),
    ):
        told = {key: value for key, value in details.items() if value}
        if told:
            wire[name] = told
    return wire


def completion(
    answer_id: str, model: str, choices: Sequence[dict[str, Any]], *, created: int, usage: dict[str, Any]
) -> dict[str, Any]:
    """A `chat.completion`; `created` in Unix seconds."""
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def choice(
    index: int, message: dict[str, Any], finish_reason: str, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One choice."""
    return {"index": index, "message": message, "finish_reason": finish_reason, "logprobs": logprobs}


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a function; `arguments` is the text of a JSON object."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
