"""OpenAI's messages as Claude's.

System and developer words become `system`. Neighbours of one role are one message, the user's with the results of tools
first. The first message is the user's. Empty words are left out: Claude refuses them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from batchway.dialects import chat, reading
from batchway.dialects.protocol import Refused

Block = dict[str, Any]

IMAGE_KINDS = ("image/jpeg", "image/png", "image/gif", "image/webp")
TOOL_ID = re.compile(r"(?!x-)[a-zA-Z0-9_-]+")


class Conversation(NamedTuple):
    """What was said, and the blocks of `system`."""

    messages: list[dict[str, Any]]
    system: list[Block]


def conversation(given: list[chat.Message]) -> Conversation:
    """The messages, alternating."""
    messages: list[dict[str, Any]] = []
    system: list[Block] = []
    results = 0  # of tools, at the head of the last message
    for place, message in enumerate(given):
        if isinstance(message, chat.System | chat.Developer):
            system += text_blocks(message.content)
            continue
        role, blocks = blocks_of(message, place)
        if not blocks:
            continue
        if not messages or messages[-1]["role"] != role:
            messages.append({"role": role, "content": blocks})
            results = len(blocks) if isinstance(message, chat.ToolResult) else 0
        elif isinstance(message, chat.ToolResult):
            messages[-1]["content"][results:results] = blocks
            results += len(blocks)
        else:
            messages[-1]["content"] += blocks
    reading.speakers_first(messages[0]["role"] if messages else None)
    for message in messages:
        content = message["content"]
        if len(content) == 1 and content[0].keys() == {"type", "text"}:
            message["content"] = content[0]["text"]  # the short form, a third of the bytes
    return Conversation(messages, system)


def blocks_of(message: chat.Message, place: int) -> tuple[str, list[Block]]:
    """The role and the blocks of a message."""
    if isinstance(message, chat.User):
        return "user", user_blocks(message, place)
    if isinstance(message, chat.Assistant):
        return "assistant", assistant_blocks(message, place)
    if isinstance(message, chat.ToolResult):
        result: Block = {"type": "tool_result", "tool_use_id": tool_id(message.tool_call_id)}
        blocks = text_blocks(message.content)
        if blocks:
            result["content"] = message.content if isinstance(message.content, str) else blocks
        return "user", [result]
    raise Refused(f"messages[{place}].role", "Messages of role 'function' are not taken: use 'tool'.")


def text_blocks(content: str | list[chat.Text]) -> list[Block]:
    """Words, with their cache breakpoints."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [cached({"type": "text", "text": part.text}, part.prompt_cache_breakpoint) for part in content if part.text]


def cached(block: Block, point: chat.CacheBreakpoint | None) -> Block:
    """The block, ending a cached prefix when a breakpoint says so: an hour is the longest there is."""
    if point:
        block["cache_control"] = {"type": "ephemeral", "ttl": "1h"} if point.ttl else {"type": "ephemeral"}
    return block


def user_blocks(message: chat.User, place: int) -> list[Block]:
    """What a user said and showed."""
    content = message.content
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks: list[Block] = []
    for number, part in enumerate(content):
        param = f"messages[{place}].content[{number}]"
        if isinstance(part, chat.Text):
            if not part.text:
                continue
            block: Block = {"type": "text", "text": part.text}
        elif isinstance(part, chat.Image):
            block = {"type": "image", "source": image_source(part.image_url.url, f"{param}.image_url.url")}
        elif isinstance(part, chat.File):
            block = document(part.file, f"{param}.file")
        else:
            raise Refused(f"{param}.type", "Sounds cannot be given to this model.", "unsupported_value")
        blocks.append(cached(block, part.prompt_cache_breakpoint))
    return blocks


def image_source(url: str, param: str) -> dict[str, Any]:
    """Where a picture is: here, or on the web."""
    inline = reading.data_url(url, param)
    if inline:
        if inline.kind not in IMAGE_KINDS:
            raise Refused(param, f"Invalid '{param}': an image is one of {', '.join(IMAGE_KINDS)}.", "invalid_value")
        return {"type": "base64", "media_type": inline.kind, "data": inline.data}
    if not url.startswith(("https://", "http://")):
        raise Refused(param, f"Invalid '{param}': a data URL or an https address is needed.", "invalid_value")
    return {"type": "url", "url": url}


def document(file: chat.FileData, param: str) -> Block:
    """A PDF or a text."""
    block: Block = {"type": "document", "source": document_source(file, param)}
    if file.filename:
        block["title"] = file.filename
    return block


def document_source(file: chat.FileData, param: str) -> dict[str, Any]:
    """The bytes of a document, or its address (as `file_id`)."""
    if file.file_data is None:
        address = file.file_id or ""
        if not address.startswith("https://"):
            param = f"{param}.file_id"
            wanted = "files of another service cannot be read; a data URL or an https address is needed"
            raise Refused(param, f"Invalid '{param}': {wanted}.", "invalid_value")
        return {"type": "url", "url": address}
    param = f"{param}.file_data"
    inline = reading.data_url(file.file_data, param)
    if inline is None and (file.filename or "").lower().endswith(".pdf"):
        inline = reading.DataUrl("application/pdf", file.file_data)
    if inline and inline.kind == "application/pdf":
        return {"type": "base64", "media_type": inline.kind, "data": inline.data}
    if inline and inline.kind == "text/plain":
        return {"type": "text", "media_type": inline.kind, "data": reading.text_of(inline, param)}
    raise Refused(param, f"Invalid '{param}': a document is a PDF or plain text.", "invalid_value")


def assistant_blocks(message: chat.Assistant, place: int) -> list[Block]:
    """What the model thought, said and called."""
    param = f"messages[{place}]"
    blocks: list[Block] = list(message.thinking_blocks or ())
    blocks += [{"type": "text", "text": words} for words in reading.texts(message.content)]
    if message.refusal:
        blocks.append({"type": "text", "text": message.refusal})
    for number, call in enumerate(reading.function_calls(message, param)):
        given = reading.arguments(call, f"{param}.tool_calls[{number}].function.arguments")
        blocks.append({"type": "tool_use", "id": tool_id(call.id), "name": call.function.name, "input": given})
    return blocks


def tool_id(given: str) -> str:
    """An id in the characters that Claude takes; different ids stay different."""
    return given if TOOL_ID.fullmatch(given) else "x-" + given.encode().hex()
