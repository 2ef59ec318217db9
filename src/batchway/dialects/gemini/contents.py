"""OpenAI's messages as Gemini's contents.

System and developer words become the system instruction. Neighbours of one role are one content, and the answers of
parallel calls are one content of their own, as Gemini counts them against the calls before. The first content is the
user's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from batchway.dialects import chat, reading
from batchway.dialects.gemini.models import model_of
from batchway.dialects.protocol import Refused

Part = dict[str, Any]

# Base64 of `skip_thought_signature_validator`: Google's word for a call whose signature nobody kept. Gemini 3 checks.
NO_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
YOUTUBE = ("https://www.youtube.com/", "https://youtu.be/", "https://youtube.com/")

# What an extension says about a file, for URIs that do not tell themselves. Those that Gemini reads.
KINDS = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "heic": "image/heic",
    "heif": "image/heif", "gif": "image/gif", "pdf": "application/pdf", "txt": "text/plain", "md": "text/markdown",
    "csv": "text/csv", "html": "text/html", "json": "application/json", "xml": "text/xml", "wav": "audio/wav",
    "mp3": "audio/mp3", "flac": "audio/flac", "ogg": "audio/ogg", "m4a": "audio/m4a", "aac": "audio/aac",
    "mp4": "video/mp4", "mov": "video/mov", "webm": "video/webm", "mpeg": "video/mpeg",
}  # fmt: skip

_decode = msgspec.json.Decoder().decode


class Conversation(NamedTuple):
    """What was said, and the parts of the system instruction."""

    contents: list[dict[str, Any]]
    system: list[Part]


def conversation(messages: list[chat.Message], model: str) -> Conversation:
    """The contents of the messages for a model."""
    contents: list[dict[str, Any]] = []
    system: list[Part] = []
    called: dict[str, str] = {}  # names by id: a result does not say whose it is
    signs = model_of(model).generation >= (3, 0)
    before = None
    for place, message in enumerate(messages):
        if isinstance(message, chat.System | chat.Developer):
            system += [{"text": words} for words in reading.texts(message.content)]
            continue
        role = "user"
        if isinstance(message, chat.User):
            parts = user_parts(message, place)
        elif isinstance(message, chat.Assistant):
            role, parts = "model", model_parts(message, place, called, signs=signs)
        elif isinstance(message, chat.ToolResult):
            parts = [result_part(message, place, called)]
        else:
            raise Refused(f"messages[{place}].role", "Messages of role 'function' are not taken: use 'tool'.")
        if not parts:
            continue
        if contents and type(message) is before:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
        before = type(message)
    reading.speakers_first(contents[0]["role"] if contents else None)
    return Conversation(contents, system)


def user_parts(message: chat.User, place: int) -> list[Part]:
    """What a user said and showed."""
    content = message.content
    if isinstance(content, str):
        return [{"text": content}] if content else []
    parts: list[Part] = []
    for number, part in enumerate(content):
        param = f"messages[{place}].content[{number}]"
        if isinstance(part, chat.Text):
            if part.text:
                parts.append({"text": part.text})
        elif isinstance(part, chat.Image):
            parts.append(media(part.image_url.url, f"{param}.image_url.url"))
        elif isinstance(part, chat.Audio):
            sound = part.input_audio
            parts.append({"inlineData": {"mimeType": f"audio/{sound.format}", "data": sound.data}})
        else:
            parts.append(document(part.file, f"{param}.file"))
    return parts


def media(url: str, param: str) -> Part:
    """A picture, film or document by its URL."""
    inline = reading.data_url(url, param)
    if inline:
        return {"inlineData": {"mimeType": inline.kind, "data": inline.data}}
    if url.startswith(YOUTUBE):
        return {"fileData": {"mimeType": "video/mp4", "fileUri": url}}
    if not url.startswith("gs://"):
        wanted = "a data URL or a gs:// URI is needed, as a batch fetches nothing from the web"
        raise Refused(param, f"Invalid '{param}': {wanted}.", "invalid_value")
    return {"fileData": {"mimeType": kind_of(url, param), "fileUri": url}}


def document(file: chat.FileData, param: str) -> Part:
    """A file, inline or by its gs:// URI as `file_id`."""
    if file.file_data is None:
        if file.file_id is None or not file.file_id.startswith("gs://"):
            wanted = "files of another service cannot be read; a data URL or a gs:// URI is needed"
            raise Refused(f"{param}.file_id", f"Invalid '{param}.file_id': {wanted}.", "invalid_value")
        return media(file.file_id, f"{param}.file_id")
    inline = reading.data_url(file.file_data, f"{param}.file_data")
    if inline:
        return {"inlineData": {"mimeType": inline.kind, "data": inline.data}}
    kind = kind_of(file.filename or "", f"{param}.filename")
    return {"inlineData": {"mimeType": kind, "data": file.file_data}}


def kind_of(name: str, param: str) -> str:
    """The media type by the extension of a name."""
    kind = KINDS.get(name.rpartition(".")[2].lower())
    if kind is None:
        raise Refused(param, f"Invalid '{param}': no known extension tells what kind of file this is.", "invalid_value")
    return kind


def model_parts(message: chat.Assistant, place: int, called: dict[str, str], *, signs: bool) -> list[Part]:
    """What the model said and called; `called` learns the names of the calls."""
    param = f"messages[{place}]"
    parts: list[Part] = [{"text": words} for words in reading.texts(message.content)]
    if message.refusal:
        parts.append({"text": message.refusal})
    first: Part | None = None
    signed = False
    for number, call in enumerate(reading.function_calls(message, param)):
        name = call.function.name
        called[call.id] = name
        given = reading.arguments(call, f"{param}.tool_calls[{number}].function.arguments")
        part: Part = {"functionCall": {"id": call.id, "name": name, "args": given}}
        extra = call.extra_content
        if extra and extra.google and extra.google.thought_signature:
            part["thoughtSignature"] = extra.google.thought_signature
            signed = True
        first = first or part
        parts.append(part)
    if signs and first and not signed:
        first["thoughtSignature"] = NO_SIGNATURE
    return parts


def result_part(message: chat.ToolResult, place: int, called: dict[str, str]) -> Part:
    """The answer of a function, under the name it was called by."""
    name = called.get(message.tool_call_id)
    if name is None:
        param = f"messages[{place}].tool_call_id"
        raise Refused(param, f"Invalid '{param}': no message before it holds a call of this id.", "invalid_value")
    answer = as_object("".join(reading.texts(message.content)))
    return {"functionResponse": {"id": message.tool_call_id, "name": name, "response": answer}}


def as_object(text: str) -> dict[str, Any]:
    """A JSON object as it is, anything else under `result`."""
    if text.lstrip()[:1] == "{":
        try:
            return _decode(text)
        except (msgspec.DecodeError, RecursionError):
            pass  # words that only begin like JSON, or nothing that could be written again
    return {"result": text}
