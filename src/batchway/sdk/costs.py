"""The operations over costs, usage and corrections; as in `calls.py`, data and no I/O.

Amounts are decimal strings in US dollars, exact: make a `Decimal` of them, not a float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Unpack

from batchway.sdk.call import Call, Options, call
from batchway.sdk.calls import unparsed
from batchway.sdk.content import Content
from batchway.sdk.errors import BadRequestError
from batchway.sdk.objects import Correction, CostPage, UsagePage, made

Lane = Literal["native", "executed"]


def costs(  # noqa: PLR0913 - public API
    start_time: int | None = None,
    end_time: int | None = None,
    *,
    group_by: str | Iterable[str] = (),
    project: str | None = None,
    key_id: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    lane: Lane | None = None,
    batch_id: str | None = None,
    tag: Mapping[str, str] | None = None,
    limit: int | None = None,
    page: str | None = None,
    **options: Unpack[Options],
) -> Call[CostPage]:
    """Returns amounts by UTC day, as far as this key sees them.

    Args:
        start_time: Unix seconds; its whole day counts. Without it, seven days up to the end.
        end_time: Unix seconds, exclusive; now, without it.
        group_by: `project`, `key`, `model`, `provider`, `lane`, `batch`, `tag:<name>` of the metadata; one or several.
        project: Only this project's.
        key_id: Only what this key made.
        model: Only this model, by its provider's name for it.
        provider: Only this account.
        lane: `native` or `executed`.
        batch_id: Only this batch.
        tag: Only batches with this pair of metadata.
        limit: Days on a page, 1 to 180; 7 without it.
        page: The `next_page` of the page before.
        options: See `Options`.
    """
    given = (start_time, end_time, group_by, project, key_id, model, provider, lane, batch_id, tag, limit, page)
    return call("costs", "GET /costs", partial(made, CostPage), options, query=_query(given))


def usage(  # noqa: PLR0913 - public API
    start_time: int | None = None,
    end_time: int | None = None,
    *,
    group_by: str | Iterable[str] = (),
    project: str | None = None,
    key_id: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    lane: Lane | None = None,
    batch_id: str | None = None,
    tag: Mapping[str, str] | None = None,
    limit: int | None = None,
    page: str | None = None,
    **options: Unpack[Options],
) -> Call[UsagePage]:
    """Returns tokens and answered lines by UTC day; the arguments are those of `costs`."""
    given = (start_time, end_time, group_by, project, key_id, model, provider, lane, batch_id, tag, limit, page)
    return call("usage", "GET /usage", partial(made, UsagePage), options, query=_query(given))


def correct_costs(  # noqa: PLR0913 - public API
    batch_id: str,
    amount_usd: str,
    note: str,
    *,
    kind: Literal["correction", "refund"] = "correction",
    reference: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    **options: Unpack[Options],
) -> Call[Correction]:
    """Adds an entry to the ledger of an ended batch (admin).

    Args:
        batch_id: The batch.
        amount_usd: What its amount changes by, such as `-1.25`: a decimal string with at most 12 decimals.
        note: Why.
        kind: `correction`, or `refund` (negative).
        reference: What makes two wishes the same one, such as an invoice's number; posted once for a batch.
        provider: The account that it is about, where the batch had several.
        model: The model that it is about.
        options: See `Options`.
    """
    if not isinstance(amount_usd, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a float is not exact
        raise BadRequestError("Invalid 'amount_usd': expected a decimal string such as '-1.25'.", param="amount_usd")
    fields = {
        "batch_id": batch_id,
        "amount_usd": amount_usd,
        "kind": kind,
        "note": note,
        "reference": reference,
        "provider": provider,
        "model": model,
    }
    return call("correct_costs", "POST /costs/corrections", partial(made, Correction), options, json=fields, once=True)


def as_csv(asked: Call[Any]) -> Call[Content]:
    """The same question, answered as CSV: every day from the first to the last, to be downloaded."""
    headers = {**asked.headers, "accept": "text/csv"}
    return replace(asked, headers=headers, parse=unparsed, streamed=True)


def _query(given: tuple[Any, ...]) -> dict[str, Any]:
    names = "start_time end_time group_by project key_id model provider lane batch_id tag limit page".split()
    query = dict(zip(names, given, strict=True))
    groups: str | Iterable[str] = query["group_by"]
    return {**query, "group_by": (groups,) if isinstance(groups, str) else tuple(groups)}
