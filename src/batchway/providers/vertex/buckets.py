"""Objects of Google Cloud Storage through its JSON API: the staging place of jobs.

An upload streams in pieces of 8 MiB through one resumable session, so memory stays flat whatever the size, and a piece
that got lost is sent again from where the server says it stands. The object appears when its last piece is there.
Why not the gateway's own storage seam: that one takes credentials from the environment, this one the account's tokens.
Source: cloud.google.com/storage/docs/json_api and /performing-resumable-uploads, read November 2026.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec

from batchway.core.errors import ConfigError, Fault, ProviderError
from batchway.http import SAFE, Reply
from batchway.providers.vertex.google import Google, decoded

STORAGE_URL = "https://storage.googleapis.com"
PIECE = 8 << 20  # a multiple of 256 KiB, as all pieces but the last must be
PIECE_TIMEOUT = 300.0
PLACE = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?")
KEPT = re.compile(r"bytes=0-(\d+)")


class _Object(msgspec.Struct):
    name: str = ""
    size: str | None = None


class _Page(msgspec.Struct, rename="camel"):
    items: list[_Object] = []
    next_page_token: str | None = None


def split_uri(uri: str) -> tuple[str, str]:
    """(bucket, name) of `gs://bucket/name`; ConfigError for anything else."""
    found = PLACE.fullmatch(uri)
    if found is None:
        raise ConfigError(f"'{uri}' is no bucket: write gs://bucket or gs://bucket/prefix")
    return found[1], (found[2] or "").strip("/")


class Bucket:
    """One bucket, by the names of its objects."""

    def __init__(self, google: Google, storage_url: str, name: str) -> None:
        self.name = name
        self._google = google
        self._objects = f"{storage_url}/storage/v1/b/{name}/o"
        self._uploads = f"{storage_url}/upload/storage/v1/b/{name}/o"

    def uri(self, name: str) -> str:
        """The `gs://` address of an object or a prefix."""
        return f"gs://{self.name}/{name}"

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """The size in bytes of the object made of all chunks; without any byte there is no object."""
        held, sent, session = bytearray(), 0, None
        async for chunk in chunks:
            held += chunk
            while len(held) > PIECE:  # the last piece is never empty
                session = session or await self._session(name)
                await self._put(session, bytes(held[:PIECE]), sent, None)
                sent += PIECE
                del held[:PIECE]
        if session is not None:
            await self._put(session, bytes(held), sent, sent + len(held))
        elif held:
            await self._simple(name, bytes(held))
        return sent + len(held)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names that begin with this."""
        query: dict[str, str | int | bool] = {"prefix": prefix}
        while True:
            page = decoded(await self._google.request("GET", self._objects, query=query), _Page)
            for found in page.items:
                yield found.name
            if not page.next_page_token:
                return
            query["pageToken"] = page.next_page_token

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of an object."""
        async with self._google.stream(f"{self._objects}/{quote(name, safe='')}", query={"alt": "media"}) as download:
            async for chunk in download.chunks():
                yield chunk

    async def delete(self, name: str) -> None:
        """Removes an object; an absent one is fine."""
        await self._google.request("DELETE", f"{self._objects}/{quote(name, safe='')}", ok=(200, 204, 404))

    async def _simple(self, name: str, data: bytes) -> None:
        query = {"uploadType": "media", "name": name}
        await self._google.request(
            "POST",
            self._uploads,
            headers={"content-type": "application/jsonl"},
            query=query,
            body=data,
            timeout=PIECE_TIMEOUT,
            retry=SAFE,  # the same bytes under the same name
        )

    async def _session(self, name: str) -> str:
        reply = await self._google.request(
            "POST",
            self._uploads,
            headers={"x-upload-content-type": "application/jsonl"},
            query={"uploadType": "resumable", "name": name},
            json=b"{}",
            retry=SAFE,  # a session that nobody uses ends by itself
        )
        if "location" not in reply.headers:
            raise ProviderError("the storage opened an upload without an address", fault=Fault.TRANSIENT)
        return reply.headers["location"]

    async def _put(self, session: str, data: bytes, start: int, total: int | None) -> None:
        """Sends one piece; with `total` it is the last one."""
        end = start + len(data)
        while start < end:
            said = f"bytes {start}-{end - 1}/{'*' if total is None else total}"
            reply = await self._piece(session, said, data[len(data) - (end - start) :])
            if reply.status != 308:
                _check_size(reply, total)
                return
            kept = KEPT.fullmatch(reply.headers.get("range", ""))
            after = int(kept[1]) + 1 if kept else 0
            if after <= start or after > end:
                raise ProviderError(f"an upload stands at byte {after}, not after {start}", fault=Fault.TRANSIENT)
            start = after
        if total is not None:
            raise ProviderError("an upload got its last byte and was not finished", fault=Fault.TRANSIENT)

    async def _piece(self, session: str, said: str, data: bytes) -> Reply:
        try:
            return await self._google.request(
                "PUT",
                session,
                headers={"content-range": said},
                body=data,
                timeout=PIECE_TIMEOUT,
                ok=(200, 201, 308),
            )
        except ProviderError as error:
            if error.status in (404, 410):  # the session is gone, not the job: the whole upload may be tried again
                raise ProviderError(error.message, fault=Fault.TRANSIENT, status=error.status) from None
            raise


def _check_size(reply: Reply, total: int | None) -> None:
    size = decoded(reply, _Object).size
    if total is None or (size is not None and size != str(total)):
        raise ProviderError(f"an object of {total} bytes was stored as {size}", fault=Fault.TRANSIENT)
