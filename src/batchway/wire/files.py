"""OpenAI's Files and Uploads objects. Sizes are bytes, times unix seconds."""

from __future__ import annotations

from typing import Literal

import msgspec

from batchway.wire.errors import LineFault

FILE_PURPOSES = ("batch", "batch_output", "assistants", "fine-tune", "vision", "user_data", "evals")


class FileDetails(msgspec.Struct, kw_only=True):
    """What Batchway found in a file when it was uploaded (an extension of OpenAI's object)."""

    sha256: str
    lines: int
    models: dict[str, int]
    estimated_input_tokens: int
    fault_count: int
    faults: list[LineFault]


class File(msgspec.Struct, kw_only=True):
    """An uploaded or produced file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    expires_at: int | None = None
    status_details: str | None = None
    batchway: FileDetails | None = None


class FileDeleted(msgspec.Struct, kw_only=True):
    """The answer of a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class FileList(msgspec.Struct, kw_only=True):
    """A page of files, newest first unless `order=asc`."""

    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class ExpiresAfter(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """When a file deletes itself: `seconds` (3600 to 2592000) after its creation."""

    anchor: Literal["created_at"]
    seconds: int


class UploadCreate(msgspec.Struct, kw_only=True):
    """Starts an upload in parts; `bytes` is the size of the whole file."""

    filename: str
    purpose: str
    bytes: int
    mime_type: str
    expires_after: ExpiresAfter | None = None


class UploadComplete(msgspec.Struct, kw_only=True):
    """Ends an upload; the order of `part_ids` is the order of the bytes. `md5` (hex) is checked when sent."""

    part_ids: list[str]
    md5: str | None = None


class UploadPart(msgspec.Struct, kw_only=True):
    """One stored part."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class Upload(msgspec.Struct, kw_only=True):
    """An upload in parts, and its file once completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: File | None = None
