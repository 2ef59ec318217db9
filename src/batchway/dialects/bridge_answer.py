"""OpenAI's response out of a chat completion: the way back over the bridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
ECHOED = ("instructions", "max_output_tokens", "metadata", "temperature", "top_p", "text", "reasoning", "user")


def from_chat(completion: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The response to `body`, a responses request, that the first choice of a chat completion makes."""
    choice = completion["choices"][0]
    cut_by = INCOMPLETE.get(choice["finish_reason"])
    status = "incomplete" if cut_by else "completed"
    name = str(completion["id"]).removeprefix("chatcmpl-")
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": completion["created"],
        "status": status,
        "error": None,
        "incomplete_details": {"reason": cut_by} if cut_by else None,
        "model": completion["model"],
        "output": output(choice, name, status),
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        **{name: body[name] for name in ECHOED if body.get(name) is not None},
        "usage": usage(completion["usage"]),
    }


def output(choice: Mapping[str, Any], name: str, status: str) -> list[dict[str, Any]]:
    """The items of a response: thoughts, words, calls."""
    message = choice["message"]
    items: list[dict[str, Any]] = []
    thought = message.get("reasoning_content")
    if thought:
        items.append({"id": f"rs_{name}", "type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]})
    said: list[dict[str, Any]] = []
    if message.get("content") is not None:
        logprobs: list[Any] = choice["logprobs"]["content"] if choice["logprobs"] else []
        said.append({"type": "output_text", "text": message["content"], "annotations": [], "logprobs": logprobs})
    if message.get("refusal") is not None:
        said.append({"type": "refusal", "refusal": message["refusal"]})
    if said:
        items.append({"id": f"msg_{name}", "type": "message", "role": "assistant", "status": status, "content": said})
    for place, call in enumerate(message.get("tool_calls") or ()):
        item: dict[str, Any] = {"id": f"fc_{name}_{place}", "type": "function_call", "status": "completed"}
        item |= {"call_id": call["id"], **call["function"]}
        if "extra_content" in call:
            item["extra_content"] = call["extra_content"]
        items.append(item)
    return items


def usage(counted: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens by their names in responses."""
    asked: Mapping[str, Any] = counted.get("prompt_tokens_details", {})
    answered: Mapping[str, Any] = counted.get("completion_tokens_details", {})
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **asked},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0, **answered},
        "total_tokens": counted["total_tokens"],
    }
