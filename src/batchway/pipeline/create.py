"""A request becomes a batch in `validating`: checked as OpenAI checks it, stored in one transaction, once.

In that transaction the limits are checked and the money is held, so nothing is ever sent that no budget has room for.
Over budget, the batch of a key that asked for it is `paused` at once, without a hold; any other is refused. What else
concerns the lines is looked at in validation: an unknown input file is accepted and fails the batch there, as at
OpenAI. Inline requests become a file first, which goes again when no batch comes of it. The answer to an
Idempotency-Key is stored in the same transaction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway import logs
from batchway.core.errors import NotFound, OverBudget, RequestError, TooMany
from batchway.core.principal import Principal
from batchway.core.states import BatchState
from batchway.db import files, webhooks
from batchway.db.idempotency import AlreadyAnswered, Idempotency, recall, remember
from batchway.db.transitions import create_batch, move_batch
from batchway.integrations.webhook.endpoints import New
from batchway.pipeline import show
from batchway.pipeline.admit import Needs, ask, check_policies, hold, within_limits
from batchway.pipeline.fields import checked_metadata, keep_seconds, window_seconds
from batchway.pipeline.intake import Incoming, delete_file, store_requests
from batchway.pipeline.trip import Trip
from batchway.wire.batches import ENDPOINTS, Batch, BatchCreate


async def create(
    trip: Trip,
    principal: Principal,
    wanted: BatchCreate,
    *,
    provider: str | None = None,
    idempotency: Idempotency | None = None,
    traceparent: str | None = None,
) -> Batch:
    """The new batch of `principal`, or the first answer to the same Idempotency-Key.

    RequestError names the field at fault; TooMany and OverBudget when there is no room for it.
    """
    now = trip.clock()
    values: dict[str, Any] = {
        "id": trip.new_id("batch_"),
        "project": principal.project,
        "key_id": principal.key_id,
        "private": principal.private,
        "policies": msgspec.to_builtins(principal.policies) or None,
        "endpoint": _endpoint(trip, wanted.endpoint),
        "completion_window": wanted.completion_window,
        "metadata": checked_metadata(wanted.metadata),
        "model": wanted.model or None,
        "provider": _provider(trip, provider or wanted.custom_llm_provider),
        "priority": wanted.priority,
        "extra": wanted.extra,
        "traceparent": traceparent,
        "output_expires_after": keep_seconds(wanted),
        "window_seconds": window_seconds(wanted.completion_window),
    }
    values["expires_at"] = now + values["window_seconds"]
    logs.note(batch_id=values["id"])
    check_policies(trip, principal, values["provider"], values["model"])
    hook = await trip.webhooks.of_batch(principal, wanted.webhook, values["id"])
    stored = await _inline(trip, principal, values["id"], wanted)
    try:
        values["input_file_id"] = stored["id"] if stored else _required(wanted.input_file_id, "input_file_id")
        needs = await ask(trip, values)
        values["input_tokens"] = needs.input_tokens
        batch = await trip.db.write(_store, _Order(principal, values, needs, idempotency, hook), now)
    except Exception as refusal:
        if stored:
            await delete_file(trip, stored)
        earlier = await _earlier(trip, principal, idempotency, refusal)
        if earlier is None:
            raise
        return msgspec.json.decode(earlier, type=Batch)
    trip.bells.work.set()
    if hook is not None and batch.batchway is not None:
        batch.batchway.webhook = hook.shown()
    return batch


async def _inline(trip: Trip, principal: Principal, batch_id: str, wanted: BatchCreate) -> RowMapping | None:
    """The file made of inline requests, if there are any."""
    if wanted.requests is None:
        return None
    if wanted.input_file_id is not None:
        message = "Send either 'input_file_id' or 'requests', not both."
        raise RequestError(message, code="invalid_value", param="requests")
    upload = Incoming(
        project=principal.project,
        key_id=principal.key_id,
        private=principal.private,
        filename=f"{batch_id}.jsonl",
        purpose="batch",
    )
    return await store_requests(trip, upload, wanted.requests)


class _Order(NamedTuple):
    """What is stored together: the columns of the batch, what it needs, the answer to a repeat, its own webhook."""

    principal: Principal
    values: dict[str, Any]
    needs: Needs
    idempotency: Idempotency | None
    hook: New | None


def _store(tx: Connection, order: _Order, now: float) -> Batch:
    principal, values, needs, idempotency, hook = order
    earlier = _recall(tx, principal, idempotency, now)
    if earlier is not None:
        raise AlreadyAnswered(earlier)
    _refuse_other_purposes(tx, values["input_file_id"], principal)
    within_limits(tx, principal, needs)
    if hook is not None:
        webhooks.add(tx, hook.values)
    create_batch(tx, now, values)
    try:
        hold(tx, values, needs, now)
    except OverBudget as refusal:
        if not principal.pauses:
            raise
        pause = {"reason": "budget", "message": refusal.message}
        move_batch(tx, values["id"], BatchState.VALIDATING, BatchState.PAUSED, now, {"pause": pause})
    batch = show.one(tx, values["id"], None, now)
    if idempotency:
        key_id = idempotency.asker or principal.key_id
        body = msgspec.json.encode(batch).decode()
        remember(tx, key_id, idempotency.key, idempotency.fingerprint, body, now)
    return batch


def _recall(tx: Connection, principal: Principal, idempotency: Idempotency | None, now: float) -> str | None:
    if idempotency is None:
        return None
    return recall(tx, idempotency.asker or principal.key_id, idempotency.key, idempotency.fingerprint, now)


async def _earlier(trip: Trip, principal: Principal, idempotency: Idempotency | None, refusal: Exception) -> str | None:
    """The answer to the same request that was quicker, and may have taken the room that this one was refused for."""
    if isinstance(refusal, AlreadyAnswered):
        return refusal.body
    if isinstance(refusal, OverBudget | TooMany):
        return await trip.db.read(_recall, principal, idempotency, trip.clock())
    return None


def _refuse_other_purposes(tx: Connection, file_id: str, principal: Principal) -> None:
    try:
        file = files.get(tx, file_id, principal.sight, hold=True)
    except NotFound:
        return  # validation says so, with OpenAI's code
    check_purpose(file)


def check_purpose(file: RowMapping) -> None:
    """RequestError for a file that no batch reads."""
    if file["purpose"] != "batch":
        raise RequestError(
            f"Invalid input file: '{file['id']}' has purpose '{file['purpose']}', "
            "a batch reads files of purpose 'batch'.",
            code="invalid_file_purpose",
            param="input_file_id",
        )


def _endpoint(trip: Trip, endpoint: str) -> str:
    supported = sorted({*ENDPOINTS, *trip.accounts.native_endpoints()})
    if endpoint not in supported:
        listed = ", ".join(f"'{name}'" for name in supported[:-1]) + f", and '{supported[-1]}'"
        message = f"Invalid value: '{endpoint}'. Supported values are: {listed}."
        raise RequestError(message, code="invalid_value", param="endpoint")
    return endpoint


def _required(value: str | None, name: str) -> str:
    if not value:
        raise RequestError(f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    return value


def _provider(trip: Trip, word: str | None) -> str | None:
    if word is not None and not trip.accounts.find(word):
        configured = ", ".join(sorted(account.name for account in trip.accounts)) or "none"
        message = f"No provider '{word}' is configured. Configured: {configured}."
        raise RequestError(message, code="invalid_value", param="custom_llm_provider")
    return word
