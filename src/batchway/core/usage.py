"""Tokens as counted by a provider: one shape for chat, responses, completions and embeddings.

`cached_tokens`, `cache_write_tokens` and `audio_input_tokens` are part of `input_tokens`; `reasoning_tokens`,
`audio_output_tokens` and `image_output_tokens` of `output_tokens`. `milliseconds` are those that a model server of the
operator was busy with executed lines.
"""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Counts of LLM tokens; adding two adds every field."""

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    milliseconds: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.audio_input_tokens + other.audio_input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.audio_output_tokens + other.audio_output_tokens,
            self.image_output_tokens + other.image_output_tokens,
            self.milliseconds + other.milliseconds,
        )


NO_USAGE = Usage()


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _WireUsage(msgspec.Struct, gc=False):
    """Chat and completions say prompt and completion tokens, responses input and output; embeddings only prompt."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Body(msgspec.Struct, gc=False):
    usage: _WireUsage | None = None


class _Response(msgspec.Struct, gc=False):
    body: _Body | None = None


class _Line(msgspec.Struct, gc=False):
    response: _Response | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_NO_INPUT, _NO_OUTPUT = _InputDetails(), _OutputDetails()


def line_usage(line: bytes, milliseconds: int = 0) -> Usage:
    """The usage in an output line, in any of OpenAI's shapes; no tokens when the answer carries none or odd ones.

    `milliseconds` are those that the endpoint of an executed line was busy with it.
    """
    try:
        parsed = _decode_line(line)
    except msgspec.DecodeError:
        return Usage(milliseconds=milliseconds)
    wire = parsed.response.body.usage if parsed.response and parsed.response.body else None
    if wire is None:
        return Usage(milliseconds=milliseconds)
    asked = wire.prompt_tokens_details or wire.input_tokens_details or _NO_INPUT
    answered = wire.completion_tokens_details or wire.output_tokens_details or _NO_OUTPUT
    return Usage(  # by place: names would cost a tenth of the time a line takes
        wire.prompt_tokens or wire.input_tokens or 0,
        asked.cached_tokens or 0,
        asked.cache_write_tokens or 0,
        asked.audio_tokens or 0,
        wire.completion_tokens or wire.output_tokens or 0,
        answered.reasoning_tokens or 0,
        answered.audio_tokens or 0,
        answered.image_tokens or 0,
        milliseconds,
    )
