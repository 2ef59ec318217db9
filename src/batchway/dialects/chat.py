"""OpenAI's chat request as types: what every other dialect translates from.

The types hold the fields that some dialect maps; the tables decide about the rest before a body comes here. What is not
known inside messages, parts and tools is refused, never dropped: a forgotten field may be what the prompt was about.
Sub-trees that only pass through (schemas, settings) are not copied. `reading.py` makes these of a body.

Read from openai 3.54, November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

Integer = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]  # what JSON encoders take


class Strict(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A part of a request whose every field is known."""


class CacheBreakpoint(Strict):
    """Where a cached prefix ends."""

    mode: Literal["explicit"] = "explicit"
    ttl: str | None = None


class Text(Strict, tag_field="type", tag="text"):
    """Words."""

    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class ImageUrl(Strict):
    """A data URL or an address; `detail` is a wish about resolution."""

    url: str
    detail: str | None = None


class Image(Strict, tag_field="type", tag="image_url"):
    """A picture."""

    image_url: ImageUrl
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class Sound(Strict):
    """Base64 of a sound, `wav` or `mp3`."""

    data: str
    format: str


class Audio(Strict, tag_field="type", tag="input_audio"):
    """A sound."""

    input_audio: Sound
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class FileData(Strict):
    """A file as a data URL (or bare base64, its kind told by `filename`), or the id of an uploaded one."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class File(Strict, tag_field="type", tag="file"):
    """A document."""

    file: FileData
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class Refusal(Strict, tag_field="type", tag="refusal"):
    """What the assistant said instead of an answer."""

    refusal: str


class System(Strict, tag_field="role", tag="system"):
    """Instructions."""

    content: str | list[Text]
    name: str | None = None


class Developer(Strict, tag_field="role", tag="developer"):
    """Instructions, by their newer name."""

    content: str | list[Text]
    name: str | None = None


class User(Strict, tag_field="role", tag="user"):
    """What the user said."""

    content: str | list[Text | Image | Audio | File]
    name: str | None = None


class Called(Strict):
    """A call's function; `arguments` is the text of a JSON object."""

    name: str
    arguments: str = ""


class GoogleExtra(Strict):
    """What Google's own OpenAI endpoint adds to a tool call, so that it can be given back."""

    thought_signature: str | None = None


class Extra(Strict):
    """Additions to a tool call by whose they are."""

    google: GoogleExtra | None = None


class FunctionCall(Strict, tag_field="type", tag="function"):
    """A call that the assistant asked for. `index` is left over from streams."""

    id: str
    function: Called
    extra_content: Extra | None = None
    index: Any = None


class CustomCall(msgspec.Struct, gc=False, tag_field="type", tag="custom"):
    """A call of a tool that takes free text: OpenAI's alone."""


class Assistant(Strict, tag_field="role", tag="assistant"):
    """What the assistant said, and what it called.

    An answer given back whole is welcome: `annotations`, `images` and `reasoning_content` are for the reader only,
    `thinking_blocks` are what the model wants to see again.
    """

    content: str | list[Text | Refusal] | None = None
    refusal: str | None = None
    tool_calls: list[FunctionCall | CustomCall] | None = None
    name: str | None = None
    audio: Any = None
    function_call: Any = None
    annotations: Any = None
    images: Any = None
    reasoning_content: Any = None
    thinking_blocks: list[dict[str, Any]] | None = None


class ToolResult(Strict, tag_field="role", tag="tool"):
    """What a called function answered."""

    tool_call_id: str
    content: str | list[Text]
    name: str | None = None


class FunctionResult(msgspec.Struct, gc=False, tag_field="role", tag="function"):
    """The legacy form of a tool's answer."""


Message = System | Developer | User | Assistant | ToolResult | FunctionResult


class Function(Strict):
    """A function that may be called; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Strict, tag_field="type", tag="function"):
    """A tool that is a function."""

    function: Function


class CustomTool(msgspec.Struct, gc=False, tag_field="type", tag="custom"):
    """A tool that takes free text: OpenAI's alone."""


class Named(msgspec.Struct, gc=False):
    """The name of a function."""

    name: str


class NamedFunction(Strict, tag_field="type", tag="function"):
    """The one function to call, or one of those allowed."""

    function: Named


class NamedCustom(msgspec.Struct, gc=False, tag_field="type", tag="custom"):
    """A custom tool by name."""


class Allowed(Strict):
    """Which of the tools may be called now."""

    mode: Literal["auto", "required"]
    tools: list[NamedFunction | NamedCustom]


class AllowedTools(Strict, tag_field="type", tag="allowed_tools"):
    """A choice among some of the tools."""

    allowed_tools: Allowed


class PlainText(msgspec.Struct, gc=False, tag_field="type", tag="text"):
    """No format asked for."""


class JsonObject(msgspec.Struct, gc=False, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(Strict, rename={"schema_": "schema"}):
    """A named JSON schema."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = None
    strict: bool | None = None


class JsonSchema(Strict, tag_field="type", tag="json_schema"):
    """JSON of a given schema."""

    json_schema: JsonSchemaFormat


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Chat(msgspec.Struct, gc=False):
    """A chat request; fields that no dialect maps are left to the tables."""

    messages: list[Message]
    max_completion_tokens: Integer | None = None
    max_tokens: Integer | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: Integer | None = None
    stop: str | list[str] | None = None
    seed: Integer | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: Integer | None = None
    tools: list[FunctionTool | CustomTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools | NamedCustom | None = None
    parallel_tool_calls: bool | None = None
    response_format: PlainText | JsonObject | JsonSchema | None = None
    reasoning_effort: Effort | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    safety_settings: list[dict[str, Any]] | None = None

    @property
    def limit(self) -> int | None:
        """The most output tokens, by either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> Sequence[str]:
        """The stop sequences."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or ()
