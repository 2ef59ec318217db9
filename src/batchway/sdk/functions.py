"""The module-level functions, `create_batch` and `acreate_batch` and all others: operations done by a shared client.

There is one shared client a flavour and gateway, kept for its connections.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from batchway.sdk import access, calls, events, place, webhooks
from batchway.sdk import costs as cost_calls
from batchway.sdk import run as whole_job
from batchway.sdk.aclient import AsyncClient
from batchway.sdk.client import Client
from batchway.sdk.surface import function


class Data(Protocol):
    """What an operation made: it may name its gateway."""

    @property
    def base_url(self) -> str | None: ...


_client = lru_cache(maxsize=16)(Client)
_async_client = lru_cache(maxsize=16)(AsyncClient)


def _now(data: Data) -> Client:
    return _client(base_url=data.base_url or place.configured_url())


def _soon(data: Data) -> AsyncClient:
    return _async_client(base_url=data.base_url or place.configured_url())


create_file = function(calls.create_file, Client.perform, _now, "create_file")
file_retrieve = function(calls.file_retrieve, Client.perform, _now, "file_retrieve")
file_list = function(calls.file_list, Client.perform, _now, "file_list")
file_delete = function(calls.file_delete, Client.perform, _now, "file_delete")
file_content = function(calls.file_content, Client.download, _now, "file_content")
create_batch = function(calls.create_batch, Client.perform, _now, "create_batch")
retrieve_batch = function(calls.retrieve_batch, Client.perform, _now, "retrieve_batch")
list_batches = function(calls.list_batches, Client.perform, _now, "list_batches")
cancel_batch = function(calls.cancel_batch, Client.perform, _now, "cancel_batch")
resume_batch = function(calls.resume_batch, Client.perform, _now, "resume_batch")
retry_batch = function(calls.retry_batch, Client.perform, _now, "retry_batch")
estimate_batch = function(calls.estimate_batch, Client.perform, _now, "estimate_batch")
adopt_batch = function(calls.adopt_batch, Client.perform, _now, "adopt_batch")
batch_results = function(calls.batch_results, Client.stream, _now, "batch_results")
batch_events = function(events.batch_events, Client.stream, _now, "batch_events")
list_receivers = function(events.list_receivers, Client.perform, _now, "list_receivers")
retry_receiver = function(events.retry_receiver, Client.perform, _now, "retry_receiver")
list_models = function(calls.list_models, Client.perform, _now, "list_models")
costs = function(cost_calls.costs, Client.perform, _now, "costs")
usage = function(cost_calls.usage, Client.perform, _now, "usage")
correct_costs = function(cost_calls.correct_costs, Client.perform, _now, "correct_costs")
create_key = function(access.create_key, Client.perform, _now, "create_key")
retrieve_key = function(access.retrieve_key, Client.perform, _now, "retrieve_key")
list_keys = function(access.list_keys, Client.perform, _now, "list_keys")
update_key = function(access.update_key, Client.perform, _now, "update_key")
rotate_key = function(access.rotate_key, Client.perform, _now, "rotate_key")
delete_key = function(access.delete_key, Client.perform, _now, "delete_key")
create_project = function(access.create_project, Client.perform, _now, "create_project")
retrieve_project = function(access.retrieve_project, Client.perform, _now, "retrieve_project")
list_projects = function(access.list_projects, Client.perform, _now, "list_projects")
update_project = function(access.update_project, Client.perform, _now, "update_project")
delete_project = function(access.delete_project, Client.perform, _now, "delete_project")
retrieve_budget = function(access.retrieve_budget, Client.perform, _now, "retrieve_budget")
set_budget = function(access.set_budget, Client.perform, _now, "set_budget")
list_audit = function(access.list_audit, Client.perform, _now, "list_audit")
create_webhook = function(webhooks.create_webhook, Client.perform, _now, "create_webhook")
list_webhooks = function(webhooks.list_webhooks, Client.perform, _now, "list_webhooks")
retrieve_webhook = function(webhooks.retrieve_webhook, Client.perform, _now, "retrieve_webhook")
update_webhook = function(webhooks.update_webhook, Client.perform, _now, "update_webhook")
rotate_webhook = function(webhooks.rotate_webhook, Client.perform, _now, "rotate_webhook")
test_webhook = function(webhooks.test_webhook, Client.perform, _now, "test_webhook")
delete_webhook = function(webhooks.delete_webhook, Client.perform, _now, "delete_webhook")
list_deliveries = function(webhooks.list_deliveries, Client.perform, _now, "list_deliveries")
retry_delivery = function(webhooks.retry_delivery, Client.perform, _now, "retry_delivery")
retry_deliveries = function(webhooks.retry_deliveries, Client.perform, _now, "retry_deliveries")
run = function(whole_job.submission, Client.start, _now, "run")

acreate_file = function(calls.create_file, AsyncClient.perform, _soon, "acreate_file")
afile_retrieve = function(calls.file_retrieve, AsyncClient.perform, _soon, "afile_retrieve")
afile_list = function(calls.file_list, AsyncClient.perform, _soon, "afile_list")
afile_delete = function(calls.file_delete, AsyncClient.perform, _soon, "afile_delete")
afile_content = function(calls.file_content, AsyncClient.download, _soon, "afile_content")
acreate_batch = function(calls.create_batch, AsyncClient.perform, _soon, "acreate_batch")
aretrieve_batch = function(calls.retrieve_batch, AsyncClient.perform, _soon, "aretrieve_batch")
alist_batches = function(calls.list_batches, AsyncClient.perform, _soon, "alist_batches")
acancel_batch = function(calls.cancel_batch, AsyncClient.perform, _soon, "acancel_batch")
aresume_batch = function(calls.resume_batch, AsyncClient.perform, _soon, "aresume_batch")
aretry_batch = function(calls.retry_batch, AsyncClient.perform, _soon, "aretry_batch")
aestimate_batch = function(calls.estimate_batch, AsyncClient.perform, _soon, "aestimate_batch")
aadopt_batch = function(calls.adopt_batch, AsyncClient.perform, _soon, "aadopt_batch")
abatch_results = function(calls.batch_results, AsyncClient.stream, _soon, "abatch_results")
abatch_events = function(events.batch_events, AsyncClient.stream, _soon, "abatch_events")
alist_receivers = function(events.list_receivers, AsyncClient.perform, _soon, "alist_receivers")
aretry_receiver = function(events.retry_receiver, AsyncClient.perform, _soon, "aretry_receiver")
alist_models = function(calls.list_models, AsyncClient.perform, _soon, "alist_models")
acosts = function(cost_calls.costs, AsyncClient.perform, _soon, "acosts")
ausage = function(cost_calls.usage, AsyncClient.perform, _soon, "ausage")
acorrect_costs = function(cost_calls.correct_costs, AsyncClient.perform, _soon, "acorrect_costs")
acreate_key = function(access.create_key, AsyncClient.perform, _soon, "acreate_key")
aretrieve_key = function(access.retrieve_key, AsyncClient.perform, _soon, "aretrieve_key")
alist_keys = function(access.list_keys, AsyncClient.perform, _soon, "alist_keys")
aupdate_key = function(access.update_key, AsyncClient.perform, _soon, "aupdate_key")
arotate_key = function(access.rotate_key, AsyncClient.perform, _soon, "arotate_key")
adelete_key = function(access.delete_key, AsyncClient.perform, _soon, "adelete_key")
acreate_project = function(access.create_project, AsyncClient.perform, _soon, "acreate_project")
aretrieve_project = function(access.retrieve_project, AsyncClient.perform, _soon, "aretrieve_project")
alist_projects = function(access.list_projects, AsyncClient.perform, _soon, "alist_projects")
aupdate_project = function(access.update_project, AsyncClient.perform, _soon, "aupdate_project")
adelete_project = function(access.delete_project, AsyncClient.perform, _soon, "adelete_project")
aretrieve_budget = function(access.retrieve_budget, AsyncClient.perform, _soon, "aretrieve_budget")
aset_budget = function(access.set_budget, AsyncClient.perform, _soon, "aset_budget")
alist_audit = function(access.list_audit, AsyncClient.perform, _soon, "alist_audit")
acreate_webhook = function(webhooks.create_webhook, AsyncClient.perform, _soon, "acreate_webhook")
alist_webhooks = function(webhooks.list_webhooks, AsyncClient.perform, _soon, "alist_webhooks")
aretrieve_webhook = function(webhooks.retrieve_webhook, AsyncClient.perform, _soon, "aretrieve_webhook")
aupdate_webhook = function(webhooks.update_webhook, AsyncClient.perform, _soon, "aupdate_webhook")
arotate_webhook = function(webhooks.rotate_webhook, AsyncClient.perform, _soon, "arotate_webhook")
atest_webhook = function(webhooks.test_webhook, AsyncClient.perform, _soon, "atest_webhook")
adelete_webhook = function(webhooks.delete_webhook, AsyncClient.perform, _soon, "adelete_webhook")
alist_deliveries = function(webhooks.list_deliveries, AsyncClient.perform, _soon, "alist_deliveries")
aretry_delivery = function(webhooks.retry_delivery, AsyncClient.perform, _soon, "aretry_delivery")
aretry_deliveries = function(webhooks.retry_deliveries, AsyncClient.perform, _soon, "aretry_deliveries")
arun = function(whole_job.submission, AsyncClient.start, _soon, "arun")
