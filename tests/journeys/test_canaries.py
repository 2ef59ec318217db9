"""Secrets with a known face stand in every place there is, everything fails, all is logged: none of them is seen again.

Looked through are the log (at debug level), every file of the home folder (the database, its journal, the storage), the
answers of the API, the metrics, and what the command prints. Sealed and hashed forms are no faces.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batchway.vault import PREFIX, Vault
from tests.gateway import MASTER, Away, Gateway, Refused, free_port

SECRET_KEY = "canary-passphrase-of-the-vault"
WHSEC = "whsec_" + base64.b64encode(b"canary-of-the-webhook-of-yaml").decode()
OF_BATCH = "whsec_" + base64.b64encode(b"canary-of-the-webhook-of-batch").decode()
PASSWORD = "canary-of-the-database"
NATIVE, SEALED, HEADER, LOCAL = (f"sk-canary-{name}-0123456789" for name in ("native", "sealed", "header", "local"))
CANARIES = {
    "the key of a provider": NATIVE,
    "a sealed key of a provider": SEALED,
    "a header of a provider": HEADER,
    "the key of a model server": LOCAL,
    "the master key": MASTER,
    "the key of the vault": SECRET_KEY,
    "the secret of a webhook": WHSEC,
    "the bytes of that secret": "canary-of-the-webhook-of-yaml",
    "the secret of a batch's webhook": OF_BATCH,
    "the bytes of a batch's secret": "canary-of-the-webhook-of-batch",
    "the password of a database": PASSWORD,
}


class Unkind(BaseHTTPRequestHandler):
    """Denies everything; a job API tells the whole request back, a model server hangs up half of the time."""

    asked: dict[str, int]

    def handle_one(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        kind = self.path.split("/")[1]
        self.asked[kind] = self.asked.get(kind, 0) + 1
        if kind == "local" and self.asked[kind] % 2:
            self.close_connection = True
            return
        told = "" if kind == "local" else f" {self.path} {dict(self.headers)}"
        body = json.dumps(
            {"error": {"message": f"Incorrect API key provided.{told}", "code": "invalid_api_key"}}
        ).encode()
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("www-authenticate", self.headers.get("authorization", ""))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    do_GET = do_POST = do_DELETE = handle_one  # noqa: N815 - their names

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def unkind():
    handler = type("Handler", (Unkind,), {"asked": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, unkind):
    url, _ = unkind
    folder = tmp_path_factory.mktemp("canaries")
    sealed = Vault(SECRET_KEY, folder, shared=False).seal(SEALED)
    accounts = {
        "native": {"kind": "openai", "base_url": f"{url}/native/v1", "api_key": NATIVE, "models": ["m-native"]},
        "sealed": {"kind": "openai", "base_url": f"{url}/sealed/v1", "api_key": sealed, "models": ["m-sealed"]},
        "local": {
            "kind": "openai_compatible", "base_url": f"{url}/local/v1", "api_key": LOCAL, "models": ["m-local"],
            "headers": {"x-secret": HEADER},
        },
    }  # fmt: skip
    receivers = [{"kind": "webhook", "url": f"{url}/hook", "secret": WHSEC, "allow_private": True}]
    settings = {"providers": accounts, "receivers": receivers, "secret_key": SECRET_KEY, "poll_seconds": 0.1}
    made = Gateway(folder / "home", settings={"log_level": "debug", **settings})
    made.start()
    yield made
    made.kill()


def lines(model: str, count: int = 3) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return b"".join(json.dumps({"custom_id": str(number), **request}).encode() + b"\n" for number in range(count))


def until(true, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process: there is nothing else to wait on
    return found


@pytest.fixture(scope="module")
def told(gateway, unkind) -> dict[str, str]:
    """Everything that anybody was told, by where."""
    url, asked = unkind
    key = gateway.ask("POST", "/v1/keys", {"name": "canary", "project": "p"})["key"]
    CANARIES["a virtual key"] = key
    found: dict[str, str] = {}

    def ask(method: str, path: str, body=None, **headers: str):
        try:
            answer = gateway.ask(method, path, body, **headers)
        except (Refused, Away) as error:
            answer = str(error).removeprefix(f"{method} {path}")  # what we said ourselves
        found[f"{method} {path}"] = found.get(f"{method} {path}", "") + (
            answer.decode(errors="replace") if isinstance(answer, bytes) else json.dumps(answer)
        )
        return answer

    webhook = {"url": f"{url}/batch-hook", "secret": OF_BATCH, "allow_private": True}
    files = {model: gateway.upload(lines(model)) for model in ("m-native", "m-sealed", "m-local")}
    wanted = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batches = [
        gateway.ask("POST", "/v1/batches", {**wanted, "input_file_id": file_id, "webhook": webhook})["id"]
        for file_id in files.values()
    ]
    lost = gateway.upload(lines("m-local"))
    for path in gateway.storage.rglob(f"{lost}*"):
        path.unlink()  # what nobody foresees: an exception in the trip of a batch
    batches.append(gateway.create(lost))
    until(lambda: gateway.batch(batches[2])["status"] == "completed")
    until(lambda: all(asked.get(kind) for kind in ("native", "sealed", "hook", "batch-hook")))
    until(lambda: " ERROR " in gateway.log.read_text())

    for batch_id in batches:
        for path in ("", "/results"):
            ask("GET", f"/v1/batches/{batch_id}{path}")
    for path in ("batches", "files", "keys", "projects", "models", "webhooks", "costs", "usage", "audit"):
        ask("GET", f"/v1/{path}")
    for hook in gateway.ask("GET", "/v1/webhooks")["data"]:
        ask("GET", f"/v1/webhooks/{hook['id']}/deliveries")
    ask("GET", "/metrics")
    ask("GET", f"/v1/files?api_key={key}&token={MASTER}")
    ask("GET", "/v1/files", authorization=f"Bearer {key}-wrong")
    ask("POST", "/v1/batches", {"input_file_id": key, "metadata": {"a": 1}, "webhook": {"secret": WHSEC}})
    ask("POST", "/v1/batches/estimate", {"requests": [{"body": {"model": "m-native"}}]})
    found |= commands(gateway, batches[0])
    found["the log"] = gateway.log.read_text(errors="replace")
    return found


def commands(gateway: Gateway, batch_id: str) -> dict[str, str]:
    """What the command prints, on both outputs."""
    config = gateway.home.parent / "gateway.yaml"
    broken = gateway.home.parent / "broken.yaml"
    broken.write_text(
        f"home: {gateway.home}-2\nmaster_key: {MASTER}\nproviders: {{a: {{api_key: {NATIVE}, kind: openai, sk: 1}}}}\n"
    )
    wrong = gateway.home.parent / "wrong.yaml"
    wrong.write_text(f"master_key: {MASTER}\n  providers: {NATIVE}: x\n")
    database = f"postgresql://user:{PASSWORD}@127.0.0.1:{free_port()}/none"
    here = {"BATCHWAY_BASE_URL": gateway.url, "BATCHWAY_API_KEY": MASTER}
    runs = [
        (["get", batch_id, "--json"], here),
        (["list", "--json"], here),
        (["keys", "list", "--json"], here),
        (["results", batch_id, "--json"], here),
        (["doctor", "--json", "--config", str(config)], {}),
        (["serve", "--json", "--config", str(broken)], {}),
        (["serve", "--config", str(wrong)], {}),
        (["serve", "--log-level", "debug"], {"BATCHWAY_DATABASE_URL": database, "BATCHWAY_HOME": f"{gateway.home}-3"}),
        (["doctor", "--json"], {"BATCHWAY_DATABASE_URL": database, "BATCHWAY_HOME": f"{gateway.home}-3"}),
        (["get", batch_id], {"BATCHWAY_BASE_URL": gateway.url, "BATCHWAY_API_KEY": LOCAL}),
    ]
    found = {}
    for arguments, env in runs:
        command = [sys.executable, "-m", "batchway", *arguments]
        done = subprocess.run(
            command, env={"PATH": os.environ["PATH"], **env}, cwd=gateway.home.parent / "home", capture_output=True,
            text=True, timeout=100, check=False,
        )  # fmt: skip
        found[f"batchway {' '.join(arguments)} ({done.returncode})"] = done.stdout + done.stderr
    return found


def seen(text: str) -> list[str]:
    """Which secrets are in a text, as they are or in base64."""
    forms = {
        name: {secret, secret.removeprefix("whsec_"), base64.b64encode(secret.encode()).decode().rstrip("=")[:-2]}
        for name, secret in CANARIES.items()
    }
    return [name for name, faces in forms.items() if any(face in text for face in faces)]


def test_nobody_is_told_a_secret(told) -> None:
    assert len(told) > 20
    assert {place: names for place, text in told.items() if (names := seen(text))} == {}


def test_everything_did_fail_and_was_told_of(told, unkind) -> None:
    _, asked = unkind
    assert {"native", "sealed", "local", "hook", "batch-hook"} <= asked.keys()
    log = told["the log"]
    assert " DEBUG " in log
    assert " ERROR " in log
    assert "401" in log
    refused = [place for place in told if place.startswith("batchway serve") and place.endswith(" (2)")]
    assert len(refused) == 3, [place for place in told if place.startswith("batchway")]


def test_nothing_in_the_home_folder_holds_a_secret_as_it_is(told, gateway) -> None:
    gateway.kill()
    checked = [path for path in gateway.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in checked)
    found = {str(path): names for path in checked if (names := seen(path.read_bytes().decode("latin-1")))}
    assert found == {}
    database = b"".join(path.read_bytes() for path in gateway.home.glob("batchway.db*")).decode("latin-1")
    sealed = re.findall(rf"{PREFIX}[\w=-]+", database)
    assert sealed
    opened = {Vault(SECRET_KEY, gateway.home, shared=False).unseal(text) for text in sealed if len(text) > 60}
    assert any(WHSEC in text for text in opened), "the secret is there, but sealed"


def test_a_secret_would_be_noticed() -> None:
    for name, secret in CANARIES.items():
        assert name in seen(f"x{secret}y")
        assert name in seen(base64.b64encode(f"Basic {secret}".encode()[6:]).decode())
