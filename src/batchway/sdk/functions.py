"""The module-level functions, `create_batch` and `acreate_batch` and all others: operations done by a shared client.

There is one shared client a flavour and gateway, kept for its connections.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from batchway.sdk import calls, place
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
retry_batch = function(calls.retry_batch, Client.perform, _now, "retry_batch")
estimate_batch = function(calls.estimate_batch, Client.perform, _now, "estimate_batch")
adopt_batch = function(calls.adopt_batch, Client.perform, _now, "adopt_batch")
batch_results = function(calls.batch_results, Client.stream, _now, "batch_results")
list_models = function(calls.list_models, Client.perform, _now, "list_models")
create_key = function(calls.create_key, Client.perform, _now, "create_key")
list_keys = function(calls.list_keys, Client.perform, _now, "list_keys")
delete_key = function(calls.delete_key, Client.perform, _now, "delete_key")
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
aretry_batch = function(calls.retry_batch, AsyncClient.perform, _soon, "aretry_batch")
aestimate_batch = function(calls.estimate_batch, AsyncClient.perform, _soon, "aestimate_batch")
aadopt_batch = function(calls.adopt_batch, AsyncClient.perform, _soon, "aadopt_batch")
abatch_results = function(calls.batch_results, AsyncClient.stream, _soon, "abatch_results")
alist_models = function(calls.list_models, AsyncClient.perform, _soon, "alist_models")
acreate_key = function(calls.create_key, AsyncClient.perform, _soon, "acreate_key")
alist_keys = function(calls.list_keys, AsyncClient.perform, _soon, "alist_keys")
adelete_key = function(calls.delete_key, AsyncClient.perform, _soon, "adelete_key")
arun = function(whole_job.submission, AsyncClient.start, _soon, "arun")
