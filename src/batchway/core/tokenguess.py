"""How many LLM tokens a request may have, guessed from the bytes of its texts: where no tokenizer is at hand.

Each byte of UTF-8 adds the part of a token that its class of letters usually takes; the weights were fitted to OpenAI's
o200k_base over 2,700 texts: prose in 30 languages, code, JSON, tables, logs, emoji (November 2026). docs/prices.md has
the error that was measured, and tests/unit/test_tokens.py measures it again. Pictures, sound and documents in a request
count with declared figures. The invariant: a guess costs a bounded time, whatever the size of a line.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

MESSAGE = 4  # tokens that frame a message, and
REQUEST = 3  # a request
PICTURE = 800  # tokens: 765 of a square picture in high detail at OpenAI, 85 in low detail, 258 to 1,290 elsewhere
SOUND_BYTES = 2_000  # of base64 to a token: 128 kbit/s at 10 tokens a second
DOCUMENT_BYTES = 75  # of base64 to a token: a page of 100 KB with 1,800 tokens
LOOK = 2_048  # characters that are looked at of a longer text: those in its middle

_WEIGHTS = (  # hundredths of a token for each byte of a class
    (b"abcdefghijklmnopqrstuvwxyz", 21),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 20),
    (b"0123456789", 82),
    (b" ", 13),
    (b"\n", 80),
    (b"\t\r", 12),
    (b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", 44),
    # The first byte of a character tells its script; those that follow add nothing.
    (bytes(range(0xC2, 0xCE)), 130),  # Latin with marks
    (b"\xce\xcf", 38),  # Greek
    (bytes(range(0xD0, 0xD7)), 30),  # Cyrillic
    (b"\xd7", 45),  # Hebrew
    (bytes(range(0xD8, 0xE0)), 33),  # Arabic
    (b"\xe0", 34),  # of India, Thai
    (b"\xe1", 35),  # Vietnamese, Georgian, Ethiopian
    (b"\xe2", 90),  # punctuation, arrows, mathematics
    (b"\xe3", 66),  # kana
    (bytes(range(0xE4, 0xEA)), 82),  # Han
    (bytes(range(0xEA, 0xEE)), 67),  # Hangul
    (b"\xee\xef", 60),
    (bytes(range(0xF0, 0xF5)), 190),  # emoji
)
_WEIGHT_OF = {letter: weight for letters, weight in _WEIGHTS for letter in letters}
_TABLE = bytes(_WEIGHT_OF.get(byte, 0) for byte in range(256))

_decode = msgspec.json.Decoder().decode


def guess_text(text: str) -> float:
    """The tokens that a text may have."""
    size = len(text)
    start = max(0, (size - LOOK) // 2)
    found = sum(text[start : start + LOOK].encode(errors="replace").translate(_TABLE)) / 100
    return found * size / LOOK if size > LOOK else found


def guess(*contents: msgspec.Raw) -> float:
    """The tokens that a request may have, whose messages, tools and other inputs these are."""
    parts = parts_of(*contents)
    return sum(map(guess_text, parts.texts)) + parts.tokens


class Parts(msgspec.Struct):
    """What a request consists of: its texts, and the tokens of what is no text."""

    texts: list[str] = []
    tokens: int = REQUEST


def parts_of(*contents: msgspec.Raw) -> Parts:
    """The parts of a request; contents that cannot be read are a text."""
    parts = Parts()
    for content in filter(len, contents):
        try:
            _gather(_decode(content), parts)
        except (msgspec.DecodeError, RecursionError):
            parts.texts.append(bytes(content).decode(errors="replace"))
    return parts


def _gather(value: Any, parts: Parts) -> None:
    if isinstance(value, str):
        parts.texts.append(value)
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        if items and isinstance(items[0], int):
            parts.tokens += len(items)  # an embedding's input as tokens
            return
        for item in items:
            _gather(item, parts)
    elif isinstance(value, dict):
        _gather_object(cast("dict[str, Any]", value), parts)


def _gather_object(fields: dict[str, Any], parts: Parts) -> None:
    kind = fields.get("type")
    if kind in ("image_url", "input_image"):
        parts.tokens += PICTURE
    elif kind == "input_audio":
        parts.tokens += _longest(fields) // SOUND_BYTES
    elif kind in ("file", "input_file"):
        parts.tokens += _longest(fields) // DOCUMENT_BYTES
    else:
        parts.tokens += MESSAGE if "role" in fields else 0
        for name, value in fields.items():
            if name not in ("role", "type"):
                _gather(value, parts)


def _longest(value: Any) -> int:
    """The characters of the longest text within."""
    if isinstance(value, str):
        return len(value)
    inner = cast("dict[str, Any]", value).values() if isinstance(value, dict) else ()
    return max(map(_longest, inner), default=0)
