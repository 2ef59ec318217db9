"""Azure's blob service, as far as batches use it: write, read and delete one blob, by REST over the one HTTP client.

Source: Microsoft's Blob service REST reference (Put Block, Put Block List, Get Blob, Delete Blob, Shared Key), read
November 2026; the tests drive it against Azurite. Invariants: memory holds one block; a blob is whole or absent, since
its list of blocks is sent last; credentials go to `root` and nowhere else, whatever URL a provider names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from batchway.core.errors import Fault, ProviderError
from batchway.http import SUCCESS, Http, Reply

VERSION = "2023-11-03"
BLOCK = 2 << 20  # 50,000 of them at most: 100 GB
TIMEOUT = 300.0
DELETED = frozenset({*SUCCESS, 404})


@dataclass(frozen=True, kw_only=True)
class Access:
    """How requests are authorized: by the account's key, by a signed query (SAS), or by a token."""

    account_key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    tokens: Callable[[], Awaitable[Mapping[str, str]]] | None = None


class Blobs:
    """The blobs below one URL: a container's, or an account's."""

    def __init__(self, http: Http, root: str, access: Access, clock: Callable[[], float]) -> None:
        self._http = http
        self._root = root.rstrip("/") + "/"
        self._access = access
        self._clock = clock

    async def write(self, url: str, chunks: AsyncIterator[bytes]) -> None:
        """Makes the blob of all chunks, in the place of any former one."""
        names: list[str] = []
        held = bytearray()

        async def send() -> None:
            # As long as the others and of letters and digits only: base64 of six digits.
            names.append(base64.b64encode(b"%06d" % len(names)).decode())
            await self._call("PUT", url, {"comp": "block", "blockid": names[-1]}, body=bytes(held))
            held.clear()

        async for chunk in chunks:
            held += chunk
            if len(held) >= BLOCK:
                await send()
        if held:
            await send()
        blocks = "".join(f"<Latest>{name}</Latest>" for name in names)
        listed = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'
        await self._call("PUT", url, {"comp": "blocklist"}, body=listed.encode())

    async def read(self, url: str) -> AsyncIterator[bytes]:
        """The blob's bytes; ProviderError with status 404 when there is none."""
        place, headers = await self._authorized("GET", url, {}, 0)
        async with self._http.stream(place, headers=headers, timeout=TIMEOUT) as download:
            async for chunk in download.chunks():
                yield chunk

    async def delete(self, url: str) -> None:
        """Removes the blob; an absent one is fine."""
        await self._call("DELETE", url, {})

    async def _call(self, method: str, url: str, query: Mapping[str, str], body: bytes | None = None) -> Reply:
        place, headers = await self._authorized(method, url, query, len(body or b""))
        ok = DELETED if method == "DELETE" else SUCCESS
        return await self._http.request(method, place, headers=headers, body=body, timeout=TIMEOUT, ok=ok)

    async def _authorized(
        self, method: str, url: str, query: Mapping[str, str], size: int
    ) -> tuple[str, Mapping[str, str]]:
        """Where the request goes and with which headers."""
        if not url.startswith(self._root) or "/../" in url:
            raise ProviderError("a blob outside of the configured container", fault=Fault.REJECTED, code="foreign_blob")
        signed = dict(parse_qsl(self._access.sas.lstrip("?"))) if self._access.sas else {}
        asked = urlencode({**query, **signed})
        place = f"{url.partition('?')[0]}?{asked}" if asked else url.partition("?")[0]
        headers = {
            "content-type": "application/octet-stream",
            "x-ms-date": formatdate(self._clock(), usegmt=True),
            "x-ms-version": VERSION,
        }
        if self._access.account_key:
            headers["authorization"] = _shared_key(self._access.account_key, (method, place, size), headers)
        elif self._access.tokens:
            headers.update(await self._access.tokens())
        return place, headers


def account_of(url: str) -> str:
    """The storage account that a blob URL belongs to: the host's first part, or the first folder at an emulator."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return host.partition(".")[0] if ".blob." in host else parts.path.lstrip("/").partition("/")[0]


def _shared_key(key: str, asked: tuple[str, str, int], headers: Mapping[str, str]) -> str:
    """The `authorization` of a request by "Shared Key", version 2015-02-21 and later."""
    method, place, size = asked
    account, parts = account_of(place), urlsplit(place)
    named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()) if name.startswith("x-ms-"))
    queried = "".join(f"\n{name}:{value}" for name, value in sorted(parse_qsl(parts.query)))
    # After the method: encoding, language, length, MD5, type, date, four conditions, range.
    plain = ["", "", str(size) if size else "", "", headers["content-type"], "", "", "", "", "", ""]
    text = "\n".join([method, *plain, f"{named}/{account}{unquote(parts.path)}{queried}"])
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    return f"SharedKey {account}:{base64.b64encode(digest).decode()}"
