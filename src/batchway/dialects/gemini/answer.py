"""A GenerateContentResponse as OpenAI's chat completion.

Nothing in an answer makes this fail but a field of another type: unknown finish reasons, parts and fields pass, missing
ones have defaults. Google leaves out zeros. A blocked prompt is an answer without content, so that its usage is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from batchway.dialects import completion

# Everything else is `stop`. Vertex's reasons, google-genai 3.4, November 2026.
FINISH = {
    "MAX_TOKENS": "length", "CONTINUATION": "length",
} | dict.fromkeys(
    ["SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "OTHER",
     "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_OTHER", "IMAGE_RECITATION", "NO_IMAGE", "ESCALATION"],
    "content_filter",
)  # fmt: skip

MODALITIES = {"TEXT": "text_tokens", "IMAGE": "image_tokens", "AUDIO": "audio_tokens"}


class Native(msgspec.Struct, gc=False, rename="camel"):
    """A part of an answer; fields not named are skipped."""


class Call(Native):
    """A call of a function."""

    name: str = ""
    id: str | None = None
    args: dict[str, Any] | None = None


class Blob(Native):
    """Bytes in base64."""

    mime_type: str = ""
    data: str = ""


class Part(Native):
    """A piece of content."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: Call | None = None
    inline_data: Blob | None = None


class Content(Native):
    """What was said."""

    parts: list[Part] | None = None


class Logprob(Native):
    """One token; a probability of 1 has logarithm 0, which is left out."""

    token: str = ""
    log_probability: float = 0.0


class TopLogprobs(Native):
    """The likeliest tokens at a place."""

    candidates: list[Logprob] | None = None


class Logprobs(Native):
    """Those chosen and those considered."""

    chosen_candidates: list[Logprob] | None = None
    top_candidates: list[TopLogprobs] | None = None


class Candidate(Native):
    """One answer."""

    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = None
    logprobs_result: Logprobs | None = None


class Tokens(Native):
    """Tokens of one modality."""

    modality: str = ""
    token_count: int = 0


class Usage(Native):
    """Counts of tokens; the prompt's include the cached ones, not those of tools."""

    prompt_token_count: int = 0
    cached_content_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    total_token_count: int | None = None
    prompt_tokens_details: list[Tokens] | None = None
    tool_use_prompt_tokens_details: list[Tokens] | None = None
    candidates_tokens_details: list[Tokens] | None = None


class Feedback(Native):
    """Why a prompt was not answered."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class Answer(Native):
    """The whole."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: Usage | None = None
    model_version: str | None = None
    create_time: str | None = None
    response_id: str | None = None


_encode = msgspec.json.Encoder().encode


def from_answer(native: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The chat completion of an answer."""
    answer = msgspec.convert(native, Answer, strict=False)  # not strict: int64 travel as strings
    answer_id = answer.response_id or ""
    choices = [
        choice_of(candidate, place if candidate.index is None else candidate.index, answer_id)
        for place, candidate in enumerate(answer.candidates or ())
    ]
    return completion.completion(
        f"chatcmpl-{answer_id}",
        answer.model_version or model,
        choices or [blocked(answer.prompt_feedback)],
        created=unix(answer.create_time),
        usage=usage_of(answer.usage_metadata or Usage()),
    )


def choice_of(candidate: Candidate, index: int, answer_id: str) -> dict[str, Any]:
    """One choice."""
    parts = (candidate.content.parts if candidate.content else None) or ()
    said = [part.text for part in parts if part.text is not None and not part.thought]
    thought = [part.text for part in parts if part.text is not None and part.thought]
    calls = [part for part in parts if part.function_call]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said) if said else None, "refusal": None}
    finish = FINISH.get(candidate.finish_reason or "", "stop")
    if thought:
        message["reasoning_content"] = "".join(thought)
    if calls:
        message["tool_calls"] = [call_of(part, f"{answer_id}_{index}_{n}") for n, part in enumerate(calls)]
        finish = "tool_calls" if finish == "stop" else finish
    images = [part.inline_data for part in parts if part.inline_data]
    if images:
        message["images"] = [image_of(image) for image in images]
    if finish == "content_filter" and not said:
        message["refusal"] = candidate.finish_message or f"The answer was blocked: {candidate.finish_reason}."
    return completion.choice(index, message, finish, logprobs_of(candidate.logprobs_result))


def call_of(part: Part, place: str) -> dict[str, Any]:
    """A tool call. Its id is Google's, else made of its place; its signature is given out, to be given back."""
    call = part.function_call or Call()
    made = completion.tool_call(call.id or f"call_{place}", call.name, _encode(call.args or {}).decode())
    if part.thought_signature:
        made["extra_content"] = {"google": {"thought_signature": part.thought_signature}}
    return made


def image_of(image: Blob) -> dict[str, Any]:
    """A picture of the answer, in the form that others use too: OpenAI's chat has none."""
    return {"type": "image_url", "image_url": {"url": f"data:{image.mime_type};base64,{image.data}"}}


def blocked(feedback: Feedback | None) -> dict[str, Any]:
    """The choice of an answer without candidates."""
    why = completion.NO_CONTENT
    if feedback and feedback.block_reason:
        why = feedback.block_reason_message or f"The prompt was blocked: {feedback.block_reason}."
    return completion.choice(0, {"role": "assistant", "content": None, "refusal": why}, "content_filter")


def logprobs_of(result: Logprobs | None) -> dict[str, Any] | None:
    """The logarithms of probabilities, token by token."""
    if result is None or result.chosen_candidates is None:
        return None
    tops = result.top_candidates or []
    content: list[dict[str, Any]] = []
    for place, one in enumerate(result.chosen_candidates):
        around = (tops[place].candidates if place < len(tops) else None) or ()
        content.append(token_of(one) | {"top_logprobs": [token_of(top) for top in around]})
    return {"content": content, "refusal": None}


def token_of(one: Logprob) -> dict[str, Any]:
    """One token."""
    return {"token": one.token, "logprob": one.log_probability, "bytes": list(one.token.encode())}


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens. Those of tools are part of the prompt, thoughts part of the completion."""
    prompt = usage.prompt_token_count + usage.tool_use_prompt_token_count
    answered = usage.candidates_token_count + usage.thoughts_token_count
    asked = [*(usage.prompt_tokens_details or ()), *(usage.tool_use_prompt_tokens_details or ())]
    return completion.wire_usage(
        completion.Usage(
            prompt,
            answered,
            prompt + answered if usage.total_token_count is None else usage.total_token_count,
            {"cached_tokens": usage.cached_content_token_count, **by_modality(asked)},
            {
                "reasoning_tokens": usage.thoughts_token_count,
                **by_modality(usage.candidates_tokens_details or ()),
            },
        )
    )


def by_modality(counted: Sequence[Tokens]) -> dict[str, int]:
    """Tokens by OpenAI's names of modalities; films and documents have none, and stand in the sum alone."""
    sums: dict[str, int] = {}
    for tokens in counted:
        name = MODALITIES.get(tokens.modality)
        if name:
            sums[name] = sums.get(name, 0) + tokens.token_count
    return sums


def unix(time: str | None) -> int:
    """Seconds since 1970 of a time such as 2026-11-01T10:00:00.123456789Z; 0 when there is none to read."""
    try:
        return int(datetime.fromisoformat((time or "")[:19]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return 0
