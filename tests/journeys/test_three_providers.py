"""The same lines through three providers' batch APIs: one shape, one order, the same counts, amounts that add up."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from batchway.billing.prices import Prices
from batchway.core.money import PICO
from batchway.core.usage import line_usage
from tests.gateway import FINAL, Gateway
from tests.simulator import Simulator

LINES = 2000
FAILING = frozenset(range(7, LINES + 1, 97))  # every so often the provider refuses one
PIXEL = base64.b64encode(bytes.fromhex("89504e470d0a1a0a") + bytes(40)).decode()
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
SCHEMA = {
    "name": "answer",
    "schema": {
        "type": "object",
        "properties": {"mood": {"type": "string"}},
        "required": ["mood"],
        "additionalProperties": False,
    },
}


class Place(NamedTuple):
    """A name for lines, and where they go by it."""

    kind: str
    model: str
    priced_as: str


PLACES = {
    "first": Place("openai", "gpt-4o-mini", "gpt-4o-mini"),
    "second": Place("azure", "mini-batch", "gpt-4o-mini"),
    "third": Place("vertex", "gemini-2.5-flash", "gemini-2.5-flash"),
}


def body(number: int, model: str) -> dict[str, Any]:
    """One of five shapes of chat request."""
    text = {"role": "user", "content": f"Say the number {number}."}
    shapes: list[dict[str, Any]] = [
        {"messages": [{"role": "system", "content": "Be brief. Sei kurz. 簡潔に。"}, text], "temperature": 0.2},
        {"messages": [text], "tools": [TOOL], "tool_choice": "auto"},
        {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ]}]},
        {"messages": [text], "response_format": {"type": "json_schema", "json_schema": SCHEMA}},
        {"messages": [{"role": "user", "content": "Ünïcödé 🐙 \u2028 long " * 400}], "max_completion_tokens": 64},
    ]  # fmt: skip
    asked = {"metadata": {"simulate": "400"}} if number in FAILING else {}
    return {"model": model, **shapes[number % len(shapes)], **asked}


def jsonl(models: list[str]) -> bytes:
    """Lines that take turns among the models."""
    lines = [
        {
            "custom_id": f"Row {number} – ü",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body(number, models[number % len(models)]),
        }
        for number in range(1, LINES + 1)
    ]
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    simulators = {
        place.kind: Simulator(tmp_path_factory.mktemp(place.kind), kind=place.kind, speed=3000)
        for place in PLACES.values()
    }
    roots = {kind: simulator.root for kind, simulator in simulators.items()}
    providers = {
        "openai": {"api_key": "sim", "base_url": simulators["openai"].base_url},
        "azure": {
            "endpoint": roots["azure"],
            "api_key": "sim",
            "deployments": {"mini-batch": {"base_model": "gpt-4o-mini"}},
        },
        "vertex": {
            "project": "p",
            "location": "us-central1",
            "bucket": "gs://batches/staging",
            "access_token": "sim",
            "base_url": roots["vertex"],
            "storage_url": roots["vertex"],
        },
    }
    names = {name: [f"{place.kind}/{place.model}"] for name, place in PLACES.items()}
    settings = {"providers": providers, "models": names, "poll_seconds": 0.2}
    gateway = Gateway(tmp_path_factory.mktemp("gateway") / "home", settings)
    gateway.start()
    yield gateway
    gateway.kill()
    for simulator in simulators.values():
        simulator.close()


def run(gateway: Gateway, content: bytes) -> dict[str, Any]:
    batch_id = gateway.create(gateway.upload(content))
    deadline = time.monotonic() + 90
    while (batch := gateway.batch(batch_id))["status"] not in FINAL:
        assert time.monotonic() < deadline, gateway.tail()
        time.sleep(0.1)  # another process
    return batch


def lines_of(gateway: Gateway, batch: dict[str, Any], name: str) -> list[dict[str, Any]]:
    data = gateway.ask("GET", f"/v1/files/{batch[f'{name}_file_id']}/content")
    return [json.loads(line) for line in data.splitlines()]


def check(gateway: Gateway, batch: dict[str, Any]) -> None:
    """Every line in its file, in input order, in OpenAI's shape; counts that agree."""
    assert batch["status"] == "completed", gateway.tail()
    assert batch["request_counts"] == {"total": LINES, "completed": LINES - len(FAILING), "failed": len(FAILING)}
    output, errors = lines_of(gateway, batch, "output"), lines_of(gateway, batch, "error")
    answered = [number for number in range(1, LINES + 1) if number not in FAILING]
    assert [line["custom_id"] for line in output] == [f"Row {number} – ü" for number in answered]
    assert [line["custom_id"] for line in errors] == [f"Row {number} – ü" for number in sorted(FAILING)]
    for line in output:
        assert line["response"]["body"]["object"] == "chat.completion"
        assert line["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
        assert line["response"]["body"]["usage"]["prompt_tokens"] > 0
    assert {line["response"]["status_code"] for line in errors} == {400}
    assert batch["usage"]["total_tokens"] == sum(line["response"]["body"]["usage"]["total_tokens"] for line in output)
    times = [batch[name] for name in ("created_at", "in_progress_at", "finalizing_at", "completed_at")]
    assert times == sorted(times)


@pytest.mark.parametrize("name", PLACES)
def test_the_same_lines_come_back_alike_from_each_provider(gateway: Gateway, name: str) -> None:
    batch = run(gateway, jsonl([name]))
    check(gateway, batch)
    place = PLACES[name]
    price = Prices().price(place.kind, place.priced_as, "native", time.time())
    assert price
    raw = gateway.ask("GET", f"/v1/files/{batch['output_file_id']}/content").splitlines()
    amount = sum(price.amount(line_usage(line)) for line in raw)
    assert Decimal(batch["batchway"]["amount_usd"]) == Decimal(amount) / PICO > 0


def test_models_of_three_providers_in_one_file_are_one_batch(gateway: Gateway) -> None:
    batch = run(gateway, jsonl(list(PLACES)))
    check(gateway, batch)
    jobs = batch["batchway"]["jobs"]
    assert sorted(job["provider"] for job in jobs) == sorted(place.kind for place in PLACES.values())
    assert {job["lane"] for job in jobs} == {"native"}
    results = gateway.ask("GET", f"/v1/batches/{batch['id']}/results?order=input").splitlines()
    amounts = [Decimal(json.loads(line).get("amount_usd", "0")) for line in results]
    assert len(results) == LINES
    assert sum(amounts) == Decimal(batch["batchway"]["amount_usd"])
