"""Opens the rows of compatible.toml: providers that speak OpenAI's files and batches, and differ in data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from batchway.core.jobs import JobSpec, Limits
from batchway.core.spans import Line
from batchway.dialects import openai as dialect
from batchway.providers.protocol import Account, Endpoint, Tools
from batchway.providers.shared.file_jobs import Dealer, FileJobs
from batchway.providers.shared.models import list_models


class RowOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An entry of `providers` whose kind is a row."""

    api_key: str
    base_url: str | None = None
    concurrency: int = 512
    timeout: float = 600.0
    models: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Row:
    """One provider as data; it looks to the registry like a provider's module."""

    kind: str
    base_url: str
    variable: str
    limits: Limits
    Options = RowOptions

    def from_environment(self, env: Mapping[str, str]) -> dict[str, object] | None:
        """The entry that the provider's usual variable makes."""
        return {"api_key": env[self.variable]} if env.get(self.variable) else None

    def open_account(self, name: str, options: RowOptions, tools: Tools) -> Account:
        """The account, both lanes."""
        base_url = (options.base_url or self.base_url).rstrip("/")
        headers = {"authorization": f"Bearer {options.api_key}"}
        dealer = Dealer(base_url=base_url, headers=headers, limits=self.limits)
        endpoint = Endpoint(
            base_url=base_url, headers=headers, concurrency=options.concurrency, timeout=options.timeout
        )
        return Account(
            name=name,
            kind=self.kind,
            native=FileJobs(dealer, tools.http, _rewrite),
            endpoint=endpoint,
            models=tuple(options.models),
            list_models=lambda: list_models(tools.http, base_url, headers),
        )


def _rewrite(line: Line, job: JobSpec) -> bytes:
    return dialect.line_for(line, job.route.model, job.endpoint)
