"""The table of operations: from it come the routes, the checks of a request and the OpenAPI document.

Every operation under /v1 is reachable in five spellings: `/v1/X`, `/X`, `/{provider}/v1/X` (forces that provider) and
Azure's `/openai/X?api-version=` and `/openai/v1/X`. The last looks like a provider's name: it forces none when the
caller shows an Azure client's marks (`api-version` or an `api-key` header).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from batchway import logs
from batchway.core.errors import RequestError
from batchway.core.principal import Principal
from batchway.core.principal import Scope as KeyScope
from batchway.db.audit import Actor
from batchway.db.idempotency import AlreadyAnswered, Idempotency
from batchway.server import decoding, once
from batchway.server.auth import Keyring
from batchway.server.limits import Meter
from batchway.server.operations import Gateway
from batchway.wire.surface import CLASSIC_SEGMENT

SMALL_BODY = 1 << 20
LONGEST_ID = 100  # characters of a client's that the log takes for an id

encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Call:
    """One request to an operation: who, what and the decoded input."""

    request: Request
    gateway: Gateway
    keyring: Keyring
    operation: Operation
    params: Mapping[str, str]
    principal: Principal
    provider: str | None  # forced: by path, query or header; a body field comes last and is the handler's
    query: Any = None
    body: Any = None
    raw: bytes = b""
    idempotency: Idempotency | None = None

    @property
    def actor(self) -> Actor:
        """Who asks, for the audit log."""
        return Actor(self.principal.key_id, self.request.scope["request_id"])


Handler = Callable[[Call], Awaitable[msgspec.Struct | Response]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One row of the table. `path` has `{name}` for one segment, `{name*}` for all that follow."""

    method: str
    path: str
    name: str
    handler: Handler
    tag: str
    answer: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    form: type[msgspec.Struct] | None = None  # a multipart body, read by the handler
    media: str = "application/json"  # of an answer that is no struct
    max_body: int = SMALL_BODY
    open: bool = False  # needs no key
    admin: bool = False
    scope: KeyScope | None = None  # what a key needs; None: admin, read or write, as `needs` says
    versioned: bool = True  # stands under /v1, in every spelling
    errors: tuple[int, ...] = ()  # beyond 400, 401, 403, 429 and 500
    example: Any = None  # of the body
    headers: tuple[str, ...] = ()  # request headers to document

    @property
    def summary(self) -> str:
        """What it does: the first line of its handler."""
        return (self.handler.__doc__ or "").partition("\n")[0]

    @property
    def needs(self) -> KeyScope:
        """The scope that a key needs for it."""
        if self.admin:
            return "admin"
        return self.scope or ("read" if self.method == "GET" else "write")

    @property
    def full_path(self) -> str:
        """The path in its first spelling."""
        return f"/v1{self.path}" if self.versioned else self.path


@dataclass(slots=True)
class _Node:
    """One segment of the paths below it."""

    literal: dict[str, _Node] = field(default_factory=dict[str, "_Node"])
    param: tuple[str, _Node] | None = None
    methods: dict[str, Operation] = field(default_factory=dict[str, Operation])
    greedy: str | None = None


class Table:
    """All operations, found by method and path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        self._root = _Node()
        for operation in self.operations:
            node = self._place(operation)
            if operation.method in node.methods:
                raise ValueError(f"two operations for {operation.method} {operation.path}")
            node.methods[operation.method] = operation

    def find(self, path: str) -> tuple[Mapping[str, Operation], dict[str, str], str | None]:
        """(operations by method, path parameters, provider named in the path); no operations when nothing is there."""
        for provider, segments, versioned in _spellings(path.strip("/").split("/")):
            found = self._walk(segments)
            if found is not None and (not versioned or all(one.versioned for one in found[0].values())):
                return *found, provider
        return {}, {}, None

    def _place(self, operation: Operation) -> _Node:
        node = self._root
        for segment in operation.path.strip("/").split("/"):
            if not segment.startswith("{"):
                node = node.literal.setdefault(segment, _Node())
                continue
            name = segment.strip("{*}")
            if node.param is None:
                node.param = (name, _Node(greedy=name if segment.endswith("*}") else None))
            node = node.param[1]
        return node

    def _walk(self, segments: list[str]) -> tuple[Mapping[str, Operation], dict[str, str]] | None:
        node, params = self._root, dict[str, str]()
        for place, segment in enumerate(segments):
            if (following := node.literal.get(segment)) is not None:
                node = following
            elif node.param is not None and segment:
                name, node = node.param
                params[name] = segment
                if node.greedy:
                    params[name] = "/".join(segments[place:])
                    break
            else:
                return None
        return (node.methods, params) if node.methods else None


def _spellings(segments: list[str]) -> Iterator[tuple[str | None, list[str], bool]]:
    """(provider, the path without its spelling, whether it was spelled out), the likeliest first."""
    first, rest = segments[0], segments[1:]
    if first == "v1":
        yield None, rest, True
    elif rest[:1] == ["v1"]:
        yield first, rest[1:], True
    elif first == CLASSIC_SEGMENT:
        yield None, rest, True
    yield None, segments, False


class Api(BaseRoute):
    """The whole table as one Starlette route: a walk over segments instead of a regular expression a route."""

    def __init__(self, table: Table, gateway: Gateway) -> None:
        self.table = table
        self.gateway = gateway
        self.keyring = Keyring(gateway.db, gateway.settings, gateway.clock)
        self.meter = Meter(gateway.db, gateway.clock)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        methods, params, provider = self.table.find(scope["path"])
        if not methods:
            return Match.NONE, {}
        operation = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        found = {"operation": operation, "path_params": params, "provider": provider, "allowed": methods}
        return (Match.PARTIAL if operation is None else Match.FULL), found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope["operation"]
        if operation is None:
            raise HTTPException(405, headers={"allow": ", ".join(scope["allowed"])})
        call = await self._call(operation, scope, Request(scope, receive, send))
        answer = await _answer(call)
        if not isinstance(answer, Response):
            answer = Response(encode(answer), media_type="application/json")
        await answer(scope, receive, send)

    async def _call(self, operation: Operation, scope: Scope, request: Request) -> Call:
        headers = dict[bytes, bytes](scope["headers"])
        principal = await self.keyring.admit(scope, headers, None if operation.open else operation.needs)
        logs.note(key_id=principal.key_id, **_named(scope["path_params"]))
        if principal.limits.requests_per_minute is not None or principal.project_limits.requests_per_minute is not None:
            await self.meter.count(principal, scope)
        for name, value in scope["path_params"].items():
            decoding.refuse_nul(name, value)
        provider = _provider(scope, headers)
        call = Call(request, self.gateway, self.keyring, operation, scope["path_params"], principal, provider)
        if operation.query is not None:
            call.query = decoding.query(operation.query, scope["query_string"])
        if operation.body is not None:
            call.body, call.raw = await decoding.body(operation.body, request, operation.max_body)
        if operation.method == "POST" and operation.form is None:  # a form's content is known when it has streamed
            call.idempotency = once.wish(call.request, _fingerprinted(call))
        return call


async def _answer(call: Call) -> msgspec.Struct | Response:
    try:
        if call.idempotency is not None:
            await once.refuse_repeat(call.gateway.db, call.principal, call.idempotency, call.gateway.clock())
        return await call.operation.handler(call)
    except AlreadyAnswered as again:
        return Response(again.body, media_type="application/json")


def _named(params: Mapping[str, str]) -> dict[str, str]:
    """The batch that the path names, for the log."""
    return {"batch_id": params["batch_id"][:LONGEST_ID]} if "batch_id" in params else {}


def _fingerprinted(call: Call) -> tuple[bytes, ...]:
    return call.operation.name.encode(), repr(call.params).encode(), (call.provider or "").encode(), call.raw


def _provider(scope: Scope, headers: dict[bytes, bytes]) -> str | None:
    """The provider that this request forces: path, query `provider`, header `custom-llm-provider`, in that order."""
    named: str | None = scope["provider"]
    pairs = dict(decoding.query_pairs(scope["query_string"])) if scope["query_string"] else {}
    if named is not None and not (named == CLASSIC_SEGMENT and ("api-version" in pairs or b"api-key" in headers)):
        return named
    asked = pairs.get("provider") or headers.get(b"custom-llm-provider", b"").decode("latin-1")
    if "\0" in asked:
        raise RequestError("Invalid 'provider': it holds a NUL character.", code="invalid_value", param="provider")
    return asked or None
