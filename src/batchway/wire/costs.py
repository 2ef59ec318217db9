"""Costs and usage in the shapes of OpenAI's organization API: a page of daily buckets, each with one result a group.

Amounts are decimal strings in US dollars, exact to the pico-dollar. Fields of a group are null unless it was grouped
by them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from batchway.wire.batches import UnixTime

Repeated = Annotated[list[str], msgspec.Meta(max_length=100)]


class CostQuery(msgspec.Struct, kw_only=True):
    """Which days, grouped and narrowed how. Times are unix seconds; a part of a UTC day means the whole day."""

    start_time: Annotated[UnixTime, msgspec.Meta(description="Six days before the end unless given.")] | None = None
    end_time: Annotated[UnixTime, msgspec.Meta(description="Exclusive; now unless given.")] | None = None
    bucket_width: Literal["1d"] = "1d"
    group_by: Annotated[
        Repeated,
        msgspec.Meta(
            description="May be repeated: project, key, model, provider, lane, batch, or tag:<name> of the metadata."
        ),
    ] = []
    project: str | None = None
    project_ids: Repeated = []
    key_id: str | None = None
    api_key_ids: Repeated = []
    model: str | None = None
    models: Repeated = []
    provider: str | None = None
    lane: Literal["native", "executed"] | None = None
    batch_id: str | None = None
    tag: Annotated[dict[str, str], msgspec.Meta(description="`tag[name]=value`: a pair of the metadata.")] | None = None
    limit: (
        Annotated[int, msgspec.Meta(ge=1, le=180, description="Buckets on a page: 7 unless given; all as CSV.")] | None
    ) = None
    page: Annotated[str, msgspec.Meta(description="The `next_page` of the page before.")] | None = None


class Amount(msgspec.Struct, kw_only=True):
    """US dollars as a decimal string; null when no amount is known."""

    value: str | None
    currency: Literal["usd"] = "usd"


class Group(msgspec.Struct, kw_only=True):
    """What a result is of. A tag is null where the metadata has no such name."""

    project_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    provider: str | None = None
    lane: str | None = None
    batch_id: str | None = None
    tags: dict[str, str | None] | None = None


class CostResult(Group, kw_only=True):
    """The amount of a group on a day, of the entries whose price is known; `unknown_entries` is how many are not."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    amount_known: bool
    entries: int
    unknown_entries: int


class UsageResult(Group, kw_only=True):
    """The tokens of a group on a day; `num_model_requests` counts its answered lines."""

    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    num_model_requests: int
    input_tokens: int
    input_cached_tokens: int
    input_cache_write_tokens: int
    input_audio_tokens: int
    output_tokens: int
    output_reasoning_tokens: int
    output_audio_tokens: int
    output_image_tokens: int
    busy_milliseconds: int


class CostBucket(msgspec.Struct, kw_only=True):
    """One UTC day; a day without entries has no results."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[CostResult]


class UsageBucket(msgspec.Struct, kw_only=True):
    """One UTC day; a day without entries has no results."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[UsageResult]


class CostPage(msgspec.Struct, kw_only=True):
    """Buckets, oldest first."""

    object: Literal["page"] = "page"
    data: list[CostBucket]
    has_more: bool
    next_page: str | None


class UsagePage(msgspec.Struct, kw_only=True):
    """Buckets, oldest first."""

    object: Literal["page"] = "page"
    data: list[UsageBucket]
    has_more: bool
    next_page: str | None


class CorrectionCreate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new ledger entry about an ended batch; `amount_usd` is what its amount changes by, and negative for a refund.

    The same `reference` for the same batch is posted once. `provider` and `model` may say which part of a batch it is.
    """

    batch_id: str
    amount_usd: Annotated[str, msgspec.Meta(description="Such as `-1.25`, with at most 12 decimals.")]
    kind: Literal["correction", "refund"] = "correction"
    note: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    reference: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    provider: str | None = None
    model: str | None = None


class Correction(msgspec.Struct, kw_only=True):
    """A correction or refund as it stands in the ledger; `corrections_usd` is the sum of all of its batch."""

    object: Literal["costs.correction"] = "costs.correction"
    batch_id: str
    kind: str
    reference: str
    amount_usd: str
    note: str
    provider: str | None
    model: str | None
    created_at: int
    corrections_usd: str
