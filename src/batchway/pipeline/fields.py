"""The fields of a request for a batch, checked as OpenAI checks them and refused in its words. Not a stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batchway.core.errors import RequestError
from batchway.wire.batches import BatchCreate

WINDOW = re.compile(r"([0-9]{1,6})([mhd])")
SECONDS = {"m": 60, "h": 3600, "d": 86400}
SHORTEST, LONGEST = 60, 30 * 86400
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
KEEP = range(3600, 2592001)  # seconds that an output file may be kept


def window_seconds(text: str) -> int:
    """The length of a completion window such as `24h`; RequestError when it is none, or out of range."""
    match = WINDOW.fullmatch(text)
    seconds = int(match[1]) * SECONDS[match[2]] if match else 0
    if not SHORTEST <= seconds <= LONGEST:
        raise RequestError(
            f"Invalid value: '{text}'. A completion window is '<n>m', '<n>h' or '<n>d', from 1m to 30d, such as '24h'.",
            code="invalid_value",
            param="completion_window",
        )
    return seconds


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, str] | None:
    """OpenAI's rules, in its words: at most 16 pairs, keys of 64 and string values of 512 characters."""
    if metadata is None:
        return None
    if len(metadata) > MAX_PAIRS:
        message = (
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} properties, "
            f"but got an object with {len(metadata)} properties instead."
        )
        raise RequestError(message, code="object_above_max_properties", param="metadata")
    for key, value in metadata.items():
        _check_pair(key, value)
    return dict(metadata)


def _check_pair(key: str, value: object) -> None:
    if len(key) > MAX_KEY:
        message = f"Invalid property name in 'metadata': '{key[:3]}...{key[-3:]}' is too long. " + _too_long(
            MAX_KEY, key
        )
        raise RequestError(message, code="property_name_above_max_length", param=f"metadata.{key}")
    param = f"metadata.{key}"
    if not isinstance(value, str):
        message = f"Invalid type for '{param}': expected a string, but got {_type_of(value)} instead."
        raise RequestError(message, code="invalid_type", param=param)
    if len(value) > MAX_VALUE:
        message = f"Invalid '{param}': string too long. " + _too_long(MAX_VALUE, value)
        raise RequestError(message, code="string_above_max_length", param=param)


def _too_long(most: int, text: str) -> str:
    return f"Expected a string with maximum length {most}, but got a string with length {len(text)} instead."


def _type_of(value: object) -> str:
    words: dict[type[Any], str] = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        dict: "an object",
        list: "an array",
    }
    return words.get(type(value), "null")


def keep_seconds(wanted: BatchCreate) -> int | None:
    """How long the output files are kept, when the request says so; RequestError when out of range."""
    if wanted.output_expires_after is None:
        return None
    seconds = wanted.output_expires_after.seconds
    if seconds not in KEEP:
        low = seconds < KEEP.start
        side, bound = ("below minimum", f">= {KEEP.start}") if low else ("above maximum", f"<= {KEEP.stop - 1}")
        param = "output_expires_after.seconds"
        message = f"Invalid '{param}': integer {side} value. Expected a value {bound}, but got {seconds} instead."
        code = "integer_below_min_value" if low else "integer_above_max_value"
        raise RequestError(message, code=code, param=param)
    return seconds
