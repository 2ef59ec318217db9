"""Azure's batches: the shared file jobs, with deployments for models, and blobs for files where the account uses them.

One model may have several deployments, each with its own quota of waiting tokens: jobs are spread over them by their
token, and a deployment that is full passes its job on to the next. That happens only when a creation was surely
refused, so a job never runs twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from batchway.core.errors import ProviderError
from batchway.core.jobs import JobSpec, Look
from batchway.core.spans import Line
from batchway.dialects import openai as dialect
from batchway.http import Http
from batchway.providers.azure.blobs import Blobs
from batchway.providers.protocol import Source
from batchway.providers.shared.file_jobs import TOKEN_LIMIT, Dealer, FileJobs
from batchway.providers.shared.file_shapes import Remote

Deployments = Mapping[str, str]
"""The base model of each deployment, by the deployment's name."""


def serving(deployments: Deployments, model: str, token: str) -> list[str]:
    """The deployments that serve a name, best first: a deployment's own name, or that of the base model of several."""
    if model in deployments:
        return [model]
    several = sorted(name for name, base in deployments.items() if base == model)
    if not several:
        return [model]  # an unlisted name is a deployment that we have not been told of
    start = int.from_bytes(hashlib.blake2b(token.encode(), digest_size=4).digest(), "big") % len(several)
    return several[start:] + several[:start]


class AzureJobs(FileJobs):
    """Batches over uploaded files."""

    def __init__(self, dealer: Dealer, http: Http, deployments: Deployments) -> None:
        def rewrite(line: Line, job: JobSpec) -> bytes:
            return dialect.line_for(line, job.route.model, dealer.spelled(job.endpoint))

        super().__init__(dealer, http, rewrite)
        self._deployments = deployments
        self._lines = rewrite

    async def submit(self, job: JobSpec, source: Source) -> str:
        """See FileJobs; a deployment whose quota is full is passed over."""
        names = serving(self._deployments, job.route.model, job.token)
        for number, name in enumerate(names, start=1):
            route = msgspec.structs.replace(job.route, model=name)
            try:
                return await super().submit(msgspec.structs.replace(job, route=route), source)
            except ProviderError as error:
                if number == len(names) or not (error.code == TOKEN_LIMIT or error.status == 429):
                    raise
        raise AssertionError


class BlobJobs(AzureJobs):
    """Batches over blobs of a storage account that the Azure resource may read and write.

    Such batches have no metadata: the token stands in the input blob's path, which the batch echoes.
    """

    def __init__(self, dealer: Dealer, http: Http, deployments: Deployments, blobs: tuple[Blobs, str, str]) -> None:
        super().__init__(dealer, http, deployments)
        self._blobs, self._container, self._prefix = blobs

    async def fetch_input(self, look: Look) -> AsyncIterator[bytes]:
        name = look.input_file_id or ""
        # Unlike a result, an input that is gone is an error.
        chunks = self._blobs.read(name) if _is_blob(name) else super().fetch_input(look)
        async for chunk in chunks:
            yield chunk

    async def _place(self, job: JobSpec, source: Source) -> dict[str, Any]:
        async def body() -> AsyncIterator[bytes]:
            async for window in source():
                yield b"".join(self._lines(line, job) + b"\n" for line in window)

        url = self._input(job)
        await self._blobs.write(url, body())
        return {"input_blob": url, "output_folder": {"url": self._container, "delimiter": "/"}}

    def _input(self, job: JobSpec) -> str:
        return f"{self._container}/{self._prefix}/{job.token}/input.jsonl"

    def _carries(self, remote: Remote, job: JobSpec) -> bool:
        found = (remote.input_blob or "").partition("?")[0]
        return found == self._input(job) or super()._carries(remote, job)

    def _results(self, remote: Remote) -> list[str]:
        blobs = [url for url in (remote.output_blob, remote.error_blob) if url]
        return [*super()._results(remote), *blobs]

    async def _content(self, name: str) -> AsyncIterator[bytes]:
        if not _is_blob(name):
            async for chunk in super()._content(name):
                yield chunk
            return
        try:
            async for chunk in self._blobs.read(name):
                yield chunk
        except ProviderError as error:
            if error.status != 404:  # Azure names both blobs, also the one that it had no line for
                raise

    async def _remove(self, name: str) -> None:
        if _is_blob(name):
            await self._blobs.delete(name)
        else:
            await super()._remove(name)


def _is_blob(name: str) -> bool:
    return name.startswith(("https://", "http://"))
