"""Vertex AI: the batch lane for Gemini, Claude and embeddings; there is no executed lane (README.md says why).

Limits, sources and gaps stand in README.md beside this file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from batchway.core.errors import ConfigError
from batchway.core.jobs import REGIONAL, Limits
from batchway.providers.protocol import Account, Tools
from batchway.providers.vertex.buckets import STORAGE_URL, Bucket, split_uri
from batchway.providers.vertex.credentials import GivenToken, open_tokens, project_of
from batchway.providers.vertex.families import CHAT, EMBEDDINGS, KNOWN, RESPONSES, priced_as
from batchway.providers.vertex.google import Google
from batchway.providers.vertex.native import Place, VertexJobs

KIND = "vertex"
ALIASES = ("vertex_ai",)

# cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, read November 2026: 200,000 requests
# and 1 GB a job; at most 24 h of running after at most 72 h in the queue. Our own deadline ends what waits too long.
LIMITS = Limits(lines=200_000, bytes=1_000_000_000, endpoints=frozenset({CHAT, RESPONSES, EMBEDDINGS}))

LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An entry of `providers` in batchway.yaml.

    `credentials` is the path of a JSON file, its text, or its table; without it, and without `access_token`, the
    credentials of this machine are used (Application Default Credentials).
    """

    bucket: str  # gs://bucket or gs://bucket/prefix
    project: str | None = None  # default: the one that the service-account key names
    location: str = "global"
    credentials: str | dict[str, Any] | None = None
    access_token: str | None = None
    quota_project: str | None = None
    base_url: str | None = None
    storage_url: str = STORAGE_URL
    labels: dict[str, str] = {}
    service_account: str | None = None  # as which the job runs
    kms_key: str | None = None
    models: list[str] = []
    max_lines: int = LIMITS.lines
    max_bytes: int = LIMITS.bytes


def from_environment(env: Mapping[str, str]) -> dict[str, object] | None:
    """The entry that Google's usual variables make, once GOOGLE_CLOUD_STAGING_BUCKET says where jobs are staged.

    The others alone mean nothing: on Google's machines they are set for everyone.
    """
    bucket = env.get("GOOGLE_CLOUD_STAGING_BUCKET")
    if not bucket:
        return None
    names = {
        "project": "GOOGLE_CLOUD_PROJECT",
        "location": "GOOGLE_CLOUD_LOCATION",
        "credentials": "GOOGLE_APPLICATION_CREDENTIALS",
    }
    found: dict[str, object] = {option: env[name] for option, name in names.items() if env.get(name)}
    return {"bucket": bucket if bucket.startswith("gs://") else f"gs://{bucket}", **found}


def open_account(name: str, options: Options, tools: Tools) -> Account:
    """The account; ConfigError names what is missing."""
    try:
        project = _checked(options)
        bucket_name, prefix = split_uri(options.bucket)
        if options.access_token is not None:
            tokens = GivenToken(options.access_token)
        else:
            tokens = open_tokens(options.credentials, tools.http, tools.clock)
    except ConfigError as error:
        raise ConfigError(f"providers.{name}: {error}") from None
    google = Google(tools.http, tokens, options.quota_project)
    place = Place(
        project=project,
        location=options.location,
        limits=msgspec.structs.replace(LIMITS, lines=options.max_lines, bytes=options.max_bytes),
        prefix=prefix,
        base_url=options.base_url.rstrip("/") if options.base_url else None,
        labels=options.labels,
        service_account=options.service_account,
        kms_key=options.kms_key,
    )
    bucket = Bucket(google, options.storage_url.rstrip("/"), bucket_name)
    return Account(
        name=name,
        kind=KIND,
        native=VertexJobs(place, google, bucket),
        models=tuple(options.models),
        priced_as=lambda model: priced_as(model) if options.location == "global" else REGIONAL + priced_as(model),
        known=lambda model: KNOWN.match(model) is not None,
    )


def _checked(options: Options) -> str:
    """The project; ConfigError for what Google would refuse only when the first job is created."""
    if options.access_token is not None and options.credentials is not None:
        raise ConfigError("give either access_token or credentials, not both")
    for label, value in options.labels.items():
        if not (LABEL.fullmatch(label) and LABEL_VALUE.fullmatch(value)):
            raise ConfigError(f"labels: '{label}': lower-case letters, digits, _ and - only, at most 63")
    project = options.project or project_of(options.credentials)
    if not project:
        raise ConfigError("project is missing: set it, or GOOGLE_CLOUD_PROJECT, or use a service-account key")
    return project
