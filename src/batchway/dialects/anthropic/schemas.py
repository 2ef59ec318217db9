"""A JSON schema as Claude's structured answers take it: objects closed, no constraint that it answers with a 400.

What is taken out is told in the description, so the model knows of it; the answer may then break it. The schema given
is not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from batchway.dialects.protocol import Refused

# As the Messages API refuses them, November 2026.
UNSUPPORTED = frozenset(
    "minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum multipleOf maxItems uniqueItems contains "
    "minContains maxContains prefixItems minProperties maxProperties patternProperties propertyNames dependentRequired "
    "dependentSchemas dependencies unevaluatedItems unevaluatedProperties if then else not".split()
)
MAPS_OF_SCHEMAS = ("properties", "$defs", "definitions")
LISTS_OF_SCHEMAS = ("anyOf", "allOf")

_encode = msgspec.json.Encoder().encode


def taken(schema: Mapping[str, Any], param: str) -> dict[str, Any]:
    """The schema in the form that is taken; Refused when it is nested deeper than can be walked."""
    try:
        return closed(schema)
    except RecursionError:
        raise Refused(param, f"Invalid '{param}': the schema is nested too deeply.", "invalid_value") from None


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its objects closed and its unsupported words told."""
    cleaned: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for word, value in schema.items():
        if word in UNSUPPORTED or (word == "minItems" and value not in (0, 1)):
            told[word] = value
        elif word != "additionalProperties":
            name = "anyOf" if word == "oneOf" else word
            cleaned[name] = inside(name, value)
    if "properties" in cleaned or is_object(cleaned.get("type")):
        cleaned["additionalProperties"] = False
    if told:
        limits = _encode(told).decode()
        said = cleaned.get("description")
        cleaned["description"] = f"{said} {limits}" if said else limits
    return cleaned


def is_object(kind: object) -> bool:
    """Whether a schema's type is, or may be, an object."""
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def inside(word: str, value: Any) -> Any:
    """What stands under a word of a schema, its own schemas closed."""
    if word in MAPS_OF_SCHEMAS and isinstance(value, dict):
        return {name: sub(one) for name, one in cast("dict[str, Any]", value).items()}
    if word in LISTS_OF_SCHEMAS and isinstance(value, list):
        return [sub(one) for one in cast("list[Any]", value)]
    return sub(value) if word == "items" else value


def sub(schema: Any) -> Any:
    """A schema inside another; true and false are schemas too."""
    return closed(cast("dict[str, Any]", schema)) if isinstance(schema, dict) else schema
