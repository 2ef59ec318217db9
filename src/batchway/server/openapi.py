"""The OpenAPI 3.1 document, made from the table of operations and the structs of `wire/`: it cannot lag behind.

Only the first spelling of each path is listed; the others are named in the description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from batchway.server.routing import Operation
from batchway.wire.errors import ErrorEnvelope

Json = dict[str, Any]

REF = "#/components/schemas/{name}"

DESCRIPTION = """\
One OpenAI-compatible Files and Batches API in front of every provider and every model server.

Every path under `/v1` is reachable in other spellings too: without `/v1`, as `/{provider}/v1/...` (forces that provider
for all lines), and as Azure's `/openai/...?api-version=` and `/openai/v1/...`.

Each answer carries `x-request-id`. Errors have OpenAI's envelope. A repeated POST with the same `Idempotency-Key` and
the same content gets the first answer for 24 hours.
"""

ERRORS = {
    400: "A parameter is missing or wrong; `param` names it.",
    401: "No API key, or one that lets in nobody (any more).",
    403: "The key may not do this, or not from this network.",
    404: "Absent, or it belongs to somebody else.",
    409: "The object is in a state that does not allow this.",
    413: "More bytes than this gateway accepts in one piece.",
    416: "The range lies outside of the file.",
    422: "The Idempotency-Key was first sent with another request.",
    429: "Too much at once; `Retry-After` says when to come back.",
    500: "The gateway failed; its log names the cause by the request id.",
    502: "A provider refused or failed.",
    503: "A part that this needs does not answer.",
}

REQUEST_HEADERS = {
    "Idempotency-Key": "Any text of at most 255 characters that names this request.",
    "custom-llm-provider": "Forces this provider for all lines; the path and the query parameter `provider` go first.",
    "Range": "`bytes=first-last`; one range.",
    "Last-Event-ID": "The last event you know of; those that follow it are sent first.",
    "If-None-Match": "An entity tag you have; 304 when it still holds.",
    "traceparent": "The caller's trace, as W3C Trace Context writes it; the batch's trace is connected with it.",
}


def document(operations: Iterable[Operation], version: str) -> Json:
    """The whole document."""
    table = tuple(operations)
    schemas = _schemas(table)
    paths: dict[str, Json] = {}
    for operation in table:
        path = operation.full_path.replace("*}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, schemas)
    for operation in table:
        if operation.query is not None:
            schemas.pop(operation.query.__name__, None)  # listed as parameters
    return {
        "openapi": "3.1.0",
        "info": {"title": "Batchway", "version": version, "description": DESCRIPTION, "license": _licence()},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"xApiKey": []}, {"apiKey": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in table)],
        "paths": paths,
        "components": {"schemas": schemas, "responses": _refusals(), "securitySchemes": _security()},
    }


def _licence() -> Json:
    return {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def _security() -> Json:
    return {
        "bearer": {"type": "http", "scheme": "bearer"},
        "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
    }


def _schemas(table: tuple[Operation, ...]) -> dict[str, Json]:
    structs = {
        struct
        for operation in table
        for struct in (operation.answer, operation.query, operation.body, operation.form)
        if struct is not None
    }
    ordered = sorted(structs, key=lambda struct: struct.__name__)
    _, schemas = msgspec.json.schema_components([*ordered, ErrorEnvelope], ref_template=REF)
    answered = {operation.answer.__name__ for operation in table if operation.answer is not None}
    for name in _reached(answered, schemas):
        schemas[name]["required"] = list(schemas[name]["properties"])  # an answer always holds every field
    for operation in table:
        if operation.form is not None:
            _as_binary(schemas[operation.form.__name__])
    return schemas


def _reached(names: set[str], schemas: dict[str, Json]) -> set[str]:
    """The schemas that answers consist of, less those that requests share."""
    reached, open_names = set[str](), set(names)
    while open_names:
        name = open_names.pop()
        reached.add(name)
        open_names |= set(re.findall(r"'#/components/schemas/(\w+)'", repr(schemas[name]))) - reached
    return {name for name in reached if "properties" in schemas[name]}


def _as_binary(schema: Json) -> None:
    for field in schema["properties"].values():
        if field.pop("contentEncoding", None) is not None:
            field["contentMediaType"] = "application/octet-stream"


def _operation(operation: Operation, schemas: dict[str, Json]) -> Json:
    made: Json = {"operationId": operation.name, "summary": operation.summary, "tags": [operation.tag]}
    parameters = [*_path_parameters(operation), *_query_parameters(operation, schemas), *_header_parameters(operation)]
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None or operation.form is not None:
        made["requestBody"] = _request_body(operation)
    if operation.open:
        made["security"] = []
    made["responses"] = {"200": _success(operation), **_failures(operation)}
    return made


def _path_parameters(operation: Operation) -> list[Json]:
    names = re.findall(r"\{(\w+)\*?\}", operation.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(operation: Operation, schemas: dict[str, Json]) -> list[Json]:
    if operation.query is None:
        return []
    schema = schemas[operation.query.__name__]
    parameters: list[Json] = []
    for name, field in schema["properties"].items():
        parameter: Json = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        plain = {key: value for key, value in field.items() if key != "description"}
        described = field.get("description") or next(
            (option["description"] for option in field.get("anyOf", ()) if "description" in option), None
        )
        if described:
            parameter["description"] = described
        if any(option.get("type") == "object" for option in (field, *field.get("anyOf", ()))):
            parameter |= {"style": "deepObject", "explode": True}
        parameters.append({**parameter, "schema": _not_null(plain)})
    return parameters


def _not_null(schema: Json) -> Json:
    """A parameter that is not sent is absent, never null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if not options:
        return schema
    return options[0] if len(options) == 1 else {"anyOf": options}


def _header_parameters(operation: Operation) -> list[Json]:
    return [
        {"name": name, "in": "header", "required": False, "description": REQUEST_HEADERS[name], "schema": _text()}
        for name in operation.headers
    ]


def _text() -> Json:
    return {"type": "string"}


def _request_body(operation: Operation) -> Json:
    struct = operation.body or operation.form
    media: Json = {"schema": {"$ref": REF.format(name=struct.__name__ if struct else "")}}
    if operation.example is not None:
        media["example"] = operation.example
    return {"required": True, "content": {"application/json" if operation.body else "multipart/form-data": media}}


def _success(operation: Operation) -> Json:
    schema: Json = {"$ref": REF.format(name=operation.answer.__name__)} if operation.answer else {}
    if operation.answer is None and operation.media.startswith("text/"):
        schema = _text()
    headers = {"x-request-id": {"schema": _text(), "description": "Names this request in the gateway's log."}}
    return {"description": operation.summary, "headers": headers, "content": {operation.media: {"schema": schema}}}


def _failures(operation: Operation) -> Json:
    codes = {400, 500, 503, *operation.errors, *(() if operation.open else (401, 403, 429))}
    failures: Json = {str(code): {"$ref": f"#/components/responses/{code}"} for code in sorted(codes)}
    if operation.open and operation.answer is not None:  # health tells what fails in its usual form
        failures["503"] = {**_success(operation), "description": "Not ready."}
    if operation.media == "application/octet-stream":
        failures |= {
            "206": {"description": "The range that was asked for.", "content": {operation.media: {"schema": {}}}},
            "304": {"description": "You have it already."},
        }
    return failures


def _refusals() -> Json:
    content = {"application/json": {"schema": {"$ref": REF.format(name="ErrorEnvelope")}}}
    return {str(code): {"description": text, "content": content} for code, text in ERRORS.items()}
