"""Budgets over real HTTP: a pause and its end, executed lines that stop paying, and what the official client makes of a
refusal.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import openai
import pytest

from tests.gateway import FINAL, Gateway, Refused
from tests.simulator import Simulator

SECONDS = 60.0
TOKENS = 7  # of each answer of the model server
CHAT = "/v1/chat/completions"
PRICES = {"local/*": {"input": "0", "output": "1000"}}  # a tenth of a cent for each token that is answered


@dataclass
class World:
    gateway: Gateway

    def ask(self, method: str, path: str, body: Any = None, key: dict[str, Any] | None = None) -> Any:
        headers = {"authorization": f"Bearer {key['key']}"} if key else {}
        return self.gateway.ask(method, path, body, **headers)

    def key(self, usd: str, **more: Any) -> dict[str, Any]:
        return self.ask("POST", "/v1/keys", {"name": "k", "budget": {"usd": usd, "period": "day"}, **more})

    def create(self, key: dict[str, Any], requests: list[dict[str, Any]]) -> dict[str, Any]:
        wanted = {"requests": requests, "endpoint": CHAT, "completion_window": "24h"}
        return self.ask("POST", "/v1/batches", wanted, key)

    def top_up(self, key: dict[str, Any], usd: str) -> None:
        self.ask("POST", f"/v1/keys/{key['id']}", {"budget": {"usd": usd, "period": "day"}})

    def budget(self, key: dict[str, Any]) -> dict[str, Decimal]:
        shown = self.ask("GET", f"/v1/keys/{key['id']}")["budget"]
        return {name: Decimal(shown[f"{name}_usd"]) for name in ("held", "settled", "remaining")}

    def until(self, batch_id: str, *statuses: str) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while (batch := self.ask("GET", f"/v1/batches/{batch_id}"))["status"] not in (statuses or FINAL):
            assert time.monotonic() < end, batch
            time.sleep(0.05)  # another process: there is nothing to wait on
        return batch

    def lines(self, file_id: str) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.ask("GET", f"/v1/files/{file_id}/content").splitlines()]


class _Talkative(BaseHTTPRequestHandler):
    """A model server that does not keep to `max_tokens`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "and so on"}
        usage = {"prompt_tokens": 3, "completion_tokens": TOKENS, "total_tokens": TOKENS + 3}
        body = json.dumps({"choices": [{"index": 0, "message": message}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def talkative() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Talkative) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("budgets")
    with ExitStack() as stack:
        simulator = Simulator(folder / "simulator", speed=2000)
        stack.callback(simulator.close)
        native = {"api_key": "sim", "base_url": simulator.base_url}
        endpoint = stack.enter_context(talkative())
        local = {"kind": "openai_compatible", "base_url": endpoint, "models": ["llama"], "concurrency": 2}
        settings = {"poll_seconds": 0.1, "providers": {"openai": native, "local": local}, "prices": PRICES}
        gateway = Gateway(folder / "home", settings)
        stack.callback(gateway.kill)
        gateway.start()
        yield World(gateway)


def requests(count: int, model: str = "gpt-4o-mini", **body: Any) -> list[dict[str, Any]]:
    said = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **body}
    return [{"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": said} for number in range(count)]


def test_a_paused_batch_says_why_and_goes_on_by_itself_after_a_top_up(world: World) -> None:
    key = world.key("0", on_budget="pause")
    batch = world.create(key, requests(3))
    assert batch["status"] == "paused"
    assert batch["batchway"]["pause"]["reason"] == "budget"
    assert "$0 a day" in batch["batchway"]["pause"]["message"]
    assert [one["id"] for one in world.ask("GET", "/v1/batches?status=paused", None, key)["data"]] == [batch["id"]]
    with pytest.raises(Refused, match=r"429.*insufficient_quota"):
        world.ask("POST", f"/v1/batches/{batch['id']}/resume", None, key)
    world.top_up(key, "5")
    ended = world.until(batch["id"])
    assert (ended["status"], ended["batchway"]["pause"]) == ("completed", None)
    amount = Decimal(ended["batchway"]["amount_usd"])
    assert world.budget(key) == {"held": 0, "settled": amount, "remaining": 5 - amount}
    with pytest.raises(Refused, match="409"):
        world.ask("POST", f"/v1/batches/{batch['id']}/resume", None, key)


def test_a_paused_batch_can_be_cancelled(world: World) -> None:
    key = world.key("0", on_budget="pause")
    batch = world.create(key, requests(2))
    world.ask("POST", f"/v1/batches/{batch['id']}/cancel", None, key)
    ended = world.until(batch["id"])
    assert (ended["status"], ended["batchway"]["amount_usd"]) == ("cancelled", "0")
    assert {line["error"]["code"] for line in world.lines(ended["error_file_id"])} == {"batch_cancelled"}


def test_executed_lines_are_not_sent_once_the_hold_is_spent(world: World) -> None:
    """The endpoint does not keep to `max_tokens`: its answers amount to more than was held for them."""
    key = world.key("100")
    batch = world.create(key, requests(60, "local/llama", max_tokens=1))
    ended = world.until(batch["id"])
    assert ended["status"] == "completed"
    codes = Counter(line["error"]["code"] for line in world.lines(ended["error_file_id"]))
    answered = world.lines(ended["output_file_id"])
    assert codes == {"budget_exceeded": 60 - len(answered)}
    held, tokens = 60, TOKENS * len(answered)
    assert held <= tokens < held + 2 * TOKENS  # what was in flight might end
    spent = Decimal(tokens) / 1000
    assert Decimal(ended["batchway"]["amount_usd"]) == spent
    assert world.budget(key) == {"held": 0, "settled": spent, "remaining": 100 - spent}


def test_openais_client_does_not_try_again_over_budget(world: World) -> None:
    key = world.key("0", project="poor")
    calls: list[Any] = []
    with openai.OpenAI(base_url=f"{world.gateway.url}/v1", api_key=key["key"], max_retries=3) as client:
        client._client.event_hooks["response"].append(calls.append)
        file = client.files.create(file=("in.jsonl", _jsonl(requests(2))), purpose="batch")
        before = len(calls)
        with pytest.raises(openai.RateLimitError) as refused:
            client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        assert len(calls) == before + 1
        assert client.batches.list().data == []


def _jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_a_budget_in_the_settings_is_the_gateways(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "home", {"budget": {"usd": 12.5, "period": "month"}})
    try:
        gateway.start()
        assert gateway.ask("GET", "/v1/budget")["budget"]["usd"] == "12.5"
    finally:
        gateway.kill()
