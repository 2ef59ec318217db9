"""A running gateway in a process of its own, in front of simulators and a real model: what the journeys share.

`Running` is asked over plain HTTP (as `serving.Served` is) and shows what it keeps; `line` makes input.
Accounts: `openai` and `second` are simulated batch APIs whose clock runs, `still` is one whose clock only `advance`
moves, `live` executes against the first simulator, `local` against llama.cpp.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests import invariants
from tests.gateway import FINAL, Gateway
from tests.journeys.serving import Answer, Served
from tests.model_server import MODEL_NAME
from tests.simulator import Simulator

CHAT = "/v1/chat/completions"
PATIENCE = 40.0  # seconds for any one batch
KINDS = {"openai": "openai", "second": "openai", "still": "openai", "live": "openai_compatible"}
CLOCKS: dict[str, dict[str, Any]] = {
    "openai": {"speed": 3000, "cancel_seconds": 30},
    "second": {"speed": 3000, "seed": 2},
    "still": {"speed": 0.001, "seed": 3, "cancel_seconds": 1},
}
MODELS = {
    "fast": ["openai/gpt-4o-mini"],
    "frozen": ["still/gpt-4o-mini"],
    "lively": ["live/gpt-4.1-nano"],
    "tiny": [f"local/{MODEL_NAME}"],
    "a-name-much-longer-than-the-model-it-stands-for": ["second/gpt-4.1-mini"],
}


@dataclass
class Running:
    """A gateway with its simulators; `model_url` is where llama.cpp would be."""

    gateway: Gateway
    simulators: dict[str, Simulator]
    model_url: str = ""

    @property
    def served(self) -> Served:
        return Served(self.gateway.port, None, None)  # type: ignore[arg-type] - only asked over HTTP

    @property
    def url(self) -> str:
        return f"{self.gateway.url}/v1"

    @property
    def storage(self) -> Path:
        return self.gateway.home / "storage"

    def ask(self, method: str, path: str, body: Any = None, **headers: Any) -> Answer:
        return self.served.ask(method, path, body, **headers)

    def upload(self, content: bytes, name: str = "in.jsonl", **fields: Any) -> str:
        answer = self.served.upload(content, name, **{"purpose": "batch", **fields})
        assert answer.status == 200, answer.body
        return answer.json["id"]

    def create(self, file_id: str, endpoint: str = CHAT, key: str | None = None, **more: Any) -> dict[str, Any]:
        wanted = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h", **more}
        answer = self.ask("POST", "/v1/batches", wanted, **({} if key is None else {"key": key}))
        assert answer.status == 200, answer.body
        return answer.json

    def run(self, content: bytes, endpoint: str = CHAT, **more: Any) -> dict[str, Any]:
        """The ended batch over these lines."""
        return self.wait(self.create(self.upload(content), endpoint, **more)["id"])

    def batch(self, batch_id: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/v1/batches/{batch_id}")
        assert answer.status == 200, answer.body
        return answer.json

    def wait(self, batch_id: str, *states: str) -> dict[str, Any]:
        """The batch once it is in one of `states` (default: any end)."""
        return self.until(batch_id, lambda batch: batch["status"] in (states or FINAL))

    def until(self, batch_id: str, met: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while not met(batch := self.batch(batch_id)):
            assert time.monotonic() < deadline, f"{batch}\n{self.gateway.tail()}"
            time.sleep(0.03)  # another process: a client can only ask again
        return batch

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        """The parsed lines of a file; none when there is none."""
        if file_id is None:
            return []
        answer = self.ask("GET", f"/v1/files/{file_id}/content")
        assert answer.status == 200, answer.body
        return [json.loads(line) for line in answer.body.splitlines()]

    def files_of(self, batch: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return self.lines(batch["output_file_id"]), self.lines(batch["error_file_id"])

    def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """What a statement reads in (or does to) the gateway's own database."""
        engine = sa.create_engine(f"sqlite:///{self.gateway.home / 'batchway.db'}", connect_args={"timeout": 20})
        try:
            with engine.begin() as tx:
                done = tx.execute(sa.text(statement), values)
                return [dict(row) for row in done.mappings()] if done.returns_rows else []
        finally:
            engine.dispose()

    def violations(self, batch_id: str) -> list[str]:
        """What does not hold of an ended batch: see tests/invariants.py. Objects are looked at by `strays`."""
        remains = invariants.read(self.gateway.database, self.storage, batch_id)
        found = invariants.violations(remains, [], KINDS)
        return [sentence for sentence in found if not sentence.startswith("objects that nothing names")]

    def strays(self) -> list[str]:
        """Objects that no row names."""
        paths = [path.relative_to(self.storage) for path in self.storage.rglob("*") if path.is_file()]
        keys = {path.as_posix() for path in paths}
        for row in self.rows("select storage_key from files"):
            keys -= {row["storage_key"], f"{row['storage_key']}.index"}
        batches = {row["id"] for row in self.rows("select id from batches")}
        uploads = {row["id"] for row in self.rows("select id from uploads where status = 'pending'")}
        live = batches | uploads
        return sorted(key for key in keys if not (key.count("/") > 1 and key.split("/")[1] in live))

    def open_holds(self) -> list[str]:
        """Batches that have ended and still hold money."""
        ended = ", ".join(f"'{status}'" for status in FINAL)
        query = "select batch_id from holds join batches on id = batch_id where settled_at is null and status in "
        return [row["batch_id"] for row in self.rows(f"{query}({ended})")]

    def events(self, subject: str) -> Counter[str]:
        """How often each event about a batch was told."""
        return Counter(row["type"] for row in self.rows("select type from outbox where subject = :s", s=subject))


@contextmanager
def running(folder: Path, model_url: str = "http://127.0.0.1:9/v1") -> Iterator[Running]:
    """A gateway in front of three simulators; ended with the block."""
    with ExitStack() as stack:
        simulators = {
            name: stack.enter_context(closing(Simulator(folder / name, **options))) for name, options in CLOCKS.items()
        }
        gateway = Gateway(folder / "home", settings(simulators, model_url))
        stack.callback(gateway.kill)
        gateway.start()
        yield Running(gateway, simulators, model_url)


def settings(simulators: dict[str, Simulator], model_url: str) -> dict[str, Any]:
    """batchway.yaml with an account for each simulator's batches, its single requests, and the model server."""
    natives = {"openai": {"max_lines": 512}, "second": {"max_lines": 100}, "still": {"max_lines": 512}}
    providers: dict[str, Any] = {
        name: {"kind": "openai", "api_key": "sim", "base_url": simulators[name].base_url, **more}
        for name, more in natives.items()
    }
    sync = {"kind": "openai_compatible", "base_url": simulators["openai"].base_url, "concurrency": 16}
    providers["live"] = {**sync, "api_key": "sim", "models": ["gpt-4.1-nano"]}
    providers["local"] = {"kind": "openai_compatible", "base_url": model_url, "concurrency": 4, "models": [MODEL_NAME]}
    return {"poll_seconds": 0.1, "providers": providers, "models": MODELS, "max_file_bytes": 80 << 20}


def line(
    number: int, model: str = "fast", url: str = CHAT, *, simulate: str | None = None, **body: Any
) -> dict[str, Any]:
    """One request; `simulate` is a fault that the simulator is asked for."""
    content = {
        CHAT: {"messages": [{"role": "user", "content": f"Say {number} – ö 漢."}]},
        "/v1/completions": {"prompt": f"Say {number}"},
        "/v1/embeddings": {"input": f"text {number}"},
        "/v1/responses": {"input": f"Say {number}"},
        "/v1/moderations": {"input": f"text {number}"},
    }[url]
    asked = {"metadata": {"simulate": simulate}} if simulate else {}
    return {
        "custom_id": f"row-{number}",
        "method": "POST",
        "url": url,
        "body": {"model": model, **content, **asked, **body},
    }


def chat(count: int, model: str = "fast") -> bytes:
    return jsonl(line(number, model) for number in range(count))


def jsonl(requests: Any) -> bytes:
    return b"".join(json.dumps(request, ensure_ascii=False).encode() + b"\n" for request in requests)


def names(lines: list[dict[str, Any]]) -> list[int]:
    """The numbers of output lines, in their order."""
    return [int(line["custom_id"].removeprefix("row-")) for line in lines]
