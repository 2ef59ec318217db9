"""Queries and bodies become structs of `wire/`; a bad value is a 400 in OpenAI's words that names the parameter.

Unknown parameters are ignored, as OpenAI does, unless the struct forbids them. msgspec's sentences are translated here
and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from batchway.core.errors import RequestError, TooLarge

S = TypeVar("S", bound=msgspec.Struct)

PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
BETWEEN = re.compile(r"Expected `int` (>=|<=|>|<) (-?\d+)")
TYPES = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
FIELD = re.compile(r"Object (missing required|contains unknown) field `([^`]+)`")
ENUM = re.compile(r"Invalid enum value (.+)")
INDEXED = re.compile(r"([^\[]+)\[(.*)\]")

NO_JSON = "We could not parse the JSON body of your request. The API expects a JSON object."


def query_pairs(query_string: bytes) -> list[tuple[str, str]]:
    """The pairs of a query string, in order."""
    return parse_qsl(query_string.decode("ascii", "replace"), keep_blank_values=True)


def query(struct: type[S], query_string: bytes) -> S:
    """The query as `struct`; `name[key]=value` fills the mapping `name`, `name` and `name[]` add to a list."""
    values: dict[str, Any] = {name: [] for name in _lists(struct)}
    for name, value in query_pairs(query_string):
        refuse_nul(name, value)
        listed = values.get(name.removesuffix("[]"))
        if isinstance(listed, list):
            cast("list[str]", listed).append(value)
            continue
        nested = INDEXED.fullmatch(name)
        if nested is None:
            values[name] = value
            continue
        inner = values.setdefault(nested[1], {})
        if not isinstance(inner, dict):
            raise RequestError(f"Parameter '{nested[1]}' is given twice.", param=nested[1])
        inner[nested[2]] = value
    return form(struct, values)


@cache
def _lists(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that may be given more than once: those whose default is an empty list."""
    return tuple(field.name for field in msgspec.structs.fields(struct) if field.default_factory is list)


def form(struct: type[S], values: Mapping[str, Any]) -> S:
    """Text values (of a query or a form) as `struct`."""
    try:
        return msgspec.convert(values, struct, strict=False)
    except msgspec.ValidationError as error:
        refuse(error, struct)


async def body(struct: type[S], request: Request, limit: int) -> tuple[S, bytes]:
    """The JSON body as `struct`, and its bytes; at most `limit` of them are read."""
    raw = await read(request, limit)
    try:
        decoded = msgspec.json.decode(raw, type=struct)
    except msgspec.ValidationError as error:
        refuse(error, struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError(NO_JSON) from None
    for name in struct.__struct_fields__:
        refuse_nul(name, getattr(decoded, name))
    return decoded, raw


async def read(request: Request, limit: int) -> bytes:
    """The whole body; TooLarge beyond `limit` bytes, at once when its length is declared."""
    refuse_length(request, limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
    return b"".join(parts)


def refuse_length(request: Request, limit: int) -> None:
    """TooLarge when the declared length of the body is over `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large(limit)


def too_large(limit: int) -> TooLarge:
    """The 413 for a body over `limit` bytes."""
    message = f"The request body is too large: at most {limit} bytes are accepted here."
    return TooLarge(message, code="request_too_large")


def refuse_nul(name: str, value: object) -> None:
    """NUL is text to JSON and to URLs, but no database stores it; looks at text and at one level of a mapping."""
    texts = [name, value]
    if isinstance(value, dict):
        texts += [*cast("dict[str, Any]", value), *cast("dict[str, Any]", value).values()]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        printable = name.replace("\0", "")
        raise RequestError(f"Invalid '{printable}': it holds a NUL character.", code="invalid_value", param=printable)


def refuse(error: msgspec.ValidationError, struct: type[msgspec.Struct]) -> NoReturn:
    """Raises OpenAI's sentence for msgspec's."""
    text = str(error)
    place = PLACE.search(text)
    param = place[1] if place else ""
    text = PLACE.sub("", text)
    if found := FIELD.search(text):
        _refuse_field(found[1], f"{param}.{found[2]}" if param else found[2])
    if found := BETWEEN.search(text):
        _refuse_bound(param, found[1], found[2])
    if found := TYPES.search(text):
        if not param:
            raise RequestError(NO_JSON) from None
        expected, got = _english(found[1]), _english(found[2])
        message = f"Invalid type for '{param}': expected {expected}, but got {got} instead."
        raise RequestError(message, code="invalid_type", param=param) from None
    if ENUM.search(text):
        raise RequestError(_supported(struct, param), code="invalid_value", param=param) from None
    raise RequestError(f"Invalid '{param}': {text}." if param else NO_JSON, code="invalid_value", param=param or None)


def _refuse_field(kind: str, param: str) -> NoReturn:
    if kind == "missing required":
        message = f"Missing required parameter: '{param}'."
        raise RequestError(message, code="missing_required_parameter", param=param) from None
    raise RequestError(f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param) from None


def _refuse_bound(param: str, sign: str, bound: str) -> NoReturn:
    side = "below minimum" if sign.startswith(">") else "above maximum"
    code = "integer_below_min_value" if sign.startswith(">") else "integer_above_max_value"
    message = f"Invalid '{param}': integer {side} value. Expected a value {sign} {bound}."
    raise RequestError(message, code=code, param=param) from None


def _supported(struct: type[msgspec.Struct], param: str) -> str:
    schema = msgspec.json.schema_components([struct])[1][struct.__name__]
    field = schema.get("properties", {}).get(param, {})
    choices = [choice for option in (field, *field.get("anyOf", ())) for choice in option.get("enum", ())]
    if not choices:
        return f"Invalid value for '{param}'."
    return f"Invalid value for '{param}'. Supported values are: {', '.join(repr(choice) for choice in choices)}."


def _english(types: str) -> str:
    words = {
        "int": "an integer", "str": "a string", "object": "an object", "array": "an array", "bool": "a boolean",
        "float": "a decimal", "null": "null",
    }  # fmt: skip
    return " or ".join(words.get(name, name) for name in types.split(" | "))
