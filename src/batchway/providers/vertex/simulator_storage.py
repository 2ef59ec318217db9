"""The simulator's Cloud Storage JSON API: simple, multipart and resumable uploads, downloads, lists, deletes.

Source: Google's discovery document `storage.v1` and cloud.google.com/storage/docs/performing-resumable-uploads, read
November 2026. A resumable session keeps what has come; a piece that begins before that is taken from there on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from batchway.providers.vertex.simulator_http import ApiError, FileContent, JsonResponse, json_object
from batchway.providers.vertex.simulator_life import Simulation
from batchway.providers.vertex.simulator_objects import Object

QUANTUM = 256 << 10
PAGE = 1000
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass
class Session:
    """A resumable upload that is not finished."""

    bucket: str
    name: str
    content_type: str
    path: Path
    size: int = 0
    done: Object | None = None


def _simulation(request: Request) -> Simulation:
    return request.app.state.simulation


async def upload(request: Request) -> Response:
    """`POST` or `PUT` to `/upload/storage/v1/b/{bucket}/o`."""
    if "upload_id" in request.query_params:
        return await _piece(request)
    kind = request.query_params.get("uploadType")
    if kind == "media":
        name = request.query_params.get("name", "")
        return await _store(request, name, request.headers.get("content-type", ""), request.stream())
    if kind == "multipart":
        return await _multipart(request)
    if kind != "resumable":
        raise ApiError("INVALID_ARGUMENT", f"Invalid upload type: {kind}")
    return await _begin(request)


async def _multipart(request: Request) -> Response:
    head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    parts: list[Any] = list(message_from_bytes(head + await request.body(), policy=policy.HTTP).iter_parts())
    if len(parts) != 2:
        raise ApiError("INVALID_ARGUMENT", "A multipart upload has two parts.")
    about: dict[str, Any] = msgspec.json.decode(parts[0].get_payload(decode=True))

    async def body() -> AsyncIterator[bytes]:
        yield parts[1].get_payload(decode=True)

    name = str(about.get("name") or request.query_params.get("name", ""))
    return await _store(request, name, about.get("contentType") or parts[1].get_content_type(), body())


async def _begin(request: Request) -> Response:
    about = await json_object(request)
    name = str(about.get("name") or request.query_params.get("name", ""))
    _check_name(name)
    simulation = _simulation(request)
    kind = about.get("contentType") or request.headers.get("x-upload-content-type") or "application/octet-stream"
    upload_id = secrets.token_urlsafe(24)
    bucket = request.path_params["bucket"]
    simulation.sessions[upload_id] = Session(bucket, name, kind, simulation.objects.temporary())
    address = request.url.include_query_params(upload_id=upload_id)
    return Response(headers={"location": str(address), "x-guploader-uploadid": upload_id})


async def _piece(request: Request) -> Response:
    simulation = _simulation(request)
    session = simulation.sessions.get(request.query_params["upload_id"])
    if session is None:
        raise ApiError("NOT_FOUND", "Upload session is unknown or has expired.")
    if request.method == "DELETE":
        del simulation.sessions[request.query_params["upload_id"]]
        session.path.unlink(missing_ok=True)
        return Response(status_code=499)
    if session.done is not None:
        return JsonResponse(shown(request, session.done))
    total = await _append(request, session)
    if total is None or session.size < total:
        headers = {"range": f"bytes=0-{session.size - 1}"} if session.size else {}
        return Response(status_code=308, headers=headers)
    session.done = simulation.objects.keep(session.bucket, session.name, session.path, session.content_type)
    return JsonResponse(shown(request, session.done))


async def _append(request: Request, session: Session) -> int | None:
    """Takes a piece; answers the object's size when it is known."""
    said = request.headers.get("content-range")
    if said is None:  # the whole object at once
        first, total = 0, int(request.headers.get("content-length", "0"))
    elif (found := _PIECE.fullmatch(said)) is None:
        raise ApiError("INVALID_ARGUMENT", f"Invalid Content-Range: {said}")
    else:
        total = None if found[3] == "*" else int(found[3])
        if found[1] is None:
            return total
        first = int(found[1])
        if total is None and (int(found[2]) + 1 - first) % QUANTUM:
            raise ApiError("INVALID_ARGUMENT", "All pieces but the last must be multiples of 256 KiB.")
    if first > session.size:
        raise ApiError("INVALID_ARGUMENT", "A piece was skipped.")
    skip = session.size - first
    with session.path.open("ab") as file:
        async for chunk in request.stream():
            file.write(chunk[skip:])
            skip = max(0, skip - len(chunk))
        session.size = file.tell()
    return total


async def _store(request: Request, name: str, content_type: str, body: AsyncIterator[bytes]) -> Response:
    _check_name(name)
    objects = _simulation(request).objects
    path = objects.temporary()
    with path.open("wb") as file:
        async for chunk in body:
            file.write(chunk)
    kind = content_type or "application/octet-stream"
    return JsonResponse(shown(request, objects.keep(request.path_params["bucket"], name, path, kind)))


def _check_name(name: str) -> None:
    if not 0 < len(name.encode()) <= 1024 or name in (".", "..") or "\n" in name or "\r" in name:
        raise ApiError("INVALID_ARGUMENT", f"Invalid object name: '{name[:80]}'")


def _found(request: Request) -> Object:
    bucket, name = request.path_params["bucket"], request.path_params["name"]
    known = _simulation(request).objects.get(bucket, name)
    if known is None:
        raise ApiError("NOT_FOUND", f"No such object: {bucket}/{name}")
    return known


async def bucket(request: Request) -> Response:
    """`GET /storage/v1/b/{bucket}`: every bucket exists."""
    name = request.path_params["bucket"]
    about = {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "storageClass": "STANDARD"}
    return JsonResponse({**about, "projectNumber": "123456789012"})


async def retrieve(request: Request) -> Response:
    """`GET .../o/{object}`: what is known of it, or its bytes with `alt=media`."""
    known, simulation = _found(request), _simulation(request)
    if request.query_params.get("alt") != "media" and not request.url.path.startswith("/download/"):
        return JsonResponse(shown(request, known))
    start, end = 0, known.size
    if wanted := _RANGE.fullmatch(request.headers.get("range", "")):
        start = int(wanted[1]) if wanted[1] else max(0, known.size - int(wanted[2]))
        end = min(known.size, int(wanted[2]) + 1) if wanted[1] and wanted[2] else known.size
        if start >= known.size:
            return Response(status_code=416, headers={"content-range": f"bytes */{known.size}"})
    hashes = f"md5={known.md5}" + (f",crc32c={known.crc32c}" if known.crc32c else "")
    headers = {"x-goog-hash": hashes, "x-goog-generation": str(known.generation)}
    cut = simulation.hits("truncate", simulation.requests)
    return FileContent(simulation.objects.path(known), start, end, known.size, cut=cut, headers=headers)


async def listing(request: Request) -> Response:
    """`GET .../o`: by name, with `prefix`, `delimiter`, `maxResults`, `pageToken`."""
    query = request.query_params
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit, after = min(int(query.get("maxResults", PAGE)), PAGE), query.get("pageToken", "")
    items: list[Object] = []
    prefixes: list[str] = []
    for known in _simulation(request).objects.listed(request.path_params["bucket"], prefix):
        rest = known.name[len(prefix) :]
        if delimiter and delimiter in rest:
            folder = prefix + rest.split(delimiter)[0] + delimiter
            if folder not in prefixes:
                prefixes.append(folder)
        elif known.name > after:
            items.append(known)
    answer: dict[str, Any] = {"kind": "storage#objects"}
    if items:
        answer["items"] = [shown(request, known) for known in items[:limit]]
    if prefixes:
        answer["prefixes"] = prefixes
    if len(items) > limit:
        answer["nextPageToken"] = items[limit - 1].name
    return JsonResponse(answer)


async def delete(request: Request) -> Response:
    """`DELETE .../o/{object}`."""
    _simulation(request).objects.delete(_found(request))
    return Response(status_code=204)


def shown(request: Request, known: Object) -> dict[str, Any]:
    """The object resource."""
    here = f"{request.url.scheme}://{request.url.netloc}"
    created = datetime.fromtimestamp(known.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    place = f"/storage/v1/b/{known.bucket}/o/{known.name.replace('/', '%2F')}"
    answer: dict[str, Any] = {
        "kind": "storage#object",
        "id": f"{known.bucket}/{known.name}/{known.generation}",
        "selfLink": here + place,
        "mediaLink": f"{here}/download{place}?generation={known.generation}&alt=media",
        "name": known.name,
        "bucket": known.bucket,
        "generation": str(known.generation),
        "metageneration": "1",
        "contentType": known.content_type,
        "storageClass": "STANDARD",
        "size": str(known.size),
        "md5Hash": known.md5,
        "etag": f"{known.generation:x}",
        "timeCreated": created,
        "updated": created,
    }
    if known.crc32c:
        answer["crc32c"] = known.crc32c
    return answer
