"""Strategies for OpenAI chat and responses requests: every field of the official types, sound and less sound values."""

from __future__ import annotations

import json

from hypothesis import strategies as st

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
name = st.sampled_from(["f", "get_weather", "g-1"])
call_id = st.sampled_from(["call_1", "call_2", "call:3", "x-41", "ä"])
schema = st.sampled_from([
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"oneOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]}}},
    {"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": ["object", "null"]}}, "minItems": 4},
])  # fmt: skip


def optional(required: dict[str, st.SearchStrategy], **fields: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries(required, optional=fields)


breakpoint_ = optional({"mode": st.just("explicit")}, ttl=st.sampled_from(["30m", "12h"]))
text = optional({"type": st.just("text"), "text": words}, prompt_cache_breakpoint=breakpoint_)
url = st.sampled_from([
    "data:image/png;base64,QUJD", "gs://b/a.png", "gs://b/a", "https://x.org/a.jpg", "https://youtu.be/abc", "data:,x",
    "",
])  # fmt: skip
image = st.fixed_dictionaries({
    "type": st.just("image_url"),
    "image_url": optional({"url": url}, detail=st.sampled_from(["auto", "low", "high"])),
})  # fmt: skip
audio = st.fixed_dictionaries({
    "type": st.just("input_audio"),
    "input_audio": st.fixed_dictionaries({"data": st.just("QUJD"), "format": st.sampled_from(["wav", "mp3"])}),
})  # fmt: skip
file = st.fixed_dictionaries({
    "type": st.just("file"),
    "file": optional(
        {},
        file_data=st.sampled_from(["data:application/pdf;base64,QUJD", "QUJD", "data:text/plain;base64,QUJD"]),
        file_id=st.sampled_from(["file-1", "gs://b/x.pdf", "https://x.org/x.pdf"]),
        filename=st.sampled_from(["x.pdf", "x", "x.txt"]),
    ),
})  # fmt: skip
given = st.sampled_from(["{}", '{"a": [1, "b"]}', "", "[", "3"])
called = st.fixed_dictionaries({
    "id": call_id,
    "type": st.just("function"),
    "function": st.fixed_dictionaries({"name": name, "arguments": given}),
})  # fmt: skip
said = words | st.lists(text, max_size=2)
message = st.one_of(
    optional({"role": st.sampled_from(["system", "developer"]), "content": said}, name=name),
    optional(
        {"role": st.just("user"), "content": words | st.lists(text | image | audio | file, max_size=3)}, name=name
    ),
    optional(
        {"role": st.just("assistant"), "content": said | st.none()},
        tool_calls=st.lists(called, min_size=1, max_size=2),
        refusal=st.none() | words,
        annotations=st.just([]),
        audio=st.none(),
        function_call=st.none(),
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": call_id, "content": said | st.just('{"a": 1}')}),
    st.just({"role": "function", "name": "f", "content": "x"}),
)
function = optional({"name": name}, description=words, parameters=schema | st.just({}), strict=st.booleans())
tool = st.fixed_dictionaries({"type": st.just("function"), "function": function}) | st.just(
    {"type": "custom", "custom": {"name": "c"}}
)
named = st.fixed_dictionaries({"type": st.just("function"), "function": st.fixed_dictionaries({"name": name})})
allowed = st.fixed_dictionaries({
    "type": st.just("allowed_tools"),
    "allowed_tools": st.fixed_dictionaries(
        {"mode": st.sampled_from(["auto", "required"]), "tools": st.lists(named, max_size=2)}
    ),
})  # fmt: skip
schema_format = st.fixed_dictionaries({
    "type": st.just("json_schema"),
    "json_schema": optional({"name": name}, schema=schema, strict=st.booleans(), description=words),
})  # fmt: skip

# Parameters whose values say little; each may also be null.
PLAIN = {
    "audio": st.just({"voice": "alloy", "format": "mp3"}),
    "frequency_penalty": st.sampled_from([0, 0.5]),
    "function_call": st.sampled_from(["auto", {"name": "f"}]),
    "functions": st.sampled_from([[], [{"name": "f"}]]),
    "logit_bias": st.sampled_from([{}, {"5": 1}]),
    "logprobs": st.booleans(),
    "max_completion_tokens": st.sampled_from([1, 2000, 1 << 70]),
    "max_tokens": st.integers(1, 9000),
    "metadata": st.dictionaries(words, words, max_size=2),
    "modalities": st.sampled_from([["text"], ["text", "audio"]]),
    "moderation": st.just({"model": "m"}),
    "n": st.sampled_from([1, 2]),
    "parallel_tool_calls": st.booleans(),
    "prediction": st.just({"type": "content", "content": "x"}),
    "presence_penalty": st.sampled_from([0, -0.5]),
    "prompt_cache_key": words,
    "prompt_cache_options": st.just({"mode": "implicit"}),
    "prompt_cache_retention": st.just("24h"),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]) | schema_format,
    "safety_identifier": words,
    "seed": st.sampled_from([1, -5, 1 << 40]),
    "service_tier": st.just("flex"),
    "stop": words | st.lists(words, max_size=3),
    "store": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.just({"include_usage": True}),
    "temperature": st.sampled_from([0, 0.7, 1, 2]),
    "tool_choice": st.sampled_from(["none", "auto", "required"]) | named | allowed,
    "tools": st.lists(tool, max_size=2),
    "top_logprobs": st.integers(0, 5),
    "top_p": st.sampled_from([0.1, 1]),
    "user": words,
    "verbosity": st.sampled_from(["low", "medium"]),
    "web_search_options": st.just({}),
}
OFTEN = ("max_tokens", "temperature", "tools", "tool_choice", "response_format", "reasoning_effort", "stop")


sound_words = words.filter(bool)
sound_image = st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}})
sound_file = st.just({"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "x.pdf"}})
sound_user = st.fixed_dictionaries({
    "role": st.just("user"),
    "content": sound_words | st.lists(text | sound_image | sound_file, min_size=1, max_size=3),
})  # fmt: skip
round_of_tools = st.fixed_dictionaries({"id": call_id, "name": name, "content": said}).map(
    lambda one: [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": '{"a":1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": one["id"], "content": one["content"]},
    ]
)
turn = st.one_of(
    sound_user.map(lambda one: [one]),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": said}).map(lambda one: [one]),
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": said}).map(lambda one: [one]),
    round_of_tools,
)
conversation = st.tuples(sound_words, st.lists(turn, max_size=4)).map(
    lambda both: [{"role": "user", "content": both[0]}, *(message for one in both[1] for message in one)]
)


@st.composite
def chat_requests(draw: st.DrawFn) -> dict:
    """A request with a few parameters; nothing shared between its parts, as after decoding JSON."""
    chosen = draw(st.lists(st.sampled_from(OFTEN) | st.sampled_from(sorted(PLAIN)), max_size=4, unique=True))
    unsound = draw(st.integers(0, 3)) == 0
    body = {"model": "m", "messages": draw(st.lists(message, min_size=1, max_size=5) if unsound else conversation)}
    for parameter in chosen:
        body[parameter] = draw(st.none() | PLAIN[parameter] if draw(st.booleans()) else PLAIN[parameter])
    return json.loads(json.dumps(body))
