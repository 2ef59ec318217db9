"""An OpenAI chat request as a GenerateContentRequest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batchway.dialects import chat, reading
from batchway.dialects.gemini.contents import conversation
from batchway.dialects.gemini.models import thinking
from batchway.dialects.protocol import Refused

MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
MAX_LABELS = 63  # of 64: one is left for the name of the row


def to_request(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The native body of an admitted chat request."""
    request = reading.read(body)
    contents, system = conversation(request.messages, model)
    native: dict[str, Any] = {"contents": contents}
    if system:
        native["systemInstruction"] = {"parts": system}
    config = generation_config(request, model)
    if config:
        native["generationConfig"] = config
    if request.tools:
        native |= tool_fields(request)
    if request.safety_settings:
        native["safetySettings"] = request.safety_settings
    if request.metadata:
        native["labels"] = labels(request.metadata)
    return native


def generation_config(request: chat.Chat, model: str) -> dict[str, Any]:
    """The `generationConfig`, without what was not asked for."""
    asked: dict[str, Any] = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.limit,
        "candidateCount": request.n,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "stopSequences": request.stops or None,
    }
    config = {name: value for name, value in asked.items() if value is not None}
    if request.seed is not None and not -(1 << 31) <= request.seed < 1 << 31:
        raise Refused("seed", "Invalid 'seed': it must fit into 32 bits for this model.", "invalid_value")
    if request.logprobs:
        config["responseLogprobs"] = True
        if request.top_logprobs:
            config["logprobs"] = request.top_logprobs
    elif request.top_logprobs:
        raise Refused("top_logprobs", "Invalid 'top_logprobs': it needs 'logprobs' to be true.", "invalid_value")
    if request.reasoning_effort:
        thought = thinking(model, request.reasoning_effort)
        if thought:
            config["thinkingConfig"] = thought
    if request.response_format:
        config |= format_fields(request.response_format)
    return config


def format_fields(wanted: chat.PlainText | chat.JsonObject | chat.JsonSchema) -> dict[str, Any]:
    """The part of the config about the form of the answer."""
    if isinstance(wanted, chat.PlainText):
        return {}
    fields: dict[str, Any] = {"responseMimeType": "application/json"}
    if isinstance(wanted, chat.JsonSchema) and wanted.json_schema.schema_ is not None:
        fields["responseJsonSchema"] = wanted.json_schema.schema_
    return fields


def tool_fields(request: chat.Chat) -> dict[str, Any]:
    """The functions and how to choose among them."""
    declared: list[dict[str, Any]] = []
    for function in reading.functions(request):
        declaration: dict[str, Any] = {"name": function.name}
        if function.description:
            declaration["description"] = function.description
        if function.parameters:
            declaration["parametersJsonSchema"] = function.parameters
        declared.append(declaration)
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]} if declared else {}
    choice = reading.chosen(request)
    if choice and choice.startswith("="):
        fields["toolConfig"] = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice[1:]]}}
    elif choice:
        fields["toolConfig"] = {"functionCallingConfig": {"mode": MODES[choice]}}
    return fields


def labels(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata as Google Cloud labels: lower case, `[a-z0-9_-]`, 63 characters, keys begin with a letter."""
    if len(metadata) > MAX_LABELS:
        raise Refused("metadata", f"Invalid 'metadata': at most {MAX_LABELS} pairs.", "invalid_value")
    return {label_key(key): fit(value)[:63] for key, value in metadata.items()}


def label_key(key: str) -> str:
    """A key that begins with a letter."""
    fitted = fit(key)
    return (fitted if fitted[:1].isalpha() else f"k{fitted}")[:63]


def fit(text: str) -> str:
    """The text in the characters of labels."""
    return re.sub("[^a-z0-9_-]", "_", text.lower())
