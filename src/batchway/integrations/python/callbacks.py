"""LiteLLM's `CustomLogger` method names: cost-tracking callbacks written for it are called here as they are there.

`async_log_success_event` or `log_success_event` is called with (kwargs, response_obj, start_time, end_time) for
`batch.created` (call_type `acreate_batch`) and `batch.completed` (call_type `batch_success`, with final usage and
amount), the two failure methods for batches that failed, expired or were cancelled, whose `response_cost` is what was
answered and paid until then. `kwargs` have the usual keys; the payload's fields are those of LiteLLM's
StandardLoggingPayload (litellm/types/utils.py, read 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from batchway.core.event_data import BatchData
from batchway.core.events import Event, EventType
from batchway.core.money import PICO
from batchway.core.usage import NO_USAGE
from batchway.integrations.protocol import ReceiverError

SUCCESS = ("async_log_success_event", "log_success_event")
FAILURE = ("async_log_failure_event", "log_failure_event")
METHODS = {
    EventType.BATCH_CREATED: SUCCESS,
    EventType.BATCH_COMPLETED: SUCCESS,
    EventType.BATCH_FAILED: FAILURE,
    EventType.BATCH_EXPIRED: FAILURE,
    EventType.BATCH_CANCELLED: FAILURE,
}


class Answer(dict[str, Any]):
    """A batch whose fields are items and attributes: callbacks use either."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def callback_of(hook: Any) -> Callable[[Event], Any] | None:
    """What calls the hook's own callback methods with an event; None when it has none of them."""
    chosen = {names: _most_own(hook, names) for names in (SUCCESS, FAILURE)}
    if not any(chosen.values()):
        return None

    def call(event: Event) -> Any:
        name = chosen[METHODS[event.type]] if event.type in METHODS else None
        return getattr(hook, name)(*arguments(event)) if name else None

    return call


def arguments(event: Event) -> tuple[dict[str, Any], Answer, datetime, datetime]:
    """(kwargs, response_obj, start_time, end_time) of a batch's event."""
    try:
        batch = msgspec.convert(event.data, BatchData)
    except msgspec.ValidationError:
        raise ReceiverError("its data are of another version", permanent=True) from None
    payload = _payload(event, batch)
    began, ended = (datetime.fromtimestamp(payload[name], UTC) for name in ("startTime", "endTime"))
    provider, call_id = payload["custom_llm_provider"], payload["id"]
    kwargs: dict[str, Any] = {
        "model": payload["model"],
        "messages": None,
        "input": None,
        "user": None,
        "call_type": payload["call_type"],
        "custom_llm_provider": provider,
        "litellm_call_id": call_id,
        "litellm_params": {
            "metadata": payload["metadata"],
            "custom_llm_provider": provider,
            "api_base": "",
            "litellm_call_id": call_id,
        },
        "optional_params": {"input_file_id": batch.input_file_id, "endpoint": batch.endpoint},
        "response_cost": payload["hidden_params"]["response_cost"],
        "cache_hit": False,
        "start_time": began,
        "end_time": ended,
        "exception": payload["error_str"],
        "standard_logging_object": payload,
    }
    tokens = {name: payload[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    usage = Answer(msgspec.structs.asdict(batch.usage or NO_USAGE), **tokens)
    return kwargs, Answer(event.data, object="batch", usage=usage), began, ended


def _payload(event: Event, batch: BatchData) -> dict[str, Any]:
    failed = METHODS[event.type] is FAILURE
    error = f"the batch ended as {batch.status}" if failed else None
    usage = batch.usage or NO_USAGE
    paid = None if batch.amount is None else batch.amount / PICO
    model = batch.model or ", ".join(batch.models)
    began = min(batch.times.get("created", event.created_at), event.created_at)
    tags = batch.metadata or {}
    return {
        "id": event.id,  # the same however often the event is told: what a spend table drops repeats by
        "trace_id": event.subject,
        "call_type": batch.call_type or "batch_failure",
        "stream": False,
        "response_cost": paid or 0.0,
        "response_cost_failure_debug_info": None,
        "status": "failure" if failed else "success",
        "custom_llm_provider": batch.provider or ", ".join(batch.providers) or None,
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "startTime": began,
        "endTime": event.created_at,
        "completionStartTime": event.created_at,
        "response_time": event.created_at - began,
        "model": model,
        "model_id": None,
        "model_group": model,
        "api_base": "",
        "metadata": {
            **tags,
            "user_api_key_hash": event.key_id,
            "user_api_key_alias": event.key_id,
            "user_api_key_team_id": event.project,
            "user_api_key_team_alias": event.project,
            "spend_logs_metadata": tags,
            "batch_id": event.subject,
        },
        "cache_hit": False,
        "cache_key": None,
        "saved_cache_cost": 0.0,
        "request_tags": [f"{name}:{value}" for name, value in tags.items()],
        "end_user": None,
        "requester_ip_address": None,
        "messages": None,
        "response": None,
        "error_str": error,
        "error_information": {"error_code": batch.status, "error_message": error} if failed else None,
        "model_parameters": {"endpoint": batch.endpoint},
        "hidden_params": {"response_cost": paid, "batch_models": batch.models},
    }


def _most_own(hook: Any, names: tuple[str, str]) -> str | None:
    """Of a plain and an async method the one that the hook's own class wrote: CustomLogger has empty ones of both."""
    kind = hook if isinstance(hook, type) else type(hook)
    return next((name for one in kind.__mro__ for name in names if name in vars(one)), None)
