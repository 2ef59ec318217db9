"""Every operation, once: its arguments, what is sent, what comes back. Clients and functions are made from these.

A function here checks its arguments (BadRequestError or TypeError, before anything is sent) and returns a `Call`. Names
and parameters are LiteLLM's where it has the operation; common options stand in `Options`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar, Unpack

from batchway.sdk.call import Call, Options, call, segment, with_form
from batchway.sdk.content import Content
from batchway.sdk.errors import BadRequestError
from batchway.sdk.objects import (
    Batch,
    BatchEstimate,
    BatchPage,
    FileDeleted,
    FileObject,
    FilePage,
    ModelPage,
    Object,
    made,
)
from batchway.sdk.results import Result
from batchway.sdk.upload import FileTypes, body

Kind = TypeVar("Kind", bound=Object)
Order = Literal["asc", "desc"]
Metadata = Mapping[str, str]

WINDOW = re.compile(r"[1-9]\d*[mhd]")
LONGEST_PAGE = 100
LONGEST_FILE_PAGE = 10_000


# Files ----------------------------------------------------------------------------------------------------------------


def create_file(
    file: FileTypes,
    purpose: str = "batch",
    expires_after: Mapping[str, Any] | None = None,
    *,
    strict: bool = False,
    **options: Unpack[Options],
) -> Call[FileObject]:
    """Uploads a file in pieces and returns it.

    Args:
        file: A binary file object, bytes, a path, or a tuple (name, one of these).
        purpose: What it is for; `batch` for the input of a batch.
        expires_after: `{"anchor": "created_at", "seconds": 3600..2592000}`.
        strict: Refuse a batch file with faults now, telling all of them, instead of at the batch's validation.
        options: See `Options`.
    """
    form = dict(options.get("extra_body") or {})
    options["extra_body"] = None
    if not purpose:
        raise BadRequestError("Missing required parameter: 'purpose'.", param="purpose")
    made_call = call(
        "create_file",
        "POST /files",
        _as(FileObject),
        options,
        query={"validate": "strict" if strict else None},
        once=True,
    )
    fields = {"purpose": purpose, **_expiry(expires_after), **{name: str(value) for name, value in form.items()}}
    return with_form(made_call, body(file, fields))


def file_retrieve(file_id: str, **options: Unpack[Options]) -> Call[FileObject]:
    """Returns a file's description: its size, name and purpose, and what was found in it."""
    return call("file_retrieve", f"GET /files/{segment(file_id, 'file_id')}", _as(FileObject), options)


def file_list(
    *,
    purpose: str | None = None,
    limit: int | None = None,
    after: str | None = None,
    order: Order | None = None,
    **options: Unpack[Options],
) -> Call[FilePage]:
    """Returns a page of files, newest first; `limit` is 1 to 10000."""
    query = {"purpose": purpose, **page(limit, after, order, LONGEST_FILE_PAGE)}
    return call("file_list", "GET /files", _as(FilePage), options, query=query)


def file_delete(file_id: str, **options: Unpack[Options]) -> Call[FileDeleted]:
    """Deletes a file; ConflictError while a live batch reads it."""
    return call("file_delete", f"DELETE /files/{segment(file_id, 'file_id')}", _as(FileDeleted), options)


def file_content(file_id: str, **options: Unpack[Options]) -> Call[Content]:
    """Returns a file's bytes: `.content`, `.text`, `.iter_bytes()`, `.iter_lines()`, `.write_to_file(path)`."""
    route = f"GET /files/{segment(file_id, 'file_id')}/content"
    return replace(call("file_content", route, unparsed, options), streamed=True)


# Batches --------------------------------------------------------------------------------------------------------------


def create_batch(  # noqa: PLR0913 - public API
    completion_window: str,
    endpoint: str,
    input_file_id: str | None = None,
    *,
    metadata: Metadata | None = None,
    output_expires_after: Mapping[str, Any] | None = None,
    requests: Iterable[Mapping[str, Any]] | None = None,
    model: str | None = None,
    priority: int | None = None,
    webhook: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> Call[Batch]:
    """Starts a batch and returns it, in status `validating`.

    Args:
        completion_window: `24h`, or any `<n>m`, `<n>h`, `<n>d`.
        endpoint: Such as `/v1/chat/completions`.
        input_file_id: The uploaded file.
        metadata: At most 16 pairs of texts.
        output_expires_after: `{"anchor": "created_at", "seconds": ...}` for the output and error files.
        requests: The lines themselves instead of a file.
        model: Overrides the lines' models.
        priority: Higher is earlier.
        webhook: `{"url", "secret", "events"}`: where this batch's events are posted. Without a secret one is made: it
            is `batch.batchway.webhook.secret`, in this answer and nowhere else.
        options: See `Options`. Send your own `Idempotency-Key` in `extra_headers` to make a create safe across crashes.
    """
    if (input_file_id is None) == (requests is None):
        raise BadRequestError("Exactly one of 'input_file_id' and 'requests' is needed.", param="input_file_id")
    fields = {
        "completion_window": _window(completion_window),
        "endpoint": _endpoint(endpoint),
        "input_file_id": _text(input_file_id, "input_file_id"),
        "metadata": _metadata(metadata),
        "output_expires_after": output_expires_after,
        "requests": None if requests is None else [dict(line) for line in requests],
        "model": model,
        "priority": priority,
        "webhook": webhook,
    }
    return call("create_batch", "POST /batches", _as(Batch), options, json=fields, once=True)


def retrieve_batch(batch_id: str, **options: Unpack[Options]) -> Call[Batch]:
    """Returns a batch as it is now.

    With `custom_llm_provider`, an id that this gateway does not know is taken for one of that provider's and adopted.
    """
    known = call("retrieve_batch", f"GET /batches/{segment(batch_id, 'batch_id')}", _as(Batch), options)
    provider = options.get("custom_llm_provider")
    if not provider:
        return known
    return replace(known, fallback=adopt_batch(provider, batch_id, **options))


def list_batches(  # noqa: PLR0913 - public API
    after: str | None = None,
    limit: int | None = None,
    *,
    order: Order | None = None,
    status: str | None = None,
    model: str | None = None,
    metadata: Metadata | None = None,
    created_after: int | None = None,
    created_before: int | None = None,
    **options: Unpack[Options],
) -> Call[BatchPage]:
    """Returns a page of batches, newest first, narrowed by what is given; `limit` is 1 to 100.

    `custom_llm_provider` narrows to that provider; times are unix seconds.
    """
    query = {
        **page(limit, after, order, LONGEST_PAGE),
        "status": status,
        "model": model,
        "metadata": _metadata(metadata),
        "created_after": created_after,
        "created_before": created_before,
    }
    return call("list_batches", "GET /batches", _as(BatchPage), options, query=query)


def cancel_batch(batch_id: str, **options: Unpack[Options]) -> Call[Batch]:
    """Ends a batch early and returns it; what is answered stays. ConflictError when it has ended otherwise."""
    route = f"POST /batches/{segment(batch_id, 'batch_id')}/cancel"
    return call("cancel_batch", route, _as(Batch), options, repeatable=True)


def resume_batch(batch_id: str, **options: Unpack[Options]) -> Call[Batch]:
    """Lets a paused batch go on and returns it. ConflictError when it is not, RateLimitError over budget."""
    route = f"POST /batches/{segment(batch_id, 'batch_id')}/resume"
    return call("resume_batch", route, _as(Batch), options)


def retry_batch(batch_id: str, **options: Unpack[Options]) -> Call[Batch]:
    """Starts a new batch of an ended one's failed and expired lines, and returns the new one."""
    route = f"POST /batches/{segment(batch_id, 'batch_id')}/retry"
    return call("retry_batch", route, _as(Batch), options, once=True)


def estimate_batch(
    *,
    input_file_id: str | None = None,
    requests: Iterable[Mapping[str, Any]] | None = None,
    endpoint: str = "/v1/chat/completions",
    completion_window: str = "24h",
    model: str | None = None,
    **options: Unpack[Options],
) -> Call[BatchEstimate]:
    """Returns what a file or lines would use: tokens, and dollars as decimal strings; spends nothing."""
    if (input_file_id is None) == (requests is None):
        raise BadRequestError("Exactly one of 'input_file_id' and 'requests' is needed.", param="input_file_id")
    fields = {
        "input_file_id": _text(input_file_id, "input_file_id"),
        "requests": None if requests is None else [dict(line) for line in requests],
        "endpoint": _endpoint(endpoint),
        "completion_window": _window(completion_window),
        "model": model,
    }
    return call("estimate_batch", "POST /batches/estimate", _as(BatchEstimate), options, json=fields, repeatable=True)


def adopt_batch(
    provider: str, remote_id: str, *, metadata: Metadata | None = None, **options: Unpack[Options]
) -> Call[Batch]:
    """Takes in a batch that was made at a provider, by its id there, and returns it as one of this gateway's."""
    segment(remote_id, "remote_id")
    fields = {"provider": provider, "remote_id": remote_id, "metadata": _metadata(metadata)}
    return call("adopt_batch", "POST /batches/adopt", _as(Batch), options, json=fields, once=True)


def batch_results(
    batch_id: str,
    after: str | None = None,
    *,
    status: Literal["failed", "completed"] | None = None,
    order: Literal["finished", "input"] | None = None,
    **options: Unpack[Options],
) -> Call[Result]:
    """Streams the lines that have finished so far; each has the `cursor` to go on from with `after`.

    `order="input"` is for batches that have ended: every line once, as they were sent.
    """
    route = f"GET /batches/{segment(batch_id, 'batch_id')}/results"
    asked = call("batch_results", route, Result, options, query={"after": after, "status": status, "order": order})
    return replace(asked, streamed=True)


# Models ---------------------------------------------------------------------------------------------------------------


def list_models(**options: Unpack[Options]) -> Call[ModelPage]:
    """Returns the names that this key's lines may use."""
    return call("list_models", "GET /models", _as(ModelPage), options)


# Checks ---------------------------------------------------------------------------------------------------------------


def _as(kind: type[Kind]) -> partial[Kind]:
    return partial(made, kind)


def unparsed(fields: Mapping[str, Any], /) -> Content:
    """In the place of a parse, for what is downloaded."""
    raise TypeError("the content of a file is no JSON object")


def _text(value: object, param: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise BadRequestError(f"Invalid '{param}': expected a string, got {type(value).__name__}.", param=param)
    return value


def _window(text: object) -> str:
    if not isinstance(text, str) or not WINDOW.fullmatch(text):
        message = f"Invalid 'completion_window': {text!r} is not '<n>m', '<n>h' or '<n>d', such as '24h'."
        raise BadRequestError(message, param="completion_window")
    return text


def _endpoint(text: object) -> str:
    if not isinstance(text, str) or not text.startswith("/"):
        message = f"Invalid 'endpoint': {text!r} is no path such as '/v1/chat/completions'."
        raise BadRequestError(message, param="endpoint")
    return text


def _metadata(given: Mapping[str, Any] | None) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise BadRequestError("Invalid 'metadata': expected a mapping of texts.", param="metadata")
    for key, value in given.items():
        if not isinstance(value, str):
            message = f"Invalid type for 'metadata.{key}': expected a string, got {type(value).__name__}."
            raise BadRequestError(message, param=f"metadata.{key}")
    return dict(given)


def page(limit: int | None, after: str | None, order: str | None, most: int = LONGEST_PAGE) -> dict[str, Any]:
    """The query of a page; BadRequestError for what no gateway takes."""
    if limit is not None and not 1 <= limit <= most:
        raise BadRequestError(f"Invalid 'limit': {limit} is not between 1 and {most}.", param="limit")
    if order not in (None, "asc", "desc"):
        raise BadRequestError(f"Invalid 'order': {order!r} is neither 'asc' nor 'desc'.", param="order")
    return {"limit": limit, "after": after, "order": order}


def _expiry(expires_after: Mapping[str, Any] | None) -> dict[str, str]:
    if expires_after is None:
        return {}
    if set(expires_after) != {"anchor", "seconds"}:
        raise BadRequestError("Invalid 'expires_after': expected 'anchor' and 'seconds'.", param="expires_after")
    return {f"expires_after[{name}]": str(value) for name, value in expires_after.items()}
