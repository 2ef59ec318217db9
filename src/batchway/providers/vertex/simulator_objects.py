"""The simulator's Cloud Storage: objects as files in a folder, with what is known of each in a file beside it.

`Objects` is what the routes and the jobs share; `Elsewhere` lets the jobs use another storage server instead.
Invariant: an object is whole or absent; it appears by a rename.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from urllib.request import Request, urlopen

import msgspec

from batchway.providers.vertex.simulator_http import listed

_WINDOW = 1 << 20


class Object(msgspec.Struct):
    """What is known of one object; `created` is in virtual unix seconds."""

    bucket: str
    name: str
    size: int
    md5: str
    crc32c: str | None
    content_type: str
    generation: int
    created: float


class Store(Protocol):
    """Where a job reads and writes; called in threads."""

    def expand(self, uri: str) -> list[str]:
        """The addresses that a `gs://` address means, which may hold `*`; none when there is no such object."""
        ...

    def fetch(self, uri: str) -> Path:
        """A file with the object's bytes, not to be changed."""
        ...

    def put(self, uri: str, path: Path) -> None:
        """Makes a file an object; the file is gone afterwards."""
        ...


class Objects:
    """Every bucket exists; `now` gives virtual seconds."""

    def __init__(self, folder: Path, now: Any) -> None:
        self.folder = folder
        self.now = now
        folder.mkdir(parents=True, exist_ok=True)
        self._found: dict[tuple[str, str], Object] = {}
        for path in folder.glob("*.json"):
            known = msgspec.json.decode(path.read_bytes(), type=Object)
            self._found[known.bucket, known.name] = known

    def temporary(self) -> Path:
        """A new file to write an object into."""
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
            return Path(file.name)

    def keep(self, bucket: str, name: str, path: Path, content_type: str) -> Object:
        """Makes a written file an object, in the place of any former one."""
        former = self._found.get((bucket, name))
        md5, crc32c = _hashes(path)
        made = Object(
            bucket=bucket,
            name=name,
            size=path.stat().st_size,
            md5=md5,
            crc32c=crc32c,
            content_type=content_type,
            generation=(former.generation if former else 0) + 1,
            created=self.now(),
        )
        path.rename(self.path(made))
        self.path(made).with_suffix(".json").write_bytes(msgspec.json.encode(made))
        self._found[bucket, name] = made
        return made

    def path(self, known: Object) -> Path:
        """Where its bytes lie: a client's name never becomes a path."""
        return self.folder / f"{hashlib.sha256(f'{known.bucket}/{known.name}'.encode()).hexdigest()}.data"

    def get(self, bucket: str, name: str) -> Object | None:
        return self._found.get((bucket, name))

    def listed(self, bucket: str, prefix: str) -> list[Object]:
        """By name."""
        names = sorted(name for held, name in self._found if held == bucket and name.startswith(prefix))
        return [self._found[bucket, name] for name in names]

    def delete(self, known: Object) -> None:
        del self._found[known.bucket, known.name]
        self.path(known).with_suffix(".json").unlink(missing_ok=True)
        self.path(known).unlink(missing_ok=True)

    def expand(self, uri: str) -> list[str]:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        fixed = name.partition("*")[0]
        return [f"gs://{bucket}/{found.name}" for found in self.listed(bucket, fixed) if fnmatchcase(found.name, name)]

    def fetch(self, uri: str) -> Path:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        return self.path(self._found[bucket, name])

    def put(self, uri: str, path: Path) -> None:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        self.keep(bucket, name, path, "application/octet-stream")


class Elsewhere:
    """Another storage server, by its JSON API; without credentials, as imitations want it."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url.rstrip("/")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def expand(self, uri: str) -> list[str]:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        fixed = quote(name.partition("*")[0], safe="")
        with urlopen(f"{self._url}/storage/v1/b/{bucket}/o?prefix={fixed}") as answer:  # noqa: S310 - as configured
            items = listed(msgspec.json.decode(answer.read()), "items")
        return [f"gs://{bucket}/{item['name']}" for item in items if fnmatchcase(item["name"], name)]

    def fetch(self, uri: str) -> Path:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        path = self._folder / hashlib.sha256(uri.encode()).hexdigest()
        address = f"{self._url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
        with urlopen(address) as answer, path.open("wb") as file:  # noqa: S310 - as configured
            shutil.copyfileobj(answer, file, _WINDOW)
        return path

    def put(self, uri: str, path: Path) -> None:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        address = f"{self._url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
        headers = {"content-type": "application/octet-stream", "content-length": str(path.stat().st_size)}
        with path.open("rb") as file:
            upload = Request(address, data=_windows(file), headers=headers, method="POST")  # noqa: S310 - as configured
            urlopen(upload).close()  # noqa: S310
        path.unlink()


def _windows(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_WINDOW):
        yield chunk


def _hashes(path: Path) -> tuple[str, str | None]:
    """MD5 and CRC32C in base64. The second is Google's; without its package it is left out, as an answer may."""
    md5 = hashlib.md5(usedforsecurity=False)
    crc: Any = import_module("google_crc32c").Checksum() if find_spec("google_crc32c") else None
    with path.open("rb") as file:
        for chunk in _windows(file):
            md5.update(chunk)
            if crc:
                crc.update(chunk)
    return base64.b64encode(md5.digest()).decode(), base64.b64encode(crc.digest()).decode() if crc else None
