"""A provider whose calls are counted and timed, under the name of its account; otherwise it is the provider.

Accounts hand this out instead of the native lane, so no provider and no stage says anything of metrics.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from batchway.core.jobs import JobSpec, Limits, Look
from batchway.metrics import calling
from batchway.providers.protocol import Answer, Provider, Source


class Metered:
    """`Provider` over another one."""

    def __init__(self, account: str, provider: Provider) -> None:
        self._account = account
        self.carrier = provider

    def limits(self, model: str) -> Limits:
        return self.carrier.limits(model)

    async def submit(self, job: JobSpec, source: Source) -> str:
        with calling(self._account, "submit"):
            return await self.carrier.submit(job, source)

    async def find(self, job: JobSpec) -> str | None:
        with calling(self._account, "find"):
            return await self.carrier.find(job)

    async def look(self, job: JobSpec) -> Look:
        with calling(self._account, "look"):
            return await self.carrier.look(job)

    async def cancel(self, job: JobSpec) -> None:
        with calling(self._account, "cancel"):
            await self.carrier.cancel(job)

    async def answers(self, job: JobSpec, look: Look, source: Source) -> AsyncIterator[list[Answer]]:
        with calling(self._account, "answers"):
            async for window in self.carrier.answers(job, look, source):
                yield window

    async def clean(self, job: JobSpec, look: Look) -> None:
        with calling(self._account, "clean"):
            await self.carrier.clean(job, look)
