"""Line records as attributes of their spans: what was asked and answered, as far as the operator and the project allow.

Messages have the form of the GenAI conventions' JSON schemas (`gen_ai.input.messages`, `gen_ai.output.messages`), for
chat and completions; other bodies stand whole as `batchway.request` and `batchway.response`. A body that is longer than
`LONGEST` characters is left out, for half of one is not JSON, and `batchway.content.omitted` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from batchway.core.money import to_dollars
from batchway.integrations.otlp import attributes as names
from batchway.integrations.protocol import LineRecord

LONGEST = 32_768  # characters of JSON in one attribute


def line_attributes(line: LineRecord, *, content: bool) -> dict[str, Any]:
    """The attributes of one line; bodies only with `content`."""
    request, response = _body(line.request), _body(line.response)
    choices = _objects(response.get("choices"))
    dollars = None if line.amount is None else to_dollars(line.amount)
    found: dict[str, Any] = {
        "batchway.line.number": line.number,
        "batchway.line.custom_id": line.custom_id,
        "http.response.status_code": line.status,
        "gen_ai.request.temperature": _number(request.get("temperature")),
        "gen_ai.request.top_p": _number(request.get("top_p")),
        "gen_ai.request.max_tokens": request.get("max_completion_tokens") or request.get("max_tokens"),
        "gen_ai.request.seed": request.get("seed"),
        "gen_ai.response.id": response.get("id"),
        "gen_ai.response.model": response.get("model"),
        "gen_ai.response.finish_reasons": [str(one["finish_reason"]) for one in choices if one.get("finish_reason")]
        or None,
        **(names.usage(line.usage) if line.ok else {}),
        "gen_ai.usage.cost": None if dollars is None else float(dollars),
        "batchway.amount_usd": dollars,
        "error.type": None if line.ok else str(line.status or "no_answer"),
    }
    return found | (_content(line, request, response, choices) if content else {})


def _content(
    line: LineRecord, request: Mapping[str, Any], response: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    asked = _input_messages(request)
    answered = [_output_message(choice) for choice in choices]
    whole = {
        "gen_ai.input.messages": asked or None,
        "gen_ai.output.messages": answered or None,
        "batchway.request": None if asked or line.request is None else request,
        "batchway.response": None if answered or line.response is None else response,
    }
    texts = {key: msgspec.json.encode(value).decode() for key, value in whole.items() if value is not None}
    kept = {key: text for key, text in texts.items() if len(text) <= LONGEST}
    left_out = sorted(texts.keys() - kept.keys())
    return {**kept, "batchway.content.omitted": left_out or None}


def _body(raw: msgspec.Raw | None) -> dict[str, Any]:
    return _object(msgspec.json.decode(raw)) if raw is not None else {}


def _input_messages(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    if isinstance(prompt := request.get("prompt"), str):
        return [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]
    return [
        {"role": str(message.get("role", "user")), "parts": _parts(message)}
        for message in _objects(request.get("messages"))
    ]


def _output_message(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = _object(choice.get("message")) or {"content": choice.get("text")}
    reason = str(choice.get("finish_reason") or "stop")
    return {"role": str(message.get("role", "assistant")), "parts": _parts(message), "finish_reason": reason}


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    parts: list[dict[str, Any]] = []
    if isinstance(content, str):
        parts.append({"type": "text", "content": content})
    for part in _objects(content):
        text = part.get("type") == "text"
        parts.append({"type": "text", "content": str(part.get("text"))} if text else part)
    for call in _objects(message.get("tool_calls")):
        called = _object(call.get("function"))
        named = {"name": called.get("name"), "arguments": called.get("arguments")}
        parts.append({"type": "tool_call", "id": call.get("id"), **named})
    return parts


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    listed = cast("list[object]", value) if isinstance(value, list) else []
    return [found for found in map(_object, listed) if found]


def _number(value: Any) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e15 else None  # a client may write any number
