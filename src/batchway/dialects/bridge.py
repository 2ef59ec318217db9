"""Responses over chat: for dialects that have no responses of their own.

`through` makes a chat body of a responses body and has it translated; `from_chat` makes OpenAI's response of the chat
completion that came back. What only OpenAI keeps (earlier responses, conversations, stored items, hosted tools) is
refused. Read from openai 3.54, November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from batchway.dialects import reading
from batchway.dialects.protocol import Param, Refused, Table, admit, ignored, mapped, refused

LOGPROBS = "message.output_text.logprobs"
STATELESS = "nothing is kept between requests"

# Parameters of both endpoints, and those that have another name in chat: what becomes of them there becomes of them.
SAME = (
    "model metadata moderation parallel_tool_calls prompt_cache_key prompt_cache_options prompt_cache_retention "
    "safety_identifier service_tier store stream stream_options temperature tool_choice tools top_logprobs top_p user"
).split()
RENAMED = {"max_output_tokens": "max_completion_tokens"}
# Fields of a chat body as a client of responses knows them, for refusals.
KNOWN_AS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}

_OWN: Table = {
    "access_programs": refused("a program of OpenAI's"),
    "background": refused("a batch is in the background as it is", False),  # noqa: FBT003 - the harmless value
    "background_options": ignored("a batch has its own window"),
    "context_management": refused(STATELESS, []),
    "conversation": refused(STATELESS),
    "image": refused("an option of OpenAI's"),
    "include": mapped(f"`{LOGPROBS}` asks for logprobs; there is nothing else to include, so the rest is left out"),
    "input": mapped("messages, function calls and their outputs; reasoning is left out, other items are refused"),
    "instructions": mapped("a system message"),
    "max_tool_calls": refused("only OpenAI's hosted tools are counted"),
    "previous_response_id": refused(STATELESS),
    "prompt": refused("prompts are stored at OpenAI"),
    "reasoning": mapped("`effort`: as `reasoning_effort`; a `summary` comes when the model gives one"),
    "text": mapped("`format`: as `response_format`; `verbosity`: as in chat"),
    "truncation": refused("nothing is cut from a prompt", "disabled"),
}


def table(chat_table: Table) -> Table:
    """The parameter table of the responses endpoint of a dialect, from that of its chat endpoint."""
    renamed: dict[str, Param] = {name: chat_table[there] for name, there in RENAMED.items()}
    return {name: chat_table[name] for name in SAME} | renamed | dict(_OWN)


def through(body: Mapping[str, Any], chat_table: Table, to_native: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """What `to_native` makes of the chat form of an admitted responses body; refusals name the fields of responses."""
    bridged = chat_body(body)
    try:
        admit(chat_table, bridged)
        return to_native(bridged)
    except Refused as refusal:
        raise known_as(refusal) from None


def known_as(refusal: Refused) -> Refused:
    """The refusal of a chat body in the words of responses."""
    top = refusal.param.partition(".")[0].partition("[")[0]
    there = KNOWN_AS.get(top)
    if there is None:
        return refusal
    message = refusal.message.replace(f"'{refusal.param}'", f"'{there}'")
    return Refused(there, message, refusal.code)


# The request ----------------------------------------------------------------------------------------------------------


class Item(msgspec.Struct, gc=False):
    """A piece of the input; ids, states and annotations of given-back output are skipped."""


class Words(Item, tag_field="type", tag="input_text"):
    """What the user wrote."""

    text: str


class Said(Item, tag_field="type", tag="output_text"):
    """What the assistant wrote."""

    text: str


class Refusal(Item, tag_field="type", tag="refusal"):
    """What the assistant said instead."""

    refusal: str


class Picture(Item, tag_field="type", tag="input_image"):
    """An image by its URL."""

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class Document(Item, tag_field="type", tag="input_file"):
    """A file, inline, by URL or by id."""

    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None


Piece = Words | Said | Refusal | Picture | Document


class Message(Item):
    """A message of anybody."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Piece]


class Call(Item):
    """A call the model made earlier."""

    call_id: str
    name: str
    arguments: str
    extra_content: dict[str, Any] | None = None


class Output(Item):
    """What the function answered."""

    call_id: str
    output: str | list[Piece]


class Tool(Item):
    """A function, flat."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Text(Item):
    """How to write the answer."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Reasoning(Item):
    """How long to think."""

    effort: str | None = None


def chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The chat form of a responses body."""
    bridged = {name: body[name] for name in SAME if body.get(name) is not None}
    bridged |= {there: body[name] for name, there in RENAMED.items() if body.get(name) is not None}
    bridged["messages"] = messages(body)
    if body.get("reasoning") is not None:
        bridged["reasoning_effort"] = reading.typed(body["reasoning"], Reasoning, "reasoning").effort
    if body.get("text") is not None:
        text = reading.typed(body["text"], Text, "text")
        bridged |= {"response_format": response_format(text.format), "verbosity": text.verbosity}
    if "tools" in bridged:
        tools = reading.typed(bridged["tools"], list[Any], "tools")
        bridged["tools"] = [tool(one, f"tools[{place}]") for place, one in enumerate(tools)]
    if "tool_choice" in bridged:
        bridged["tool_choice"] = tool_choice(bridged["tool_choice"])
    if LOGPROBS in (body.get("include") or ()):
        bridged["logprobs"] = True
    elif "top_logprobs" in bridged:
        bridged["logprobs"] = bool(bridged["top_logprobs"])
    return bridged


def messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The input as chat messages, the instructions first."""
    said: list[dict[str, Any]] = []
    if body.get("instructions") is not None:
        said.append({"role": "system", "content": body["instructions"]})
    given: object = body.get("input")
    if given is None:
        raise Refused("input", "Missing required parameter: 'input'.", "missing_required_parameter")
    if isinstance(given, str):
        return [*said, {"role": "user", "content": given}]
    for place, item in enumerate(reading.typed(given, list[dict[str, Any]], "input")):
        said += item_messages(item, f"input[{place}]")
    return said


def item_messages(item: dict[str, Any], param: str) -> list[dict[str, Any]]:
    """The chat messages of one item: one, or none for reasoning."""
    kind = item.get("type", "message")
    if kind == "reasoning":
        return []
    if kind == "message":
        message = reading.typed(item, Message, param)
        return [{"role": message.role, "content": content(message.content, param)}]
    if kind == "function_call":
        call = reading.typed(item, Call, param)
        made: dict[str, Any] = {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        if call.extra_content:
            made["extra_content"] = call.extra_content
        return [{"role": "assistant", "tool_calls": [made]}]
    if kind == "function_call_output":
        output = reading.typed(item, Output, param)
        return [{"role": "tool", "tool_call_id": output.call_id, "content": content(output.output, param)}]
    raise Refused(f"{param}.type", f"Items of type '{kind}' cannot be expressed for this model.", "unsupported_value")


def content(given: str | list[Piece], param: str) -> str | list[dict[str, Any]]:
    """The content of a message, piece by piece."""
    if isinstance(given, str):
        return given
    return [piece_part(piece, f"{param}.content[{number}]") for number, piece in enumerate(given)]


def piece_part(piece: Piece, param: str) -> dict[str, Any]:
    """A piece as a part of a chat message."""
    if isinstance(piece, Words | Said):
        return {"type": "text", "text": piece.text}
    if isinstance(piece, Refusal):
        return {"type": "refusal", "refusal": piece.refusal}
    if isinstance(piece, Picture):
        if piece.image_url is None:
            raise Refused(f"{param}.file_id", "Images are taken by 'image_url' only.", "unsupported_value")
        return {"type": "image_url", "image_url": {"url": piece.image_url}}
    file = {"file_data": piece.file_data, "file_id": piece.file_id or piece.file_url, "filename": piece.filename}
    return {"type": "file", "file": {name: value for name, value in file.items() if value is not None}}


def response_format(wanted: dict[str, Any] | None) -> dict[str, Any] | None:
    """The format of the text; a schema stands one level deeper in chat."""
    if wanted is None or wanted.get("type") != "json_schema":
        return wanted
    return {"type": "json_schema", "json_schema": {name: value for name, value in wanted.items() if name != "type"}}


def tool(given: object, param: str) -> dict[str, Any]:
    """A function in chat's form."""
    form = reading.typed(given, dict[str, Any], param)
    if form.get("type") != "function":
        raise Refused(f"{param}.type", "Only tools of type 'function' can be offered.", "unsupported_value")
    function = reading.typed(form, Tool, param)
    named = {"description": function.description, "parameters": function.parameters, "strict": function.strict}
    told = {name: value for name, value in named.items() if value is not None}
    return {"type": "function", "function": {"name": function.name, **told}}


def tool_choice(choice: object) -> Any:
    """The choice in chat's form."""
    if isinstance(choice, str):
        return choice
    form = reading.typed(choice, dict[str, Any], "tool_choice")
    if form.get("type") == "function":
        return {"type": "function", "function": {"name": form.get("name")}}
    if form.get("type") == "allowed_tools":
        tools = [tool_choice(one) for one in reading.typed(form.get("tools"), list[Any], "tool_choice.tools")]
        return {"type": "allowed_tools", "allowed_tools": {"mode": form.get("mode"), "tools": tools}}
    raise Refused("tool_choice.type", "Only tools of type 'function' can be chosen.", "unsupported_value")
