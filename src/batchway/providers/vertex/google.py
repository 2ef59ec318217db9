"""Calls to Google Cloud: the gateway's HTTP client with a bearer token on every request.

A call that is refused because of its token is made once more with a new one: nothing was done by the first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.http import Download, Http, Query, Reply
from batchway.providers.vertex.credentials import Tokens

TIMEOUT = 60.0

T = TypeVar("T")


class Google:
    """`quota_project` is charged and asked for quota in place of the credentials' own project."""

    def __init__(self, http: Http, tokens: Tokens, quota_project: str | None = None) -> None:
        self._http = http
        self._tokens = tokens
        self._quota_project = quota_project

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT, **more: Any
    ) -> Reply:
        """`Http.request`, signed; `more` is passed on to it."""
        try:
            return await self._http.request(method, url, headers=await self._signed(headers), timeout=timeout, **more)
        except ProviderError as error:
            if error.status != 401 or not self._tokens.renew():
                raise
        return await self._http.request(method, url, headers=await self._signed(headers), timeout=timeout, **more)

    @asynccontextmanager
    async def stream(self, url: str, *, query: Query, timeout: float = TIMEOUT) -> AsyncGenerator[Download]:
        """`Http.stream`, signed."""
        async with self._http.stream(url, headers=await self._signed(None), query=query, timeout=timeout) as download:
            yield download

    async def _signed(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        signed = {**(headers or {}), "authorization": f"Bearer {await self._tokens.token()}"}
        if self._quota_project:
            signed["x-goog-user-project"] = self._quota_project
        return signed


def decoded(reply: Reply, shape: type[T]) -> T:
    """The body in this shape; anything else, such as a proxy's page with status 200, passes as a provider's failure."""
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except msgspec.DecodeError:
        message = f"an answer of {len(reply.body)} bytes (status {reply.status}) is not what was asked for"
        raise ProviderError(message, fault=Fault.TRANSIENT, status=reply.status) from None
