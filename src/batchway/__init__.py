"""Batchway: the batch gateway for LLMs. These are its public names, loaded when they are first used.

`import batchway` loads no engine, no server and no HTTP library. Calls go to BATCHWAY_BASE_URL (or `base_url=`), else
to the gateway inside this process, which `batchway.local` starts at the first call.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchway.sdk import place

if TYPE_CHECKING:
    from batchway.sdk.aclient import AsyncClient
    from batchway.sdk.client import Client
    from batchway.sdk.errors import (
        APIConnectionError,
        APIError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        BatchFailedError,
        ConflictError,
        InternalServerError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        RequestTooLargeError,
        UnprocessableEntityError,
    )
    from batchway.sdk.functions import (
        aadopt_batch,
        abatch_results,
        acancel_batch,
        acreate_batch,
        acreate_file,
        acreate_key,
        adelete_key,
        adopt_batch,
        aestimate_batch,
        afile_content,
        afile_delete,
        afile_list,
        afile_retrieve,
        alist_batches,
        alist_keys,
        alist_models,
        aretrieve_batch,
        aretry_batch,
        arun,
        batch_results,
        cancel_batch,
        create_batch,
        create_file,
        create_key,
        delete_key,
        estimate_batch,
        file_content,
        file_delete,
        file_list,
        file_retrieve,
        list_batches,
        list_keys,
        list_models,
        retrieve_batch,
        retry_batch,
        run,
    )
    from batchway.sdk.objects import Batch, FileObject
    from batchway.sdk.place import Local
    from batchway.sdk.results import Result

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "BatchFailedError",
    "Client",
    "ConflictError",
    "FileObject",
    "InternalServerError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestTooLargeError",
    "Result",
    "UnprocessableEntityError",
    "aadopt_batch",
    "abatch_results",
    "acancel_batch",
    "acreate_batch",
    "acreate_file",
    "acreate_key",
    "adelete_key",
    "adopt_batch",
    "aestimate_batch",
    "afile_content",
    "afile_delete",
    "afile_list",
    "afile_retrieve",
    "alist_batches",
    "alist_keys",
    "alist_models",
    "aretrieve_batch",
    "aretry_batch",
    "arun",
    "batch_results",
    "cancel_batch",
    "create_batch",
    "create_file",
    "create_key",
    "delete_key",
    "estimate_batch",
    "file_content",
    "file_delete",
    "file_list",
    "file_retrieve",
    "list_batches",
    "list_keys",
    "list_models",
    "retrieve_batch",
    "retry_batch",
    "run",
]

# Classes by their module; all other names are functions.
_CLASSES = {
    "AsyncClient": "aclient",
    "Client": "client",
    "Batch": "objects",
    "FileObject": "objects",
    "Result": "results",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'batchway' has no attribute {name!r}")
    home = "errors" if name.endswith("Error") else _CLASSES.get(name, "functions")
    value = getattr(import_module(f"batchway.sdk.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _open_local() -> Local:
    from batchway.local import open_local  # noqa: PLC0415 - the lazy root: a whole gateway stands behind it

    return open_local()


place.open_local = _open_local
