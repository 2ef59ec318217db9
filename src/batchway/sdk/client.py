"""The blocking client."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Self, TypeVar

from batchway.sdk import access, calls, events, place, run, webhooks
from batchway.sdk import costs as cost_calls
from batchway.sdk.call import Call
from batchway.sdk.caller import Caller
from batchway.sdk.content import Content
from batchway.sdk.http import BlockingHttp
from batchway.sdk.surface import method
from batchway.sdk.transport import Transport, blocking_sleep, play, play_all

T = TypeVar("T")
Line = TypeVar("Line")


class Client:
    """A gateway and how it is spoken to. Threads may share one; `with` or `close` ends its connections.

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
            transport = BlockingHttp(url, api_key)
        self._transport = transport
        self._max_retries, self._timeout = max_retries, timeout
        self._caller: Caller | None = None

    @property
    def caller(self) -> Caller:
        """What sends the calls; the gateway of this process is opened here, not at construction."""
        if self._caller is None:
            transport = self._transport or place.local().blocking()
            self._caller = Caller(transport, sleep=blocking_sleep, max_retries=self._max_retries, timeout=self._timeout)
        return self._caller

    def perform(self, call: Call[T]) -> T:
        """The answer to a call made by `batchway.sdk.calls`."""
        return play(self.caller.perform(call))

    def download(self, call: Call[Content]) -> Content:
        """The bytes that a call asks for, read as they are used."""
        headers, pieces = play(self.caller.download(call))
        streamed = play_all(pieces)
        return Content(streamed, headers, streamed.close)

    def stream(self, call: Call[Line]) -> Generator[Line]:
        """The objects of an NDJSON answer, as they come."""
        for fields in play_all(self.caller.lines(call)):
            yield call.parse(fields)

    def start(self, submission: run.Submission) -> run.Run:
        """Submits a whole job."""
        return run.Run(play(run.submitted(self.caller, submission)))

    def close(self) -> None:
        """Ends the connections; the gateway of this process goes on until the process ends."""
        if self._caller is not None:
            play(self._caller.transport.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
