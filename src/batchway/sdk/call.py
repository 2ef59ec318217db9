"""One operation as data: what is sent, and what becomes of the answer. No I/O.

A `Call` may be sent again when that cannot do a thing twice: reads and deletions, and what carries an Idempotency-Key,
which every create gets here, once, so that all its tries are one to the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypedDict, TypeVar
from urllib.parse import quote
from uuid import uuid4

import msgspec

from batchway.sdk.errors import BadRequestError
from batchway.sdk.upload import Body

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

KEY_HEADER = "idempotency-key"


class Options(TypedDict, total=False):
    """What every function takes besides its own arguments.

    `custom_llm_provider` forces a provider (an account or a kind); `base_url` (or `api_base`) and `api_key` choose the
    gateway; `timeout` is in seconds, of silence for downloads; `extra_body` joins the fields of a POST.
    """

    custom_llm_provider: str | None
    extra_headers: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None
    timeout: float | None
    max_retries: int | None
    api_key: str | None
    base_url: str | None
    api_base: str | None


class Parse(Protocol[T_co]):
    """Makes the answer's JSON object into what the caller gets."""

    def __call__(self, fields: Mapping[str, Any], /) -> T_co: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request. `fallback` is asked instead when this one meets a 404."""

    name: str
    method: str
    path: str
    parse: Parse[T]
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | Body | None = None
    streamed: bool = False  # the answer is read piece by piece
    repeatable: bool = False
    timeout: float | None = None
    max_retries: int | None = None
    api_key: str | None = None
    base_url: str | None = None
    fallback: Call[T] | None = None

    @property
    def rereadable(self) -> bool:
        """Whether its body can be sent a second time."""
        return not isinstance(self.body, Body) or self.body.source.repeatable

    @property
    def safe(self) -> bool:
        """Whether a second try does no harm when the first was heard."""
        return self.repeatable or self.method in ("GET", "DELETE") or KEY_HEADER in self.headers


def call(  # noqa: PLR0913 - the one place that makes a Call
    name: str,
    route: str,
    parse: Parse[T],
    options: Options,
    *,
    query: Mapping[str, Any] | None = None,
    json: Mapping[str, Any] | None = None,
    once: bool = False,
    repeatable: bool = False,
) -> Call[T]:
    """The call for `route` (`METHOD /path`). TypeError for an unknown option; `once` gives it an Idempotency-Key."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument '{min(unknown)}'")
    method, path = route.split(" ", 1)
    extra = options.get("extra_body")
    if extra and json is None:
        raise BadRequestError(f"{name}() sends no body that could take an extra_body.", param="extra_body")
    headers = {key.lower(): value for key, value in (options.get("extra_headers") or {}).items()}
    if provider := options.get("custom_llm_provider"):
        headers.setdefault("custom-llm-provider", provider)
    if once:
        headers.setdefault(KEY_HEADER, uuid4().hex)
    if json is not None:
        headers.setdefault("content-type", "application/json")
    return Call(
        name=name,
        method=method,
        path=f"/v1{path}",
        parse=parse,
        query=tuple(pairs(query or {})),
        headers=headers,
        body=None if json is None else _encode({**present(json), **(extra or {})}),
        repeatable=repeatable,
        timeout=options.get("timeout"),
        max_retries=options.get("max_retries"),
        api_key=options.get("api_key"),
        base_url=options.get("base_url") or options.get("api_base"),
    )


def with_form(made: Call[T], body: Body) -> Call[T]:
    """The same call with a multipart body."""
    return replace(made, body=body, headers={**made.headers, "content-type": body.content_type})


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def pairs(query: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Query pairs of what was given; a mapping becomes `name[key]=value`, a tuple the same name again and again."""
    for name, value in present(query).items():
        if isinstance(value, Mapping):
            yield from ((f"{name}[{key}]", str(inner)) for key, inner in value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any mapping of texts
        elif isinstance(value, tuple):
            yield from ((name, str(inner)) for inner in value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any texts
        else:
            yield name, str(value)


def segment(value: object, param: str) -> str:
    """An id as a path segment; BadRequestError when it cannot be one."""
    if not isinstance(value, str):
        raise BadRequestError(f"Invalid '{param}': expected a string, got {type(value).__name__}.", param=param)
    if not value.strip() or value in (".", ".."):
        raise BadRequestError(f"Invalid '{param}': it is empty.", param=param)
    return quote(value, safe="")


def _encode(fields: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(fields)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise BadRequestError(f"The arguments are not JSON: {error}") from None
