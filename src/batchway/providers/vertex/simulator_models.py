"""What simulated models on Vertex answer: one request in, its response out, or the text of a failed row; pure.

Invariant: the same request gives the same answer however it is spelled, whatever its labels are. The shapes are those
of GenerateContentResponse, EmbedContentResponse (discovery `aiplatform.v1`, revision of November 2026) and Anthropic's
Message; `samples/` holds some by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import msgspec

from batchway.providers.shared.simulation import Answer, Dice, answer
from batchway.providers.vertex.simulator_http import listed, table

Json = dict[str, Any]

_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_FIELDS = frozenset(
    (
        "contents systemInstruction tools toolConfig generationConfig safetySettings labels cachedContent "
        "modelArmorConfig"
    ).split()
)
_CONFIG = frozenset(
    (
        "temperature topP topK candidateCount maxOutputTokens stopSequences responseLogprobs logprobs presencePenalty "
        "frequencyPenalty seed responseMimeType responseSchema responseJsonSchema responseFormat routingConfig "
        "audioTimestamp responseModalities mediaResolution speechConfig thinkingConfig imageConfig"
        " enableAffectiveDialog"
    ).split()
)
_PART = frozenset(
    (
        "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult thought "
        "thoughtSignature videoMetadata mediaResolution toolCall toolResponse partMetadata"
    ).split()
)
_STATUS_NAMES = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
_SERVER_NAMES = {500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


class Asked(NamedTuple):
    """A request as the answers need it; `now` in virtual unix seconds."""

    request: Json
    model: str
    found: Answer
    now: float


class Invalid(Exception):
    """A request that the model refuses."""


def failure(status: int, message: str) -> str:
    """The `status` of a failed row: an error as JSON behind its class, as Vertex words most of them."""
    name = {**_STATUS_NAMES, **_SERVER_NAMES}.get(status, "INTERNAL")
    error = msgspec.json.encode({"error": {"code": status, "message": message, "status": name}}).decode()
    return f"{'Bad Request' if status == 400 else 'Error'}: {error}"


def respond(request: Json, model: str, dice: Dice, now: float) -> Json:
    """The response; Invalid when the model would refuse the request."""
    plain = {name: value for name, value in request.items() if name != "labels"}
    raw = msgspec.json.encode(plain, order="sorted")
    family = "claude" if "claude" in model else "embedding" if "embedding" in model else "gemini"
    limit: int | None = (
        request.get("max_tokens") if family == "claude" else request.get("generationConfig", {}).get("maxOutputTokens")
    )
    _CHECKS[family](request)
    thinks = family == "gemini" and bool(re.search(r"gemini-(2\.5|[3-9])", model)) and "lite" not in model
    found = answer(dice.digest(raw), len(raw), max_tokens=limit, reasons=thinks)
    return _ANSWERS[family](Asked(request, model.rpartition("/")[2], found, now))


def trigger(request: Json) -> str | None:
    """What a row wishes for itself: `labels.simulate` of Gemini, `metadata.user_id` = `simulate-...` of Claude."""
    word: object = table(request, "labels").get("simulate")
    if isinstance(word, str):
        return word
    user: object = table(request, "metadata").get("user_id")
    return user.removeprefix("simulate-") if isinstance(user, str) and user.startswith("simulate-") else None


def blocked(model: str, now: float) -> Json:
    """The response to a prompt that a filter stopped: no candidates, and no error in the row."""
    usage = {"promptTokenCount": 8, "totalTokenCount": 8}
    feedback = {"blockReason": "PROHIBITED_CONTENT"}
    return {"promptFeedback": feedback, "usageMetadata": usage, "modelVersion": model, "createTime": stamp(now)}


def stamp(moment: float) -> str:
    """RFC 3339 with nine decimals, as Google writes it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def _check_gemini(request: Json) -> None:
    _known(request, _FIELDS, "")
    contents: Any = request.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Invalid("Unable to submit request because it must have at least one contents field.")
    for place, content in enumerate(cast("list[Json]", contents)):
        if content.get("role", "user") not in ("user", "model", "function"):
            raise Invalid("Please use a valid role: user, model.")
        if not content.get("parts"):
            raise Invalid("Unable to submit request because it must include at least one parts field.")
        for part in content["parts"]:
            _known(part, _PART, f"contents[{place}].parts.")
    if contents[0].get("role", "user") != "user":
        raise Invalid("Please ensure that multiturn requests begin with a user role.")
    config = table(request, "generationConfig")
    _known(config, _CONFIG, "generation_config.")
    _within(config, "candidateCount", 1, 8)
    _within(config, "temperature", 0, 2)
    _within(config, "topP", 0, 1)
    _within(config, "maxOutputTokens", 1, 1 << 20)
    if len(listed(config, "stopSequences")) > 5:
        raise Invalid("The maximum number of stop sequences is 5.")
    for label, value in table(request, "labels").items():
        if not (_LABEL.fullmatch(label) and isinstance(value, str) and _LABEL_VALUE.fullmatch(value)):
            raise Invalid(f"Invalid label: {label}.")


def _check_claude(request: Json) -> None:
    if request.get("anthropic_version") != "vertex-2023-10-16":
        raise Invalid("anthropic_version: Field required")
    if not isinstance(request.get("max_tokens"), int) or request["max_tokens"] < 1:
        raise Invalid("max_tokens: Field required")
    if not isinstance(request.get("messages"), list) or not request["messages"]:
        raise Invalid("messages: at least one message is required")
    if "model" in request or request.get("stream"):
        raise Invalid("model, stream: Extra inputs are not permitted")


def _check_embedding(request: Json) -> None:
    content: Any = request.get("content") or ""
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content.get("parts") or ())
    if not text:
        raise Invalid("The text content is empty.")
    _within(request, "output_dimensionality", 1, 3072)


def _known(table: Mapping[str, Any], names: frozenset[str], place: str) -> None:
    for name in table:
        if name not in names:
            raise Invalid(f'Invalid JSON payload received. Unknown name "{place}{name}": Cannot find field.')


def _within(table: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = table.get(name)
    if value is not None and not low <= value <= high:
        raise Invalid(f"Unable to submit request because {name} must be from {low} to {high}, but got {value}.")


def _gemini(asked: Asked) -> Json:
    config = table(asked.request, "generationConfig")
    found = asked.found
    count = int(config.get("candidateCount") or 1)
    usage: Json = {
        "promptTokenCount": found.input_tokens,
        "candidatesTokenCount": (found.output_tokens - found.reasoning_tokens) * count,
        "thoughtsTokenCount": found.reasoning_tokens,
        "cachedContentTokenCount": found.cached_tokens,
        "totalTokenCount": found.input_tokens
        + (found.output_tokens - found.reasoning_tokens) * count
        + found.reasoning_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": found.input_tokens}],
        "trafficType": "ON_DEMAND",
    }
    return {
        "candidates": [_candidate(asked, config, index) for index in range(count)],
        "usageMetadata": {name: value for name, value in usage.items() if value != 0},  # as Google leaves zeros out
        "modelVersion": asked.model,
        "createTime": stamp(asked.now),
        "responseId": asked.found.digest[:22],
    }


def _candidate(asked: Asked, config: Json, index: int) -> Json:
    parts, cut = _parts(asked, config), asked.found.cut
    content = {"role": "model", "parts": parts} if parts else {"role": "model"}
    candidate: Json = {"content": content, "finishReason": "MAX_TOKENS" if cut else "STOP"}
    if index:
        candidate["index"] = index
    if not cut:
        candidate["avgLogprobs"] = -0.25
    if config.get("responseLogprobs"):
        words = asked.found.text.split()[:8] or ["."]
        chosen = [{"token": word, "tokenId": len(word), "logProbability": -0.25} for word in words]
        top = [{"candidates": [each] * max(1, config.get("logprobs") or 1)} for each in chosen]
        candidate["logprobsResult"] = {"chosenCandidates": chosen, "topCandidates": top}
    return candidate


def _parts(asked: Asked, config: Json) -> list[Json]:
    calling = table(table(asked.request, "toolConfig"), "functionCallingConfig")
    declared = [each for tool in listed(asked.request, "tools") for each in listed(tool, "functionDeclarations")]
    if declared and calling.get("mode") == "ANY":
        names = listed(calling, "allowedFunctionNames") or [declared[0]["name"]]
        chosen = next((each for each in declared if each["name"] in names), declared[0])
        schema = chosen.get("parametersJsonSchema") or chosen.get("parameters") or {"type": "object"}
        return [{"functionCall": {"name": chosen["name"], "args": instance(schema, asked.found.text, schema)}}]
    if config.get("responseMimeType") == "application/json" and not asked.found.cut:
        schema = config.get("responseJsonSchema") or config.get("responseSchema") or {"type": "object"}
        return [{"text": msgspec.json.encode(instance(schema, asked.found.text, schema)).decode()}]
    return [{"text": asked.found.text}] if asked.found.text else []  # thinking may have used all tokens up


def instance(schema: Any, text: str, root: Any, depth: int = 0) -> Any:
    """A value that a JSON schema accepts, with every property; `root` resolves its `$ref`s."""
    if not isinstance(schema, dict) or depth > 8:
        return text
    form = cast("Json", schema)
    if (chosen := _chosen(form, root)) is not None:
        return instance(chosen, text, root, depth + 1)
    if "const" in form or form.get("enum"):
        return form["const"] if "const" in form else form["enum"][0]
    kinds = listed(form, "type") or [form.get("type", "object" if "properties" in form else "string")]
    kind = str(kinds[0]).lower()
    if kind == "object":
        return {name: instance(each, text, root, depth + 1) for name, each in table(form, "properties").items()}
    if kind == "array":
        return [instance(form.get("items"), text, root, depth + 1)] * max(1, int(form.get("minItems") or 1))
    plain: Json = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    return plain.get(kind, text)


def _chosen(form: Json, root: Any) -> Any:
    """What a schema stands for that only names another one, or leaves a choice."""
    if "$ref" in form:
        target: Any = root
        for name in str(form["$ref"]).removeprefix("#/").split("/"):
            target = target[name]
        return target
    return next((form[word][0] for word in ("anyOf", "oneOf", "allOf") if form.get(word)), None)


def _claude(asked: Asked) -> Json:
    found = asked.found
    content: list[Json] = [{"type": "text", "text": found.text}]
    reason = "max_tokens" if found.cut else "end_turn"
    choice = table(asked.request, "tool_choice")
    tools = listed(asked.request, "tools")
    if tools and choice.get("type") in ("any", "tool"):
        tool = next((each for each in tools if each.get("name") == choice.get("name")), tools[0])
        schema = table(tool, "input_schema")
        call = {"id": f"toolu_vrtx_{found.digest[:24]}", "name": tool.get("name")}
        content, reason = [{"type": "tool_use", **call, "input": instance(schema, found.text, schema)}], "tool_use"
    form = table(table(asked.request, "output_config"), "format") or table(asked.request, "output_format")
    if form and reason == "end_turn":
        schema = table(form, "schema")
        content = [{"type": "text", "text": msgspec.json.encode(instance(schema, found.text, schema)).decode()}]
    return {
        "id": f"msg_vrtx_{found.digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": asked.model.partition("@")[0],
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": found.input_tokens - found.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": found.cached_tokens,
            "output_tokens": found.output_tokens,
        },
    }


def _embedding(asked: Asked) -> Json:
    size = asked.request.get("output_dimensionality") or 768
    raw = [math.sin(int(asked.found.digest[i % 60 : i % 60 + 4], 16) + i) for i in range(size)]
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    tokens = asked.found.input_tokens
    return {"embedding": {"values": [value / length for value in raw]}, "usageMetadata": {"promptTokenCount": tokens}}


_CHECKS: Mapping[str, Callable[[Json], None]] = {
    "gemini": _check_gemini,
    "claude": _check_claude,
    "embedding": _check_embedding,
}
_ANSWERS: Mapping[str, Callable[[Asked], Json]] = {"gemini": _gemini, "claude": _claude, "embedding": _embedding}
