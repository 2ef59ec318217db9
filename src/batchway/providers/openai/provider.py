"""OpenAI: the native batch lane, and the synchronous endpoints for windows that the lane cannot keep.

Limits, sources and gaps stand in README.md beside this file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from batchway.core.jobs import REGIONAL, JobSpec, Limits
from batchway.core.spans import Line
from batchway.dialects import openai as dialect
from batchway.providers.protocol import Account, Endpoint, Tools
from batchway.providers.shared.file_jobs import Dealer, FileJobs
from batchway.providers.shared.models import list_models

KIND = "openai"
BASE_URL = "https://api.openai.com/v1"

# platform.openai.com/docs/guides/batch, read August 2026: 50,000 requests, 200 MB, only "24h".
LIMITS = Limits(
    lines=50_000,
    bytes=200_000_000,
    endpoints=frozenset(
        {"/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/moderations"}
    ),
)

# developers.openai.com/api/docs/guides/your-data, read November 2026: data residency has a host a region, and a
# surcharge on newer models. The tables know it for these two; elsewhere prices are unknown.
RESIDENCY = re.compile(r"https://([a-z]{2})\.api\.openai\.com(?:/|$)")
SURCHARGED = {"us": REGIONAL, "eu": REGIONAL}

KNOWN = re.compile(r"(gpt-|o\d|chatgpt-|text-embedding-|ft:|davinci|babbage|omni-moderation|codex-|computer-use)")


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An entry of `providers` in batchway.yaml."""

    api_key: str
    base_url: str = BASE_URL
    organization: str | None = None
    project: str | None = None
    concurrency: int = 512
    timeout: float = 600.0
    models: list[str] = []
    max_lines: int = LIMITS.lines
    max_bytes: int = LIMITS.bytes


def from_environment(env: Mapping[str, str]) -> dict[str, object] | None:
    """The entry that OPENAI_API_KEY (and OPENAI_BASE_URL, OPENAI_ORG_ID, OPENAI_PROJECT_ID) make."""
    if "OPENAI_API_KEY" not in env:
        return None
    names = {
        "api_key": "OPENAI_API_KEY",
        "base_url": "OPENAI_BASE_URL",
        "organization": "OPENAI_ORG_ID",
        "project": "OPENAI_PROJECT_ID",
    }
    return {option: env[variable] for option, variable in names.items() if env.get(variable)}


def open_account(name: str, options: Options, tools: Tools) -> Account:
    """The account, both lanes."""
    base_url = options.base_url.rstrip("/")
    headers = {"authorization": f"Bearer {options.api_key}"}
    if options.organization:
        headers["openai-organization"] = options.organization
    if options.project:
        headers["openai-project"] = options.project
    limits = msgspec.structs.replace(LIMITS, lines=options.max_lines, bytes=options.max_bytes)
    dealer = Dealer(base_url=base_url, headers=headers, limits=limits)
    return Account(
        name=name,
        kind=KIND,
        native=FileJobs(dealer, tools.http, _rewrite),
        endpoint=Endpoint(base_url=base_url, headers=headers, concurrency=options.concurrency, timeout=options.timeout),
        models=tuple(options.models),
        known=lambda model: KNOWN.match(model) is not None,
        priced_as=lambda model: _region(base_url) + model,
        list_models=lambda: list_models(tools.http, base_url, headers),
    )


def _region(base_url: str) -> str:
    """What prices write before a model's name; nothing where it is processed anywhere."""
    residency = RESIDENCY.match(base_url)
    return SURCHARGED.get(residency[1], f"{residency[1]}/") if residency else ""


def _rewrite(line: Line, job: JobSpec) -> bytes:
    return dialect.line_for(line, job.route.model, job.endpoint)
