"""Claude's message as OpenAI's chat completion.

Nothing in an answer makes this fail but a field of another type: unknown blocks, reasons and fields pass. Thinking
comes as `reasoning_content` to read and as `thinking_blocks` to give back, for models that want to see it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from batchway.dialects import completion

FINISH = {  # everything else is `stop`
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # it would go on if it were asked again
    "compaction": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class Native(msgspec.Struct, gc=False):
    """A part of an answer; fields not named are skipped."""


class Writes(Native):
    """Tokens written to the cache, by how long they live."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputDetails(Native):
    """What the output was for."""

    thinking_tokens: int = 0


class Usage(Native):
    """Counts of tokens; the input's are without those of the cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: Writes | None = None
    output_tokens_details: OutputDetails | None = None
    server_tool_use: dict[str, Any] | None = None


class StopDetails(Native):
    """Why the model refused."""

    explanation: str | None = None


class Answer(Native):
    """The whole."""

    id: str = ""
    model: str | None = None
    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: Usage | None = None


_encode = msgspec.json.Encoder().encode


def from_answer(native: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The chat completion of a message."""
    answer = msgspec.convert(native, Answer)
    finish = FINISH.get(answer.stop_reason or "", "stop")
    message = message_of(answer.content or [])
    if finish == "content_filter":
        why = answer.stop_details.explanation if answer.stop_details else None
        message["refusal"] = why or (None if message["content"] else completion.NO_CONTENT)
    return completion.completion(
        f"chatcmpl-{answer.id}",
        answer.model or model,
        [completion.choice(0, message, finish)],
        created=0,
        usage=usage_of(answer.usage or Usage()),
    )


def message_of(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message."""
    said: list[str] = []
    thought: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            said.append(block.get("text") or "")
        elif kind == "tool_use":
            given = _encode(block.get("input") or {}).decode()
            calls.append(completion.tool_call(str(block.get("id")), str(block.get("name")), given))
        elif kind in ("thinking", "redacted_thinking"):
            thought.append(block)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said) if said else None, "refusal": None}
    if thought:
        words = "".join(block.get("thinking") or "" for block in thought)
        message |= {"reasoning_content": words, "thinking_blocks": thought} if words else {"thinking_blocks": thought}
    if calls:
        message["tool_calls"] = calls
    return message


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens. What was read from and written to the cache is part of the prompt; writes are told by their life too."""
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    prompt = usage.input_tokens + read + written
    details: dict[str, Any] = {"cached_tokens": read, "cache_write_tokens": written}
    if usage.cache_creation and written:
        details["cache_write_tokens_details"] = {
            "ttl_5m_tokens": usage.cache_creation.ephemeral_5m_input_tokens,
            "ttl_1h_tokens": usage.cache_creation.ephemeral_1h_input_tokens,
        }
    thinking = usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else 0
    wire = completion.wire_usage(
        completion.Usage(
            prompt, usage.output_tokens, prompt + usage.output_tokens, details, {"reasoning_tokens": thinking}
        )
    )
    if usage.server_tool_use:
        wire["server_tool_use"] = usage.server_tool_use
    return wire
