"""The official types as judges of native bodies: google-genai's pydantic models, anthropic's typed dictionaries."""

from __future__ import annotations

import functools
import sys
from typing import Any

import msgspec
import pydantic
from typing_extensions import is_typeddict

# Where google-genai has no model of a whole request, its parts are judged: the fields of aiplatform v1's
# GenerateContentRequest, each by its type.
GEMINI_FIELDS = {
    "contents": "list[Content]",
    "systemInstruction": "Content",
    "tools": "list[Tool]",
    "toolConfig": "ToolConfig",
    "generationConfig": "GenerationConfig",
    "safetySettings": "list[SafetySetting]",
    "labels": "dict[str, str]",
}


@functools.cache
def gemini_judges() -> dict[str, pydantic.TypeAdapter[Any]]:
    from google.genai import types

    return {
        name: pydantic.TypeAdapter(eval(form, vars(types) | {"list": list, "dict": dict, "str": str}))
        for name, form in GEMINI_FIELDS.items()
    }


def accept_gemini(native: dict[str, Any]) -> None:
    """Fails when google-genai does not know a field, or knows it of another type."""
    for name, value in native.items():
        gemini_judges()[name].validate_json(msgspec.json.encode(value))


@functools.cache
def claude_judges() -> tuple[pydantic.TypeAdapter[Any], pydantic.TypeAdapter[Any]]:
    from anthropic import types
    from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

    # Typed dictionaries take any further key unless told otherwise.
    for name, module in list(sys.modules.items()):
        if name.startswith("anthropic.types.") and ".beta" not in name:
            for form in filter(is_typeddict, vars(module).values()):
                form.__pydantic_config__ = {"extra": "forbid", "arbitrary_types_allowed": True}
    return pydantic.TypeAdapter(MessageCreateParamsNonStreaming), pydantic.TypeAdapter(types.ContentBlockParam)


def accept_claude(native: dict[str, Any]) -> None:
    """Fails when anthropic does not know a field, or knows it of another type."""
    whole, block = claude_judges()
    body = msgspec.json.decode(msgspec.json.encode(native))
    # The SDK's types are those of the version 2026-10-21, which has no sampling; 2023-06-01 and Vertex's version do.
    assert 0 <= body.pop("temperature", 1) <= 1
    assert 0 <= body.pop("top_p", 1) <= 1
    spent(whole.validate_python({"model": "claude-haiku-4-5", **body}))
    for message in body["messages"]:
        # The SDK also takes its own answers' blocks here, which forbid nothing: so each block is judged again.
        for one in message["content"] if isinstance(message["content"], list) else ():
            spent(block.validate_python(one))


def spent(value: Any) -> None:
    """Walks through the value: pydantic judges an Iterable only when it is read."""
    if isinstance(value, dict):
        for inner in value.values():
            spent(inner)
    elif not isinstance(value, str | pydantic.BaseModel) and hasattr(value, "__iter__"):
        for inner in value:
            spent(inner)
