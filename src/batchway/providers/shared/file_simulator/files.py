"""The simulator's Files API: uploads streamed to disk, lists, content, deletion, expiry.

Invariant: a file is listed only when all its bytes are on disk; memory holds one network chunk of an upload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import multipart
from starlette.requests import Request
from starlette.responses import Response

from batchway.providers.shared.file_simulator.errors import ApiError, missing, not_found, wrong_value
from batchway.providers.shared.file_simulator.life import Simulation
from batchway.providers.shared.file_simulator.lines import decoded
from batchway.providers.shared.file_simulator.store import (
    File,
    add_file,
    expired_files,
    get_file,
    list_files,
    remove_file,
)
from batchway.providers.shared.file_simulator.web import (
    FileContent,
    JsonResponse,
    expiry_seconds,
    page,
    page_limit,
    simulation_of,
)

_BATCH_DAYS = 30 * 86_400
_FIELD_BYTES = 64 * 1024
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_NOT_JSONL = "Invalid file format for Batch API. Must be .jsonl"


@dataclass
class _Form:
    """What a multipart upload held besides the bytes of its file."""

    fields: dict[str, bytes] = field(default_factory=dict[str, bytes])
    filename: str | None = None
    size: int = 0

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return None if value is None else value.decode("utf-8", "replace")


def _shown(request: Request, file: File) -> dict[str, Any]:
    simulation = simulation_of(request)
    status = simulation.flavor.file_status(simulation.settings, file, simulation.clock.now())
    return simulation.flavor.file(request, file.shown(status))


async def upload(request: Request) -> Response:
    """`POST /files`."""
    simulation = simulation_of(request)
    identity = simulation.flavor.new_id("file-")
    path = simulation.folder / f"{identity}.part"
    try:
        form = await _receive(request, path, simulation.settings.max_bytes)
        file = _accepted(simulation, identity, form, path)
        path.rename(simulation.path(identity))
    finally:
        path.unlink(missing_ok=True)
    add_file(simulation.db, file)
    return JsonResponse(_shown(request, file), status_code=simulation.flavor.created(request))


async def _receive(request: Request, path: Path, max_bytes: int) -> _Form:
    header = request.headers.get("content-type", "")
    kind, options = cast("tuple[str, dict[str, str]]", multipart.parse_options_header(header))
    if kind != "multipart/form-data" or "boundary" not in options:
        raise ApiError(400, "The request must be multipart/form-data with a 'file' and a 'purpose'.")
    form = _Form()
    part: multipart.MultipartSegment | None = None
    try:
        with multipart.PushMultipartParser(options["boundary"]) as parser, path.open("wb") as target:
            async for chunk in request.stream():
                for event in parser.parse(chunk) if chunk else ():
                    if isinstance(event, multipart.MultipartSegment):
                        part = event
                        form.filename = part.filename or "" if part.name == "file" else form.filename
                    elif event and part is not None and part.name == "file":
                        form.size += len(event)
                        # What is too much is read to its end, so that the client gets to read the refusal.
                        if form.size <= max_bytes:
                            target.write(event)
                    elif event and part is not None and len(form.fields.get(part.name or "", b"")) < _FIELD_BYTES:
                        form.fields[part.name or ""] = form.fields.get(part.name or "", b"") + event
    except multipart.MultipartError as error:
        raise ApiError(400, f"Could not parse multipart form: {error}") from error
    return form


def _accepted(simulation: Simulation, identity: str, form: _Form, path: Path) -> File:
    """The file of an upload that keeps all rules; raises ApiError otherwise."""
    purpose = form.text("purpose")
    if form.filename is None:
        raise missing("file")
    if purpose is None:
        raise missing("purpose")
    if purpose not in _PURPOSES:
        raise wrong_value("purpose", purpose, _PURPOSES)
    if form.size > simulation.settings.max_bytes:
        limit = simulation.settings.max_bytes
        raise ApiError(413, f"File is too large: {form.size} bytes, at most {limit} are allowed.", param="file")
    if form.size == 0:
        raise ApiError(400, "The file is empty.", param="file", code="invalid_file")
    if purpose == "batch":
        _check_first_line(form.filename, path)
    now = simulation.clock.now()
    seconds = expiry_seconds(_expires_after(form), "expires_after", simulation.flavor.expiry)
    default = _BATCH_DAYS if purpose == "batch" else None
    kept = seconds or default
    return File(
        id=identity,
        filename=form.filename,
        purpose=purpose,
        bytes=form.size,
        created_at=now,
        expires_at=None if kept is None else now + kept,
    )


def _check_first_line(filename: str, path: Path) -> None:
    """Providers look at the name and the first line only; later lines fail the batch."""
    with path.open("rb") as file:
        first = file.readline().removeprefix(b"\xef\xbb\xbf")
    if not filename.endswith(".jsonl") or decoded(first) is None:
        raise ApiError(400, _NOT_JSONL, beside={"detail": {"message": _NOT_JSONL, "filename": filename}})


def _expires_after(form: _Form) -> Mapping[str, str | int] | None:
    anchor, seconds = form.text("expires_after[anchor]"), form.text("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    number = int(seconds) if seconds is not None and seconds.isdigit() else seconds or ""
    return {"anchor": anchor or "", "seconds": number}


def _purge(simulation: Simulation) -> None:
    """Drops the files whose time is over."""
    for identity in expired_files(simulation.db, simulation.clock.now()):
        remove_file(simulation.db, identity)
        simulation.discard(identity)


def _found(request: Request) -> File:
    simulation = simulation_of(request)
    _purge(simulation)
    identity: str = request.path_params["file_id"]
    file = get_file(simulation.db, identity)
    if file is None:
        raise not_found("File", identity)
    return file


async def listing(request: Request) -> Response:
    """`GET /files`."""
    simulation = simulation_of(request)
    _purge(simulation)
    query = request.query_params
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise wrong_value("order", order, ("asc", "desc"))
    after = query.get("after")
    if after is not None and get_file(simulation.db, after) is None:
        raise not_found("File", after)
    limit = page_limit(request, 10_000, 10_000)
    files = list_files(
        simulation.db, purpose=query.get("purpose"), after=after, ascending=order == "asc", limit=limit + 1
    )
    return JsonResponse(page([_shown(request, file) for file in files], limit))


async def retrieve(request: Request) -> Response:
    """`GET /files/{file_id}`."""
    return JsonResponse(_shown(request, _found(request)))


async def content(request: Request) -> Response:
    """`GET /files/{file_id}/content`."""
    simulation = simulation_of(request)
    file = _found(request)
    cut = file.bytes // 2 if simulation.hits("truncate", simulation.requests) else None
    return FileContent(simulation.path(file.id), file.bytes, cut)


async def delete(request: Request) -> Response:
    """`DELETE /files/{file_id}`; a batch that reads the file goes on reading it."""
    simulation = simulation_of(request)
    file = _found(request)
    remove_file(simulation.db, file.id)
    simulation.discard(file.id)
    return JsonResponse({"id": file.id, "object": "file", "deleted": True})
