"""Checks JSON against Google's discovery documents, as they ship with google-api-python-client."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from googleapiclient.discovery_cache import get_static_doc


@cache
def schemas(api: str, version: str = "v1") -> dict[str, Any]:
    document = get_static_doc(api, version)
    assert document is not None
    return json.loads(document)["schemas"]


def faults(value: Any, name: str, api: str = "aiplatform") -> list[str]:
    """What in `value` does not fit the schema of this name."""
    return _faults(value, schemas(api)[name], schemas(api), name)


def _faults(value: Any, schema: dict[str, Any], known: dict[str, Any], place: str) -> list[str]:
    if "$ref" in schema:
        schema = known[schema["$ref"]]
    kind = schema.get("type")
    if kind == "any":
        return []
    if kind == "object":
        if not isinstance(value, dict):
            return [f"{place}: not an object"]
        return [fault for key, inner in value.items() for fault in _member(key, inner, schema, known, place)]
    if kind == "array":
        if not isinstance(value, list):
            return [f"{place}: not an array"]
        return [fault for inner in value for fault in _faults(inner, schema["items"], known, f"{place}[]")]
    return _plain(value, schema, place)


def _member(key: str, value: Any, schema: dict[str, Any], known: dict[str, Any], place: str) -> list[str]:
    inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
    return _faults(value, inner, known, f"{place}.{key}") if inner else [f"{place}.{key}: unknown"]


def _plain(value: Any, schema: dict[str, Any], place: str) -> list[str]:
    if schema.get("format") in ("int64", "uint64"):
        return [] if isinstance(value, str) and value.lstrip("-").isdigit() else [f"{place}: not an int64 as text"]
    types: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": int | float}
    if not isinstance(value, types[schema["type"]]):
        return [f"{place}: {value!r} is no {schema['type']}"]
    allowed = schema.get("enum")
    return [] if allowed is None or value in allowed else [f"{place}: {value!r} is none of {allowed}"]
