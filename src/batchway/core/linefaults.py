"""What can be wrong with one input line: the codes, the messages, and the slow look that finds the most basic fault.

Codes and first sentences of messages are OpenAI's where it has them. `linecheck.py` asks only about lines that are not
plainly clean, so nothing here is hurried.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from batchway.core.fingerprints import Fingerprints
from batchway.wire.errors import LineFault

MAX_MODELS = 1_000
MAX_MODEL_NAME = 256

INVALID_JSON = "invalid_json_line"
MISSING = "missing_required_parameter"
NOT_JSON = "This line is not parseable as valid JSON."
BLANK = f"{NOT_JSON} It is blank: remove it."
BOM = (
    f"{NOT_JSON} It begins with a byte order mark (BOM): save the file as UTF-8 without BOM, "
    "in Python with encoding='utf-8' instead of 'utf-8-sig'."
)
NOT_UTF8 = f"{NOT_JSON} It is not UTF-8: save the file with that encoding."
HALF_PAIR = f"{NOT_JSON} It holds one half of a \\\\u surrogate pair: replace it, no provider can read it."
NOT_OBJECT = f"{NOT_JSON} Each line must be one JSON object."
MODEL_MISSING = "Model parameter is required."

T = TypeVar("T")
In = TypeVar("In", bytes, msgspec.Raw)
NOTHING = msgspec.Raw()


class RequestBody(msgspec.Struct, gc=False):
    """What a check looks at in a body; an absent field of content has no bytes."""

    model: str | None = None
    stream: bool | None = None
    messages: msgspec.Raw = NOTHING  # `Raw | None` would refuse everything but null
    input: msgspec.Raw = NOTHING
    prompt: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    instructions: msgspec.Raw = NOTHING
    max_tokens: Any = None  # a nonsensical limit is the provider's to refuse, line by line
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None


class RequestLine(msgspec.Struct, gc=False):
    """An input line whose body is looked into by the same decode: cheaper than `wire.lines` and a second one."""

    custom_id: str
    method: str
    url: str
    body: RequestBody


def _response_content(body: RequestBody) -> msgspec.Raw:
    return body.input if len(body.input) else body.prompt  # a stored prompt may stand for the input


CONTENT: dict[str, tuple[str, Callable[[RequestBody], msgspec.Raw]]] = {
    "/v1/chat/completions": ("messages", operator.attrgetter("messages")),
    "/v1/embeddings": ("input", operator.attrgetter("input")),
    "/v1/completions": ("prompt", operator.attrgetter("prompt")),
    "/v1/responses": ("input", _response_content),
    "/v1/moderations": ("input", operator.attrgetter("input")),
}
"""What the body of each endpoint must hold. The keys are `wire.batches.ENDPOINTS`."""

UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)  # the second: brackets nested a thousand deep
decode_request = msgspec.json.Decoder(RequestLine).decode
_body = msgspec.json.Decoder(RequestBody)
_half = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
_value = msgspec.json.Decoder(msgspec.Raw)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)


def diagnose(raw: bytes, seen: Fingerprints, *, first: bool) -> RequestLine | LineFault:
    """The line, which may want a model, or its most basic fault; its custom_id joins those `seen`."""
    fields = _fields_of(raw, first=first)
    if isinstance(fields, LineFault):
        return fields
    texts: list[str] = []
    for name in ("custom_id", "method", "url"):
        text = _decoded(_text.decode, fields[name])
        if not isinstance(text, str):
            return fault("invalid_type", f"Invalid type for '{name}': it must be a string.", name)
        texts.append(text)
    found = _head_fault(texts, seen)
    if found:
        return found
    custom_id, method, url = texts
    body = _body_of(fields["body"], url)
    return body if isinstance(body, LineFault) else RequestLine(custom_id, method, url, body)


def _head_fault(texts: list[str], seen: Fingerprints) -> LineFault | None:
    custom_id, method, url = texts
    if not custom_id:
        return fault("invalid_value", "Invalid value for 'custom_id': it must not be empty.", "custom_id")
    fresh = seen.add(custom_id)
    if method != "POST":
        return fault("invalid_method", "Invalid method: only 'POST' is supported.", "method")
    if url not in CONTENT:
        listed = ", ".join(f"'{known}'" for known in CONTENT)
        return fault("invalid_url", f"The URL provided for this request is not supported: use {listed}.", "url")
    return None if fresh else duplicate(custom_id)


def _fields_of(raw: bytes, *, first: bool) -> dict[str, msgspec.Raw] | LineFault:
    """The fields of a line, all four there, or what is wrong with it as JSON."""
    if first and raw.startswith(b"\xef\xbb\xbf"):
        return fault(INVALID_JSON, BOM)
    if not is_utf8(raw):
        return fault(INVALID_JSON, NOT_UTF8)
    value = _decoded(_value.decode, raw)
    if isinstance(value, Exception):
        return fault(INVALID_JSON, HALF_PAIR if _half.search(raw) else NOT_JSON)
    fields = _decoded(_fields.decode, raw)
    if isinstance(fields, Exception):
        return fault(INVALID_JSON, NOT_OBJECT)
    for name in ("custom_id", "method", "url", "body"):
        if name not in fields or bytes(fields[name]) == b"null":
            return fault(MISSING, f"Missing required parameter: '{name}'.", name)
    return fields


def _body_of(raw: msgspec.Raw, url: str) -> RequestBody | LineFault:
    """A body that is fit for `url`, but perhaps without a model."""
    body = _decoded(_body.decode, raw)
    if isinstance(body, Exception):
        # msgspec's own words hold types and a path, never a value.
        expected, _, path = str(body).partition(" - at `$")
        param = "body" + path.rstrip("`")
        return fault("invalid_type", f"Invalid type for '{param}': {expected[:1].lower()}{expected[1:]}.", param)
    if body.stream:
        return fault("streaming_unsupported", "Streaming is not supported in the Batch API.", "body.stream")
    name, content_of = CONTENT[url]
    content = content_of(body)
    if not content or (len(content) == len("null") and bytes(content) == b"null"):
        return fault("invalid_request", f"{name.capitalize()} parameter is required.", f"body.{name}")
    return body


def name_fault(model: str, known: int) -> LineFault | None:
    """What is wrong with a model name that comes after `known` other ones."""
    if len(model) > MAX_MODEL_NAME or not model.isprintable():
        message = f"The model name must be at most {MAX_MODEL_NAME} printable characters."
        return fault("invalid_value", message, "body.model")
    if known >= MAX_MODELS:
        message = f"The file names more than {MAX_MODELS} models: split it."
        return fault("too_many_models", message, "body.model")
    return None


def model_missing(number: int) -> LineFault:
    """The fault of line `number` that a batch with a model of its own does not mind."""
    return LineFault(code="invalid_request", message=MODEL_MISSING, param="body.model", line=number)


def waivable(found: LineFault) -> bool:
    """True when a batch that names a model itself need not mind."""
    return (found.code, found.param) == ("invalid_request", "body.model")


def too_long(size: int, limit: int) -> LineFault:
    """The fault of a line of `size` bytes."""
    return fault("line_too_long", f"This line has {size} bytes: {limit} are allowed.")


def duplicate(custom_id: str) -> LineFault:
    """The fault of a custom_id that was there before."""
    shown = custom_id if len(custom_id) <= 100 else custom_id[:100] + "..."
    message = f"The custom_id '{shown}' is used by an earlier line: each custom_id must be unique in the batch."
    return fault("duplicate_custom_id", message, "custom_id")


def fault(code: str, message: str, param: str | None = None) -> LineFault:
    """A fault that does not know its line yet."""
    return LineFault(code=code, message=message, param=param)


def _decoded(decode: Callable[[In], T], raw: In) -> T | Exception:
    try:
        return decode(raw)
    except UNREADABLE as error:
        return error


def is_utf8(raw: bytes) -> bool:
    """True when `raw` decodes: msgspec itself does not look at bytes that it skips or keeps raw."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
