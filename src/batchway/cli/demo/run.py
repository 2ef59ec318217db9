"""The demo's story, top to bottom: serve a model, start a gateway, send a batch, kill the gateway, see it end well.

The gateway is driven through the SDK only. Everything started here is ended here by its process id, also on Ctrl-C and
SIGTERM; the folder stays with `keep`, or when something went wrong (its logs tell what).
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchway.cli.demo.gateway import Gateway
from batchway.cli.demo.model import MODEL_NAME, DemoError, ModelServer, ModelSettings, demo_model
from batchway.cli.demo.outcome import read_answers, read_embeddings, samples_of, vectors_of
from batchway.cli.demo.prompts import Line, chat_lines, embedding_lines
from batchway.cli.demo.show import Report, Screen
from batchway.sdk.client import Client

CHAT_MODELS = ("smollm2", "smollm2-also")
EMBEDDING_LINES = 24
KILL_AT = 0.4
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
POLL_SECONDS = 0.4
STALL_SECONDS = 120.0

Batch = dict[str, Any]


def run_demo(*, keep: bool, as_json: bool, lines: int) -> int:
    """Plays the demo with `lines` chat requests; the exit code of `batchway demo` (0, 1, 2, 3 or 130)."""
    screen = Screen(as_json=as_json)
    if lines < 1:
        screen.error("The demo needs at least 1 line.")
        return 2
    try:
        gguf = demo_model()
        with _sigterm_interrupts(), _folder(keep=keep) as folder:
            summary = _play(gguf, folder, screen, lines)
    except DemoError as error:
        screen.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        screen.error("Interrupted; the model server and the gateway are stopped.")
        return 130
    screen.summary({**summary, "folder": str(folder) if keep else None})
    return 0 if summary["as_promised"] else 1


def _play(gguf: Path, folder: Path, screen: Screen, lines: int) -> dict[str, Any]:
    began = time.monotonic()
    with ExitStack() as running:
        model = running.enter_context(ModelServer(ModelSettings(gguf, MODEL_NAME, folder / "model.log")))
        screen.say(f"A real model, {gguf.stem}, is served by llama.cpp at {model.base_url}")
        key = f"sk-demo-{secrets.token_hex(16)}"
        gateway = Gateway(folder, key)
        gateway.configure(model.base_url, model.settings.slots, dict.fromkeys(CHAT_MODELS, MODEL_NAME))
        running.callback(gateway.stop)
        gateway.start()
        screen.say(f"Batchway is running at {gateway.url}, its state in {gateway.home}")
        client = running.enter_context(Client(base_url=gateway.url, api_key=key))
        demo = _Demo(folder, screen, model, gateway, client)
        chat = demo.chat_batch(lines)
        embeddings = demo.embedding_batch()
    seconds = round(time.monotonic() - began, 1)
    return {**chat, **embeddings, "seconds": seconds, "as_promised": chat["as_promised"] and embeddings["as_promised"]}


@dataclass
class _Demo:
    folder: Path
    screen: Screen
    model: ModelServer
    gateway: Gateway
    client: Client

    def chat_batch(self, lines: int) -> dict[str, Any]:
        """Sends the chat requests, kills the gateway on the way, and looks at what came back."""
        sent = self._write("input.jsonl", chat_lines(lines, CHAT_MODELS))
        batch = self._create("input.jsonl", "/v1/chat/completions")
        self.screen.say(f"Batch {batch['id']}: {lines} chat requests to {' and '.join(CHAT_MODELS)}")
        with self.screen.progress("chat") as report:
            batch = self._follow(batch, report, until=lambda now: _ended_lines(now) >= KILL_AT * lines)
            crash = self._crash(batch, report) if batch["status"] not in ENDED else _NO_CRASH
            batch = self._follow(batch, report, until=lambda _: False)
        answers = read_answers(sent, self._download(batch, "chat"))
        self.screen.answers(samples_of(sent, answers.found))
        begun = self.model.requests_begun()
        counts = batch["request_counts"]
        counts_kept = crash["safe_after_kill"] >= crash["seen_before_kill"]
        return {
            "batch": batch["id"],
            "status": batch["status"],
            "lines": lines,
            "answered": counts["completed"],
            "failed": counts["failed"],
            "files_hold": answers.verdict,
            "json_asked": answers.json_asked,
            "json_valid": answers.json_valid,
            **_tokens_and_amount(batch),
            **crash,
            "requests_begun": begun,
            "requests_repeated": begun - lines,
            "samples": samples_of(sent, answers.found),
            "as_promised": answers.complete and counts_kept and counts["completed"] == lines,
        }

    def embedding_batch(self) -> dict[str, Any]:
        """Sends some texts to be embedded: a batch has one endpoint, so these are a batch of their own."""
        sent = self._write("embeddings-input.jsonl", embedding_lines(EMBEDDING_LINES, CHAT_MODELS[0]))
        batch = self._create("embeddings-input.jsonl", "/v1/embeddings")
        self.screen.say(f"Batch {batch['id']}: {EMBEDDING_LINES} requests for embeddings")
        with self.screen.progress("embeddings") as report:
            batch = self._follow(batch, report, until=lambda _: False)
        vectors, size = read_embeddings(self._download(batch, "embeddings"))
        wanted = sum(vectors_of(line) for line in sent)
        return {"embeddings": vectors, "embedding_size": size, "as_promised": vectors == wanted}

    def _write(self, name: str, lines: Iterable[Line]) -> list[Line]:
        written = list(lines)
        with (self.folder / name).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in written)
        return written

    def _create(self, name: str, endpoint: str) -> Batch:
        with (self.folder / name).open("rb") as file:
            uploaded = self.client.create_file(file=file, purpose="batch")
        return self.client.create_batch(
            input_file_id=uploaded.id, endpoint=endpoint, completion_window="24h", metadata={"made_by": "batchway demo"}
        ).to_dict()

    def _look(self, batch: Batch, report: Report) -> Batch:
        batch = self.client.retrieve_batch(batch_id=batch["id"]).to_dict()
        counts = batch["request_counts"]
        report(counts["total"], counts["completed"], counts["failed"])
        return batch

    def _follow(self, batch: Batch, report: Report, until: Callable[[Batch], bool]) -> Batch:
        """Looks at the batch until it ended or `until` says so; DemoError when nothing moves for STALL_SECONDS."""
        seen, moved = (batch["status"], -1), time.monotonic()
        while True:
            batch = self._look(batch, report)
            if batch["status"] in ENDED or until(batch):
                return batch
            now = (batch["status"], _ended_lines(batch))
            if now != seen:
                seen, moved = now, time.monotonic()
            elif time.monotonic() - moved > STALL_SECONDS:
                raise DemoError(f"Batch {batch['id']} has not moved for {STALL_SECONDS:.0f} s (logs: {self.folder})")
            time.sleep(POLL_SECONDS)

    def _crash(self, batch: Batch, report: Report) -> dict[str, Any]:
        """Kills the gateway without warning, starts it again, and tells how many lines it still had."""
        seen = _ended_lines(batch)
        pid = self.gateway.kill()
        self.screen.loud(
            f"kill -9 {pid}: the gateway is gone, {seen} lines in. Starting it again on the same folder ..."
        )
        seconds = self.gateway.start()
        safe = _ended_lines(self._look(batch, report))
        self.screen.say(f"It is back after {seconds:.1f} s: {safe} lines were safe, the rest goes on.")
        return {
            "killed_pid": pid,
            "seen_before_kill": seen,
            "restart_seconds": round(seconds, 1),
            "safe_after_kill": safe,
        }

    def _download(self, batch: Batch, name: str) -> list[Path]:
        """The batch's output and error file, those that there are, stored in the demo's folder."""
        paths: list[Path] = []
        for kind in ("output", "error"):
            file_id = batch.get(f"{kind}_file_id")
            if file_id:
                path = self.folder / f"{name}-{kind}.jsonl"
                path.write_bytes(self.client.file_content(file_id=file_id).content)
                paths.append(path)
        return paths


_NO_CRASH: dict[str, Any] = {"killed_pid": 0, "seen_before_kill": 0, "restart_seconds": None, "safe_after_kill": 0}


def _ended_lines(batch: Batch) -> int:
    return int(batch["request_counts"]["completed"]) + int(batch["request_counts"]["failed"])


def _tokens_and_amount(batch: Batch) -> dict[str, Any]:
    nothing: dict[str, Any] = {}
    usage, own = batch.get("usage") or nothing, batch.get("batchway") or nothing
    return {
        "input_tokens": usage.get("input_tokens", 0),
        "output_tokens": usage.get("output_tokens", 0),
        "amount_usd": own.get("amount_usd"),
        "amount_status": own.get("amount_status", "unknown"),
    }


@contextmanager
def _folder(*, keep: bool) -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="batchway-demo-"))
    try:
        yield folder
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    if not keep:
        shutil.rmtree(folder)


@contextmanager
def _sigterm_interrupts() -> Generator[None]:
    """Lets SIGTERM end the demo as Ctrl-C does: by default it would leave a gateway running behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
