"""What a simulated model answers: the body of one request in, the body of its response out; pure.

Invariant: the same body gives the same answer whoever sends it and however it is spelled (keys sorted, spaces dropped),
so a line answered in a batch and the same request sent alone can be compared.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from batchway.providers.shared.file_simulator.errors import ApiError, missing, out_of_range, wrong_type, wrong_value
from batchway.providers.shared.simulation import Answer, Dice, answer

Json = dict[str, Any]

# What an alias was resolved to, as OpenAI's model pages said in November 2026; other names come back as sent.
DATED = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "o4-mini": "o4-mini-2025-04-16",
}
_REASONS = re.compile(r"(o\d|gpt-5)")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True)
class Asked:
    """A request as the answers need it: its body, the answer that belongs to it, when it runs (virtual seconds)."""

    body: Json
    answer: Answer
    dice: Dice
    created: int
    model: str

    def number(self, index: int) -> Answer:
        """The answer for choice, prompt or input `index`; 0 is the first."""
        if index == 0:
            return self.answer
        digest = self.dice.digest(bytes.fromhex(self.answer.digest) + index.to_bytes(4, "little"))
        return answer(digest, self.answer.input_tokens * 4, max_tokens=max_tokens(self.body))


def canonical(body: Json) -> bytes:
    """The body as it is hashed: compact JSON with sorted keys."""
    return msgspec.json.encode(body, order="sorted")


def body_hash(body: Json) -> str:
    """The sha-256 that names a body in `GET /_sim/requests`."""
    return hashlib.sha256(canonical(body)).hexdigest()


def respond(endpoint: str, body: Json, dice: Dice, now: float) -> Json:
    """The response body of a request that `refusal` let through."""
    plain = canonical(body)
    model = str(body["model"])
    found = answer(dice.digest(plain), len(plain), max_tokens=max_tokens(body), reasons=bool(_REASONS.match(model)))
    return _ANSWERS[endpoint](Asked(body, found, dice, int(now), DATED.get(model, model)))


def max_tokens(body: Json) -> int | None:
    """The output tokens allowed, under any of the names the endpoints use."""
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        if isinstance(body.get(name), int):
            return body[name]
    return None


def refusal(endpoint: str, body: Json) -> ApiError | None:
    """Why a request is refused with 400, or None: what OpenAI checks only when it runs the request."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        return ApiError(400, "you must provide a model parameter")
    if body.get("stream"):
        return ApiError(400, "Streaming is not simulated.", param="stream", code="unsupported_value")
    return _numbers(body) or _REQUIRED[endpoint](body)


def _numbers(body: Json) -> ApiError | None:
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("n", 1, 128)):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            return wrong_type(name, "a number", value)
        if not low <= value <= high:
            return out_of_range(name, value, low, high)
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            return wrong_type(name, "an integer", value)
        if value < 1:
            return out_of_range(name, value, 1, 1)
    return None


def _chat_required(body: Json) -> ApiError | None:
    messages: Any = body.get("messages")
    if messages is None:
        return missing("messages")
    if not isinstance(messages, list):
        return wrong_type("messages", "an array of objects", messages)
    if not messages:
        text = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        return ApiError(400, text, param="messages", code="empty_array")
    faults = (_message_fault(index, message) for index, message in enumerate(cast("list[Any]", messages)))
    wrong = next(filter(None, faults), None)
    if wrong is None and body.get("max_tokens") is not None and _REASONS.match(body["model"]):
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return ApiError(400, text, param="max_tokens", code="unsupported_parameter")
    return wrong


def _message_fault(index: int, message: Any) -> ApiError | None:
    if not isinstance(message, dict):
        return wrong_type(f"messages[{index}]", "an object", message)
    role = cast("Json", message).get("role")
    return None if role in _ROLES else wrong_value(f"messages[{index}].role", role, _ROLES)


def _field_required(name: str) -> Callable[[Json], ApiError | None]:
    def check(body: Json) -> ApiError | None:
        value = body.get(name)
        if value is None:
            return missing(name)
        if not isinstance(value, str | list):
            return wrong_type(name, "one of a string or an array", value)
        if not value:
            return ApiError(400, f"Invalid '{name}': it must not be empty.", param=name, code="invalid_value")
        return None

    return check


_REQUIRED: Mapping[str, Callable[[Json], ApiError | None]] = {
    "/v1/chat/completions": _chat_required,
    "/v1/completions": _field_required("prompt"),
    "/v1/embeddings": _field_required("input"),
    "/v1/moderations": _field_required("input"),
    "/v1/responses": _field_required("input"),
}


def input_count(value: object) -> int:
    """How many inputs a `prompt` or `input` field holds: a list of numbers is one tokenized text."""
    inputs = cast("list[Any]", value) if isinstance(value, list) else []
    return len(inputs) if inputs and not isinstance(inputs[0], int) else 1


def _usage(found: Answer, output_tokens: int) -> Json:
    return {
        "prompt_tokens": found.input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": found.input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": found.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": found.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chat(asked: Asked) -> Json:
    answers = [asked.number(index) for index in range(asked.body.get("n") or 1)]
    tool = _tool(asked)
    return {
        "id": f"chatcmpl-{asked.answer.digest[:24]}",
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [_choice(asked, found, tool, index) for index, found in enumerate(answers)],
        "usage": _usage(asked.answer, sum(found.output_tokens for found in answers)),
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    }


def _choice(asked: Asked, found: Answer, tool: tuple[str, str] | None, index: int) -> Json:
    message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    reason = "length" if found.cut else "stop"
    if tool is not None:
        name, arguments = tool
        call = {
            "id": f"call_{found.digest[:24]}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        message["tool_calls"] = [call]
        reason = "tool_calls"
    else:
        message["content"] = _text(found, asked.body.get("response_format"))
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _tool(asked: Asked) -> tuple[str, str] | None:
    """Name and arguments of the function called: when the request demands one, else one time in four."""
    tools = [tool["function"] for tool in asked.body.get("tools") or () if tool.get("type") == "function"]
    wanted = asked.body.get("tool_choice", "auto")
    if not tools or wanted == "none" or (wanted == "auto" and asked.answer.digest[0] not in "0123"):
        return None
    named: str = tools[0]["name"]
    if isinstance(wanted, dict) and "function" in wanted:
        named = cast("Json", wanted)["function"]["name"]
    function = next((tool for tool in tools if tool["name"] == named), tools[0])
    schema = function.get("parameters") or {"type": "object"}
    return named, msgspec.json.encode(_instance(schema, asked.answer.text, schema, 8)).decode()


def _text(found: Answer, form: object) -> str:
    """The words, or JSON around them where `response_format` (chat) or `text.format` (responses) asks for it."""
    wanted: Json = cast("Json", form) if isinstance(form, dict) else {}
    if wanted.get("type") == "json_object":
        return msgspec.json.encode({"answer": found.text}).decode()
    if wanted.get("type") == "json_schema":
        schema: Json = wanted.get("json_schema", wanted).get("schema") or {}
        return msgspec.json.encode(_instance(schema, found.text, schema, 8)).decode()
    return found.text


def _instance(schema: Json, text: str, root: Json, depth: int) -> Any:
    """The smallest value that fits a JSON schema; `depth` ends schemas that contain themselves."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target.get(part, {})
        schema = target
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name) and depth:
            return _instance(schema[name][0], text, root, depth - 1)
    kind: Any = schema.get("type")
    kind = cast("list[Any]", kind)[0] if isinstance(kind, list) else kind
    if kind == "object" and depth:
        properties = schema.get("properties", {})
        return {name: _instance(each, text, root, depth - 1) for name, each in properties.items()}
    if kind == "array" and depth:
        return [_instance(schema.get("items", {}), text, root, depth - 1)] * max(schema.get("minItems", 1), 1)
    numbers = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 0.5)}
    plain: Json = {"object": {}, "array": [], "boolean": True, "null": None, **numbers}
    return plain.get(str(kind), text)


def _completion(asked: Asked) -> Json:
    count = input_count(asked.body["prompt"]) * (asked.body.get("n") or 1)
    answers = [asked.number(index) for index in range(count)]
    return {
        "id": f"cmpl-{asked.answer.digest[:24]}",
        "object": "text_completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [
            {"index": index, "text": each.text, "logprobs": None, "finish_reason": "length" if each.cut else "stop"}
            for index, each in enumerate(answers)
        ],
        "usage": _usage(asked.answer, sum(each.output_tokens for each in answers)),
    }


def _embedding(asked: Asked) -> Json:
    size = asked.body.get("dimensions") or 8
    packed = asked.body.get("encoding_format") == "base64"
    data: list[Json] = []
    for index in range(input_count(asked.body["input"])):
        digest = bytes.fromhex(asked.number(index).digest)
        vector = [digest[place % 32] - 127.5 for place in range(size)]
        length = math.sqrt(sum(value * value for value in vector))
        unit = [value / length for value in vector]
        value = base64.b64encode(struct.pack(f"<{size}f", *unit)).decode() if packed else unit
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = asked.answer.input_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": asked.model, "usage": usage}


def _moderation(asked: Asked) -> Json:
    result: Json = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    results = [result] * input_count(asked.body["input"])
    return {"id": f"modr-{asked.answer.digest[:24]}", "model": asked.model, "results": results}


def _response(asked: Asked) -> Json:
    found = asked.answer
    body = asked.body
    content: Json = {
        "type": "output_text",
        "text": _text(found, cast("Json", body.get("text") or {}).get("format")),
        "annotations": [],
        "logprobs": [],
    }
    message: Json = {
        "id": f"msg_{found.digest[:24]}",
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if found.cut else "completed",
        "content": [content],
    }
    return {
        "id": f"resp_{found.digest[:24]}",
        "object": "response",
        "created_at": asked.created,
        "status": message["status"],
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if found.cut else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "model": asked.model,
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": body.get("temperature", 1.0),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "max_output_tokens": body.get("max_output_tokens"),
        "usage": {
            "input_tokens": found.input_tokens,
            "input_tokens_details": {"cached_tokens": found.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": found.output_tokens,
            "output_tokens_details": {"reasoning_tokens": found.reasoning_tokens},
            "total_tokens": found.input_tokens + found.output_tokens,
        },
    }


_ANSWERS: Mapping[str, Callable[[Asked], Json]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embedding,
    "/v1/moderations": _moderation,
    "/v1/responses": _response,
}
ENDPOINTS = tuple(_ANSWERS)
