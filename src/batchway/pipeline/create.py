"""A request becomes a batch in `validating`: checked as OpenAI checks it, stored in one transaction, once.

What concerns the lines is not looked at here but in validation, so that a create answers at once. An unknown input file
is accepted and fails the batch there, as at OpenAI. Inline requests become a file first, which goes again when no batch
comes of it. The answer to an Idempotency-Key is stored in the same transaction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from batchway.core.errors import NotFound, RequestError
from batchway.core.principal import Principal
from batchway.db import files
from batchway.db.idempotency import AlreadyAnswered, Idempotency, recall, remember
from batchway.db.transitions import create_batch
from batchway.pipeline import show
from batchway.pipeline.intake import Incoming, delete_file, store_requests
from batchway.pipeline.trip import Trip
from batchway.wire.batches import ENDPOINTS, Batch, BatchCreate

WINDOW = re.compile(r"([0-9]{1,6})([mhd])")
SECONDS = {"m": 60, "h": 3600, "d": 86400}
SHORTEST, LONGEST = 60, 30 * 86400
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
KEEP = range(3600, 2592001)  # seconds that an output file may be kept


async def create(
    trip: Trip,
    principal: Principal,
    wanted: BatchCreate,
    *,
    provider: str | None = None,
    idempotency: Idempotency | None = None,
) -> Batch:
    """The new batch, or the first answer to the same Idempotency-Key; RequestError names the field at fault."""
    now = trip.clock()
    values: dict[str, Any] = {
        "id": trip.new_id("batch_"),
        "project": principal.project,
        "key_id": principal.key_id,
        "private": principal.private,
        "endpoint": _endpoint(trip, wanted.endpoint),
        "completion_window": wanted.completion_window,
        "metadata": checked_metadata(wanted.metadata),
        "model": wanted.model or None,
        "provider": _provider(trip, provider or wanted.custom_llm_provider),
        "priority": wanted.priority,
        "extra": wanted.extra,
        "output_expires_after": _keep(wanted),
        "window_seconds": window_seconds(wanted.completion_window),
    }
    values["expires_at"] = now + values["window_seconds"]
    stored = await _inline(trip, principal, values["id"], wanted)
    values["input_file_id"] = stored["id"] if stored else _required(wanted.input_file_id, "input_file_id")
    try:
        batch = await trip.db.write(_store, principal, values, idempotency, now)
    except Exception as refusal:
        if stored:
            await delete_file(trip, stored)
        if isinstance(refusal, AlreadyAnswered):
            return msgspec.json.decode(refusal.body, type=Batch)
        raise
    trip.bells.work.set()
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


def _store(
    tx: Connection, principal: Principal, values: dict[str, Any], idempotency: Idempotency | None, now: float
) -> Batch:
    if idempotency:
        earlier = recall(tx, principal.key_id, idempotency.key, idempotency.fingerprint, now)
        if earlier is not None:
            raise AlreadyAnswered(earlier)
    _refuse_other_purposes(tx, values["input_file_id"], principal)
    create_batch(tx, now, values)
    batch = show.one(tx, values["id"], None, now)
    if idempotency:
        body = msgspec.json.encode(batch).decode()
        remember(tx, principal.key_id, idempotency.key, idempotency.fingerprint, body, now)
    return batch


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


def window_seconds(text: str) -> int:
    """The length of a completion window such as `24h`; RequestError when it is none, or out of range."""
    match = WINDOW.fullmatch(text)
    seconds = int(match[1]) * SECONDS[match[2]] if match else 0
    if not SHORTEST <= seconds <= LONGEST:
        raise RequestError(
            f"Invalid value: '{text}'. A completion window is '<n>m', '<n>h' or '<n>d', from 1m to 30d, such as '24h'.",
            code="invalid_value",
            param="completion_window",
        )
    return seconds


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, str] | None:
    """OpenAI's rules, in its words: at most 16 pairs, keys of 64 and string values of 512 characters."""
    if metadata is None:
        return None
    if len(metadata) > MAX_PAIRS:
        message = (
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} properties, "
            f"but got an object with {len(metadata)} properties instead."
        )
        raise RequestError(message, code="object_above_max_properties", param="metadata")
    for key, value in metadata.items():
        _check_pair(key, value)
    return dict(metadata)


def _check_pair(key: str, value: object) -> None:
    if len(key) > MAX_KEY:
        message = f"Invalid property name in 'metadata': '{key[:3]}...{key[-3:]}' is too long. " + _too_long(
            MAX_KEY, key
        )
        raise RequestError(message, code="property_name_above_max_length", param=f"metadata.{key}")
    param = f"metadata.{key}"
    if not isinstance(value, str):
        message = f"Invalid type for '{param}': expected a string, but got {_type_of(value)} instead."
        raise RequestError(message, code="invalid_type", param=param)
    if len(value) > MAX_VALUE:
        message = f"Invalid '{param}': string too long. " + _too_long(MAX_VALUE, value)
        raise RequestError(message, code="string_above_max_length", param=param)


def _too_long(most: int, text: str) -> str:
    return f"Expected a string with maximum length {most}, but got a string with length {len(text)} instead."


def _type_of(value: object) -> str:
    words: dict[type[Any], str] = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        dict: "an object",
        list: "an array",
    }
    return words.get(type(value), "null")


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


def _keep(wanted: BatchCreate) -> int | None:
    if wanted.output_expires_after is None:
        return None
    seconds = wanted.output_expires_after.seconds
    if seconds not in KEEP:
        low = seconds < KEEP.start
        side, bound = ("below minimum", f">= {KEEP.start}") if low else ("above maximum", f"<= {KEEP.stop - 1}")
        param = "output_expires_after.seconds"
        message = f"Invalid '{param}': integer {side} value. Expected a value {bound}, but got {seconds} instead."
        code = "integer_below_min_value" if low else "integer_above_max_value"
        raise RequestError(message, code=code, param=param)
    return seconds
