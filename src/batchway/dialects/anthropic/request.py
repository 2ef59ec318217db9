"""An OpenAI chat request as the body of a message. The caller adds `model` or `anthropic_version`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchway.dialects import chat, reading
from batchway.dialects.anthropic import models
from batchway.dialects.anthropic.messages import Block, conversation
from batchway.dialects.anthropic.schemas import taken
from batchway.dialects.protocol import Refused

JSON_ONLY = "Answer with a single JSON object and nothing else."
CHOICES = {"auto": "auto", "none": "none", "required": "any"}
EFFORTS = {"minimal": "low"}  # the others have the same names


def to_request(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The native body of an admitted chat request."""
    request = reading.read(body)
    messages, system = conversation(request.messages)
    limit = request.limit if request.limit is not None else models.default_max_tokens(model)
    native: dict[str, Any] = {"max_tokens": limit, "messages": messages}
    output: dict[str, Any] = {}
    if request.response_format:
        output |= format_field(request.response_format, system, model)
    if system:
        native["system"] = in_short(system)
    if request.stops:
        native["stop_sequences"] = request.stops
    if request.temperature is not None or request.top_p is not None:
        native |= sampling_fields(request, model)
    if request.tools:
        native |= tool_fields(request)
    if request.reasoning_effort:
        native |= thinking_field(request.reasoning_effort, limit, model)
        if models.thinks_adaptively(model) and request.reasoning_effort != "none":
            output["effort"] = EFFORTS.get(request.reasoning_effort, request.reasoning_effort)
    if output:
        native["output_config"] = output
    user = request.safety_identifier or request.user
    if user:
        native["metadata"] = {"user_id": user}
    return native


def in_short(blocks: list[Block]) -> str | list[Block]:
    """One plain block as a string."""
    return blocks[0]["text"] if len(blocks) == 1 and "cache_control" not in blocks[0] else blocks


def sampling_fields(request: chat.Chat, model: str) -> dict[str, Any]:
    """The temperature and its like, where the model takes them."""
    fields: dict[str, Any] = {}
    for name, value in (("temperature", request.temperature), ("top_p", request.top_p)):
        if value is None:
            continue
        if models.takes_sampling(model):
            if value > 1:
                raise Refused(name, f"Unsupported value: '{name}' is at most 1 with this model.", "unsupported_value")
            fields[name] = value
        elif value != 1:
            says = f"Unsupported value: '{name}' does not support {value} with this model: only the default 1 is taken."
            raise Refused(name, says, "unsupported_value")
    return fields


def format_field(
    wanted: chat.PlainText | chat.JsonObject | chat.JsonSchema, system: list[Block], model: str
) -> dict[str, Any]:
    """The format of the answer; a JSON object without a schema is asked for in `system`."""
    if isinstance(wanted, chat.PlainText):
        return {}
    if isinstance(wanted, chat.JsonObject):
        system.append({"type": "text", "text": JSON_ONLY})
        return {}
    if not models.takes_schema(model):
        says = "Unsupported value: 'response_format' of type 'json_schema' is taken from Claude 4.5 on."
        raise Refused("response_format", says, "unsupported_value")
    schema = wanted.json_schema.schema_
    if schema is None:
        missing = "Missing required parameter: 'response_format.json_schema.schema'."
        raise Refused("response_format.json_schema.schema", missing, "missing_required_parameter")
    return {"format": {"type": "json_schema", "schema": taken(schema, "response_format")}}


def tool_fields(request: chat.Chat) -> dict[str, Any]:
    """The functions and how to choose among them."""
    tools: list[dict[str, Any]] = []
    for function in reading.functions(request):
        schema = function.parameters or {}
        tool: dict[str, Any] = {"name": function.name, "input_schema": {"type": "object", **schema}}
        if function.description:
            tool["description"] = function.description
        if function.strict:
            tool |= {"strict": True, "input_schema": taken(tool["input_schema"], "tools")}
        tools.append(tool)
    fields: dict[str, Any] = {"tools": tools} if tools else {}
    choice = tool_choice(request)
    if choice:
        fields["tool_choice"] = choice
    return fields


def tool_choice(request: chat.Chat) -> dict[str, Any] | None:
    """How to choose; None leaves it to the model, as `auto` would."""
    chosen = reading.chosen(request)
    one_at_a_time = request.parallel_tool_calls is False and chosen != "none"
    if chosen is None and not one_at_a_time:
        return None
    if chosen and chosen.startswith("="):
        choice: dict[str, Any] = {"type": "tool", "name": chosen[1:]}
    else:
        choice = {"type": CHOICES[chosen or "auto"]}
    if one_at_a_time:
        choice["disable_parallel_tool_use"] = True
    return choice


def thinking_field(effort: str, limit: int, model: str) -> dict[str, Any]:
    """How the model thinks."""
    if models.thinks_adaptively(model):
        return {"thinking": {"type": "disabled" if effort == "none" else "adaptive"}}
    if effort == "none":
        return {}
    if not models.thinks(model):
        why = "this model does not think, or its generation is not known by its name"
        raise Refused("reasoning_effort", f"Unsupported parameter: 'reasoning_effort': {why}.")
    if limit <= models.LEAST_BUDGET:
        says = f"Unsupported value: 'reasoning_effort' needs more than {models.LEAST_BUDGET} tokens with this model."
        raise Refused("reasoning_effort", says, "unsupported_value")
    budget = max(models.LEAST_BUDGET, min(models.BUDGETS[effort], limit // 2))  # half is left for the answer
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}
