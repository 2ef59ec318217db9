"""Where bytes live: plain files in the local folder, obstore for S3, Google Cloud Storage and Azure; one seam.

The invariant: an object is whole or absent. Nobody sees a part of it, and once a write has returned, the object
outlives a power cut, so a manifest row committed afterwards never points to lost bytes. A new storage passes
`batchway.testing.storage_suite`.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import from_url

from batchway.core.errors import ConfigError
from batchway.storage.bucket import BucketStorage
from batchway.storage.local import LocalStorage
from batchway.storage.protocol import Storage, StorageError, StorageMissing, Writer, brief

if TYPE_CHECKING:
    from obstore.store import RetryConfig

__all__ = ["BucketStorage", "LocalStorage", "Storage", "StorageError", "StorageMissing", "Writer", "open_storage"]

RETRIES: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT")


def open_storage(url: str, *, home: Path) -> Storage:
    """The storage at a folder (a path under `home`, or absolute), `file:///path`, `s3://bucket/prefix`, `gs://`, `az://`.

    Credentials come from each cloud's usual environment variables; plain HTTP only when an endpoint there says so.
    """
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme == "":
        return LocalStorage(home / Path(url).expanduser())
    if scheme == "file":
        return LocalStorage(Path(unquote(urlsplit(url).path)))
    if scheme not in ("s3", "gs", "az"):
        raise ConfigError(f"storage URL with the scheme {scheme!r}: use a folder, file://, s3://, gs:// or az://")
    plain = any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS)
    try:
        store = from_url(
            url,
            client_options={"allow_http": plain} if plain else {},
            retry_config=RETRIES,
        )
    except (BaseError, ValueError) as error:
        raise ConfigError(f"storage {url}: {brief(error)}") from error
    return BucketStorage(store, url)
