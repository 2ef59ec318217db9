"""OpenAI's Batch object, what creates one, and Batchway's additions to it.

Times are unix seconds; amounts are decimal strings in US dollars, null when a price is unknown.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from batchway.wire.errors import LineFault
from batchway.wire.files import ExpiresAfter
from batchway.wire.webhooks import BatchWebhook, Webhook

ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/responses", "/v1/moderations")

Status = Literal[
    "validating", "paused", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class BatchCreate(msgspec.Struct, kw_only=True):
    """A new batch: OpenAI's fields, and `requests` instead of a file, `model` (overrides the lines'), `priority`.

    `metadata`: at most 16 pairs, keys of 64, values of 512 characters. `completion_window`: `<n>m`, `<n>h` or `<n>d`.
    """

    endpoint: str
    completion_window: str
    input_file_id: str | None = None
    requests: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None
    output_expires_after: ExpiresAfter | None = None
    model: str | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    custom_llm_provider: str | None = None
    extra: dict[str, Any] | None = None
    webhook: BatchWebhook | None = None


class BatchAdopt(msgspec.Struct, kw_only=True):
    """Takes in a batch that was made elsewhere, by its id at the provider (an account name or kind)."""

    provider: str
    remote_id: str
    metadata: dict[str, Any] | None = None


class BatchErrors(msgspec.Struct, kw_only=True):
    """Why a batch failed validation, fault by fault."""

    object: Literal["list"] = "list"
    data: list[LineFault]


class RequestCounts(msgspec.Struct, kw_only=True):
    """Lines in all, answered (2xx) and ended with an error; they only grow."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputTokensDetails(msgspec.Struct, kw_only=True):
    """Parts of the input tokens."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, kw_only=True):
    """Parts of the output tokens."""

    reasoning_tokens: int = 0


class BatchUsage(msgspec.Struct, kw_only=True):
    """LLM tokens summed over all answers."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class BatchJob(msgspec.Struct, kw_only=True):
    """One provider job of the batch."""

    id: str
    provider: str
    model: str
    lane: Literal["native", "executed"]
    status: str
    outcome: str | None
    remote_id: str | None
    remote_status: str | None
    request_counts: RequestCounts
    message: str | None


class BatchPause(msgspec.Struct, kw_only=True):
    """Why a batch is paused: `reason` is a word such as `budget`, `message` says what to do."""

    reason: str
    message: str


class BatchDetails(msgspec.Struct, kw_only=True):
    """Batchway's own part of a batch: its jobs (not in lists), its money so far, why it is paused if it is."""

    jobs: list[BatchJob] | None
    amount_usd: str | None
    amount_status: Literal["pending", "partial", "final", "unknown"]
    corrections_usd: str | None = None  # posted since its end; not part of the amount
    estimated_end: int | None
    pause: BatchPause | None = None
    webhook: Webhook | UnsetType = UNSET  # with its secret, in the answer that made the batch and nowhere else


class Batch(msgspec.Struct, kw_only=True):
    """A batch, in OpenAI's words."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None
    batchway: BatchDetails | None = None


class BatchList(msgspec.Struct, kw_only=True):
    """A page of batches, newest first."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class ResultsFilter(msgspec.Struct, kw_only=True):
    """Which results: those behind the cursor `after`, of one `status`, as they finished or, after the end, as sent."""

    after: Annotated[str, msgspec.Meta(description="The `cursor` of the last line you have.")] | None = None
    status: Literal["failed", "completed"] | None = None
    order: Literal["finished", "input"] = "finished"


class TokenRange(msgspec.Struct, kw_only=True):
    """A guess with its bounds."""

    low: int
    likely: int
    high: int


class AmountRange(msgspec.Struct, kw_only=True):
    """Decimal dollar strings."""

    low: str
    likely: str
    high: str


class SecondsRange(msgspec.Struct, kw_only=True):
    """A time from the start to the last answer; `likely` is null while nothing is known of the provider."""

    likely: int | None
    high: int


InputMethod = Literal["counted", "sampled", "guessed"]
"""How input tokens were found: by the model's tokenizer in all lines, or in some; or from the letters of some lines."""


class RouteEstimate(msgspec.Struct, kw_only=True):
    """What lines take on one route. `reason` says why the amount is null, `seconds_reason` why the likely time is.

    `falls_over`: an alternative that takes the lines over when the route before it refuses them.
    """

    provider: str
    model: str
    lane: str
    falls_over: bool = False
    lines: int
    input_tokens: int
    input_tokens_method: InputMethod
    output_tokens: TokenRange
    output_tokens_method: Literal["history", "declared"]
    amount_usd: AmountRange | None
    reason: str | None = None
    seconds: SecondsRange
    seconds_reason: str | None = None


class BatchEstimate(msgspec.Struct, kw_only=True):
    """What a batch would use, before it spends anything; it would hold `amount_usd.high`.

    `routes` add up to the batch. `alternatives` are the same lines on other routes and lanes, for comparison.
    """

    object: Literal["batch.estimate"] = "batch.estimate"
    lines: int
    input_tokens: int
    input_tokens_method: InputMethod
    output_tokens: TokenRange
    amount_usd: AmountRange | None
    reason: str | None = None
    seconds: SecondsRange
    seconds_reason: str | None = None
    routes: list[RouteEstimate]
    alternatives: list[RouteEstimate]


class EstimateCreate(msgspec.Struct, kw_only=True):
    """Asks for an estimate of a stored file or of inline lines."""

    endpoint: str = "/v1/chat/completions"
    completion_window: str = "24h"
    input_file_id: str | None = None
    requests: list[dict[str, Any]] | None = None
    model: str | None = None
    custom_llm_provider: str | None = None


UnixTime = Annotated[int, msgspec.Meta(ge=0, le=253402300799)]


class BatchFilter(msgspec.Struct, kw_only=True):
    """What a list of batches is narrowed to. `metadata` comes as `metadata[key]=value`; times are unix seconds."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"
    status: Status | None = None
    model: str | None = None
    provider: str | None = None
    created_after: UnixTime | None = None
    created_before: UnixTime | None = None
    metadata: dict[str, str] | None = None
