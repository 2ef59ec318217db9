"""The client for event loops: `client.py` but for its transport and its awaits."""

from __future__ import annotations

import asyncio
import tempfile
import weakref
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import IO, Self, TypeVar

from batchway.sdk import access, calls, events, place, run, webhooks
from batchway.sdk import costs as cost_calls
from batchway.sdk.call import Call
from batchway.sdk.caller import Caller
from batchway.sdk.content import Content
from batchway.sdk.http import LoopHttp
from batchway.sdk.surface import method
from batchway.sdk.transport import Transport

T = TypeVar("T")
Line = TypeVar("Line")

IN_MEMORY = 8 << 20  # bytes of a download; more go to a temporary file
PIECE = 256 << 10


class AsyncClient:
    """A gateway and how it is spoken to; `async with` or `aclose` ends its connections.

    Without `base_url` (or BATCHWAY_BASE_URL) it is the gateway inside this process, started at the first call.
    `timeout` is in seconds; `max_retries` counts the tries after the first. `transport` replaces HTTP.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        transport: Transport | None = None,
    ) -> None:
        url = base_url or place.configured_url()
        if transport is None and url:
            transport = LoopHttp(url, api_key)
        self._transport = transport
        self._max_retries, self._timeout = max_retries, timeout
        self._caller: Caller | None = None

    async def caller(self) -> Caller:
        """What sends the calls; the gateway of this process is opened here, not at construction."""
        if self._caller is None:
            # In a thread: starting a gateway takes longer than a loop may be held up.
            transport = self._transport or (await asyncio.to_thread(place.local)).suspending()
            self._caller = Caller(transport, sleep=asyncio.sleep, max_retries=self._max_retries, timeout=self._timeout)
        return self._caller

    async def perform(self, call: Call[T]) -> T:
        """The answer to a call made by `batchway.sdk.calls`."""
        return await (await self.caller()).perform(call)

    async def download(self, call: Call[Content]) -> Content:
        """The bytes that a call asks for, all of them."""
        headers, pieces = await (await self.caller()).download(call)
        spool = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - lives as long as the Content
        try:
            async for piece in pieces:
                spool.write(piece)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        content = Content(_read(spool), headers, spool.close)
        weakref.finalize(content, spool.close)
        return content

    async def stream(self, call: Call[Line]) -> AsyncGenerator[Line]:
        """The objects of an NDJSON answer, as they come."""
        async for fields in (await self.caller()).lines(call):
            yield call.parse(fields)

    async def start(self, submission: run.Submission) -> run.AsyncRun:
        """Submits a whole job."""
        return run.AsyncRun(await run.submitted(await self.caller(), submission))

    async def aclose(self) -> None:
        """Ends the connections; the gateway of this process goes on until the process ends."""
        if self._caller is not None:
            await self._caller.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    create_file = method(calls.create_file, perform)
    file_retrieve = method(calls.file_retrieve, perform)
    file_list = method(calls.file_list, perform)
    file_delete = method(calls.file_delete, perform)
    file_content = method(calls.file_content, download)
    create_batch = method(calls.create_batch, perform)
    retrieve_batch = method(calls.retrieve_batch, perform)
    list_batches = method(calls.list_batches, perform)
    cancel_batch = method(calls.cancel_batch, perform)
    resume_batch = method(calls.resume_batch, perform)
    retry_batch = method(calls.retry_batch, perform)
    estimate_batch = method(calls.estimate_batch, perform)
    adopt_batch = method(calls.adopt_batch, perform)
    batch_results = method(calls.batch_results, stream)
    batch_events = method(events.batch_events, stream)
    list_receivers = method(events.list_receivers, perform)
    retry_receiver = method(events.retry_receiver, perform)
    list_models = method(calls.list_models, perform)
    costs = method(cost_calls.costs, perform)
    usage = method(cost_calls.usage, perform)
    correct_costs = method(cost_calls.correct_costs, perform)
    create_key = method(access.create_key, perform)
    retrieve_key = method(access.retrieve_key, perform)
    list_keys = method(access.list_keys, perform)
    update_key = method(access.update_key, perform)
    rotate_key = method(access.rotate_key, perform)
    delete_key = method(access.delete_key, perform)
    create_project = method(access.create_project, perform)
    retrieve_project = method(access.retrieve_project, perform)
    list_projects = method(access.list_projects, perform)
    update_project = method(access.update_project, perform)
    delete_project = method(access.delete_project, perform)
    retrieve_budget = method(access.retrieve_budget, perform)
    set_budget = method(access.set_budget, perform)
    list_audit = method(access.list_audit, perform)
    create_webhook = method(webhooks.create_webhook, perform)
    list_webhooks = method(webhooks.list_webhooks, perform)
    retrieve_webhook = method(webhooks.retrieve_webhook, perform)
    update_webhook = method(webhooks.update_webhook, perform)
    rotate_webhook = method(webhooks.rotate_webhook, perform)
    test_webhook = method(webhooks.test_webhook, perform)
    delete_webhook = method(webhooks.delete_webhook, perform)
    list_deliveries = method(webhooks.list_deliveries, perform)
    retry_delivery = method(webhooks.retry_delivery, perform)
    retry_deliveries = method(webhooks.retry_deliveries, perform)
    run = method(run.submission, start)


def _read(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        while piece := spool.read(PIECE):
            yield piece
