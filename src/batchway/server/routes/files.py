"""Files: uploads stream through intake, contents stream out of the storage; what belongs to another project is not there."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import Connection
from starlette.responses import Response

from batchway.core.errors import BatchwayError, RequestError
from batchway.db import files
from batchway.pipeline.intake import Incoming, delete_file, receive
from batchway.server import once
from batchway.server.download import Stored, respond
from batchway.server.pagination import FileQuery, UploadQuery
from batchway.server.routing import Call, Operation
from batchway.server.upload import Form
from batchway.wire.files import ExpiresAfter, File, FileDeleted, FileList

Purpose = Literal["batch", "assistants", "fine-tune", "vision", "user_data", "evals"]
BATCH_FILE_SECONDS = 30 * 86400  # OpenAI's default for batch files; others stay until they are deleted
KEPT_SECONDS = (3600, 2592000)


class FileForm(msgspec.Struct, kw_only=True):
    """The form of an upload; `expires_after` is sent as `expires_after[anchor]` and `expires_after[seconds]`."""

    file: bytes
    purpose: Purpose
    expires_after: ExpiresAfter | None = None
    target_model_names: Annotated[str, msgspec.Meta(description="Accepted for other gateways' clients.")] | None = None
    custom_llm_provider: str | None = None


class Fields(FileForm, kw_only=True):
    """The fields as far as they are known before the file."""

    purpose: Purpose | None = None


def expiry(purpose: str, wanted: ExpiresAfter | None, now: float) -> float | None:
    """When a file made now goes; RequestError for a time out of bounds."""
    if wanted is None:
        return now + BATCH_FILE_SECONDS if purpose == "batch" else None
    low, high = KEPT_SECONDS
    if not low <= wanted.seconds <= high:
        message = f"Invalid 'expires_after.seconds': expected {low} to {high}, but got {wanted.seconds} instead."
        raise RequestError(message, code="invalid_value", param="expires_after.seconds")
    return now + wanted.seconds
