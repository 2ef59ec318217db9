"""What every dialect reads of a chat request: the typed body, its words, calls and data URLs; Refused if misformed."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from batchway.dialects import chat
from batchway.dialects.protocol import Refused

Form = TypeVar("Form")

TOO_DEEP = "it is nested too deeply"

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def body_of(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    """The body in a line. Refused when it is no object, or holds what no decoder takes (1e400, half a surrogate pair).

    Lines are checked when they are uploaded, but their bodies stay raw: this is where such things are found.
    """
    try:
        return _decode_object(raw)
    except RecursionError:
        raise Refused("body", f"Invalid 'body': {TOO_DEEP}.", "invalid_value") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused("body", "Invalid 'body': it is no readable JSON object.", "invalid_value") from None


def read(body: Mapping[str, Any]) -> chat.Chat:
    """The typed request; Refused, with the path of the field, when something in it has another form."""
    return typed(body, chat.Chat)


def typed(body: Any, form: type[Form], at: str = "") -> Form:
    """`body` as a `form`, or Refused; `at` is the path of what is called body here."""
    try:
        return msgspec.convert(body, form)
    except msgspec.ValidationError as error:
        raise misformed(str(error), at) from None


CODES = {  # how msgspec begins its messages -> OpenAI's code
    "Object missing required": "missing_required_parameter",
    "Object contains unknown": "unknown_parameter",
    "Invalid ": "invalid_value",
}


def misformed(found: str, at: str) -> Refused:
    """A refusal out of a message such as "Expected `str`, got `int` - at `$.messages[0].content`"."""
    what, _, path = found.partition(" - at `$")
    code = next((code for start, code in CODES.items() if what.startswith(start)), "invalid_type")
    field = re.search("field `([^`]+)`", what)
    where = (at + path.rstrip("`") + (f".{field[1]}" if field else "")).lstrip(".")
    says = what.replace("Object", "The object").replace("`", "'")
    return Refused(where, f"Invalid '{where}': {says}.", code)


def texts(content: str | list[chat.Text] | list[chat.Text | chat.Refusal] | None) -> list[str]:
    """The words of a content, without the empty ones: no provider takes those, and they say nothing."""
    if isinstance(content, str):
        return [content] if content else []
    words = [part.refusal if isinstance(part, chat.Refusal) else part.text for part in content or ()]
    return [word for word in words if word]


def functions(request: chat.Chat) -> list[chat.Function]:
    """The functions that may be called: those of `tools`, fewer where `tool_choice` allows only some."""
    offered: list[chat.Function] = []
    for place, tool in enumerate(request.tools or ()):
        if isinstance(tool, chat.CustomTool):
            raise Refused(f"tools[{place}].type", "Only tools of type 'function' can be offered.", "unsupported_value")
        offered.append(tool.function)
    choice = request.tool_choice
    if not isinstance(choice, chat.AllowedTools):
        return offered
    names = {tool.function.name for tool in choice.allowed_tools.tools if isinstance(tool, chat.NamedFunction)}
    if not names <= {function.name for function in offered}:
        raise Refused("tool_choice", "Invalid 'tool_choice': it allows what 'tools' does not offer.", "invalid_value")
    return [function for function in offered if function.name in names]


def chosen(request: chat.Chat) -> str | None:
    """`auto`, `none`, `required`, or `=name` for the one function to call; None when nothing was chosen."""
    choice = request.tool_choice
    if isinstance(choice, chat.NamedFunction):
        return "=" + choice.function.name
    if isinstance(choice, chat.AllowedTools):
        return choice.allowed_tools.mode
    if isinstance(choice, chat.NamedCustom):
        raise Refused("tool_choice.type", "Only tools of type 'function' can be chosen.", "unsupported_value")
    return choice


def arguments(call: chat.FunctionCall, param: str) -> dict[str, Any]:
    """The arguments of a call as an object; none at all are an empty one."""
    if not call.function.arguments.strip():
        return {}
    try:
        return _decode_object(call.function.arguments)
    except RecursionError:
        raise Refused(param, f"Invalid '{param}': {TOO_DEEP}.", "invalid_value") from None
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise Refused(param, f"Invalid '{param}': it is not the text of a JSON object.", "invalid_value") from None


def function_calls(message: chat.Assistant, param: str) -> list[chat.FunctionCall]:
    """The calls of an assistant's message; what only OpenAI has is refused."""
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise Refused(f"{param}.{name}", f"Unsupported parameter: '{param}.{name}'.")
    calls: list[chat.FunctionCall] = []
    for place, call in enumerate(message.tool_calls or ()):
        if isinstance(call, chat.CustomCall):
            where = f"{param}.tool_calls[{place}].type"
            raise Refused(where, "Only calls of type 'function' can be expressed.", "unsupported_value")
        calls.append(call)
    return calls


class DataUrl(NamedTuple):
    """The two halves of a data URL; `data` is base64."""

    kind: str
    data: str


def data_url(url: str, param: str) -> DataUrl | None:
    """The halves of a data URL, None for any other; Refused when it is not base64."""
    if not url.startswith("data:"):
        return None
    head, comma, data = url.partition(",")
    kind, _, encoding = head.removeprefix("data:").rpartition(";")
    if not comma or encoding != "base64" or not kind:
        raise Refused(param, f"Invalid '{param}': a data URL begins with 'data:<type>;base64,'.", "invalid_value")
    return DataUrl(kind.partition(";")[0], data)


def text_of(inline: DataUrl, param: str) -> str:
    """The words in a data URL of plain text."""
    try:
        return base64.b64decode(inline.data, validate=True).decode()
    except ValueError:
        raise Refused(param, f"Invalid '{param}': it is no base64 of UTF-8 text.", "invalid_value") from None


def speakers_first(role: str | None) -> None:
    """Refuses a conversation that nobody begins: every other form needs the user's words first."""
    if role is None:
        raise Refused("messages", "Invalid 'messages': at least one message of a user is needed.", "invalid_value")
    if role != "user":
        raise Refused("messages", "Invalid 'messages': the first one must be the user's.", "invalid_value")
