"""Webhooks of a running gateway: to receivers as the documents show them, and through the API, SDK and command line."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from standardwebhooks import Webhook

import batchway
from tests.gateway import MASTER, Gateway, Refused, free_port
from tests.journeys.hooked import Hooked, hooked
from tests.journeys.test_openai_node import NODE, missing
from tests.journeys.trips import Running, chat

PAGE = (Path(__file__).parents[2] / "docs" / "receivers" / "webhook.md").read_text()


@pytest.fixture
def receiver():
    with hooked() as made:
        yield made


def webhook(world: Running, receiver: Hooked, **wanted) -> dict:
    body = {"url": receiver.url, "allow_private": True, **wanted}
    answer = world.ask("POST", "/v1/webhooks", body)
    assert answer.status == 200, answer.body
    return answer.json


def deliveries(world: Running, webhook_id: str, query: str = "") -> list[dict]:
    answer = world.ask("GET", f"/v1/webhooks/{webhook_id}/deliveries?{query}")
    assert answer.status == 200, answer.body
    return answer.json["data"]


def until(true, seconds: float = 40.0):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.03)  # another process: there is nothing else to wait on
    return found


@contextmanager
def documented_receiver(secret: str):
    """The receiver of docs/receivers/webhook.md in a process of its own; yields its URL and what it prints."""
    source = re.search(r"<!-- test: webhook receiver -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    port = free_port()
    env = {"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret, "PORT": str(port)}
    command = [sys.executable, "-c", source]
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def answers() -> bool:
        assert child.poll() is None, child.stdout.read()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers)
        yield f"http://127.0.0.1:{port}/", child.stdout
    finally:
        child.kill()
        child.wait(30)
        child.stdout.close()


def test_the_documented_receiver_verifies_a_real_batch(world: Running) -> None:
    secret = "whsec_" + "QUFB" * 11
    with documented_receiver(secret) as (url, printed):
        made = world.ask("POST", "/v1/webhooks", {"url": url, "secret": secret, "allow_private": True}).json
        events = ["batch.created", "batch.completed"]
        assert world.ask("POST", f"/v1/webhooks/{made['id']}", {"events": events}).status == 200
        batch = world.run(chat(3))
        assert batch["status"] == "completed"
        said = []
        while f"batch.completed {batch['id']}\n" not in said:
            said.append(printed.readline())
            assert said[-1], said
        assert f"batch.created {batch['id']}\n" in said
        assert world.ask("DELETE", f"/v1/webhooks/{made['id']}").json["deleted"] is True


def test_a_batch_with_a_webhook_of_its_own_is_told_to_both_official_clients(world: Running, receiver: Hooked) -> None:
    wanted = {"url": receiver.url, "allow_private": True, "events": ["batch.*", "job.*"]}
    created = world.create(world.upload(chat(5)), webhook=wanted)
    made = created["batchway"]["webhook"]
    assert made["secret"].startswith("whsec_")
    assert (made["batch_id"], made["url"]) == (created["id"], receiver.url)
    batch = world.wait(created["id"])
    receiver.until(lambda: "batch.completed" in receiver.types())
    assert receiver.types()[0] == "batch.created"
    assert {"batch.in_progress", "job.submitted", "job.accounted"} <= set(receiver.types())
    client = openai.OpenAI(api_key="none", webhook_secret=made["secret"])
    for asked in receiver.asked:
        Webhook(made["secret"]).verify(asked.body, asked.headers)
        event = client.webhooks.unwrap(asked.body, asked.headers)
        assert event.id == asked.headers["webhook-id"]
    assert (event.type, event.data.id) == ("batch.completed", batch["id"])
    assert type(event).__name__ == "BatchCompletedWebhookEvent"
    assert event.data.batchway["completed"] == 5
    shown = world.batch(batch["id"])
    assert "webhook" not in shown["batchway"]
    assert made["secret"] not in json.dumps(shown)
    (listed,) = world.ask("GET", f"/v1/webhooks?batch_id={batch['id']}").json["data"]
    assert (listed["id"], listed["secret"]) == (made["id"], None)


def test_openais_node_client_unwraps_a_message(world: Running, receiver: Hooked) -> None:
    if problem := missing():
        pytest.skip(problem)
    created = world.create(world.upload(chat(1)), webhook={"url": receiver.url, "allow_private": True})
    world.wait(created["id"])
    receiver.until(lambda: receiver.types() == ["batch.completed"])
    (asked,) = receiver.asked
    program = """
        import OpenAI from "openai";
        const given = JSON.parse(process.argv[1]);
        const client = new OpenAI({apiKey: "none", webhookSecret: given.secret});
        const event = await client.webhooks.unwrap(given.body, given.headers);
        console.log(event.type, event.data.id);
    """
    given = {"secret": created["batchway"]["webhook"]["secret"], "body": asked.body.decode(), "headers": asked.headers}
    command = ["node", "--input-type=module", "-e", program, json.dumps(given)]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["batch.completed", created["id"]], done.stderr


def test_a_receiver_that_was_away_gets_everything_in_order(world: Running, receiver: Hooked) -> None:
    receiver.status = 500
    made = webhook(world, receiver, events=["batch.*"])
    batch = world.run(chat(2))
    receiver.until(lambda: len(receiver.asked) >= 1)
    rows = until(lambda: [row for row in deliveries(world, made["id"]) if row["answer"] == 500])
    assert {row["status"] for row in rows} == {"waiting"}
    first = rows[-1]
    assert (first["subject"], first["error"]) == (batch["id"], "status 500")
    assert world.ask("GET", f"/v1/webhooks/{made['id']}").json["failures"] >= 1

    def told_of_all() -> list[dict[str, Any]]:
        rows = [row for row in deliveries(world, made["id"], "limit=100") if row["subject"] == batch["id"]]
        return rows if any(row["event_type"] == "batch.completed" for row in rows) else []

    held = until(told_of_all)
    refused = world.ask("POST", f"/v1/webhooks/{made['id']}/deliveries/{held[0]['id']}/retry")
    assert (refused.status, refused.error["code"]) == (409, "delivery_held")
    receiver.status = 204
    answer = world.ask("POST", f"/v1/webhooks/{made['id']}/deliveries/{held[-1]['id']}/retry")
    assert answer.status == 200, answer.body
    receiver.until(lambda: receiver.types(204)[-1:] == ["batch.completed"])
    told = [row["event_type"] for row in reversed(held)]
    mine = [asked.event["type"] for asked in receiver.taken() if asked.event["batchway"]["subject"] == batch["id"]]
    assert mine == told
    assert mine[0] == "batch.created"
    until(lambda: {row["status"] for row in deliveries(world, made["id"], "limit=100")} == {"delivered"})
    world.ask("DELETE", f"/v1/webhooks/{made['id']}")


def test_a_killed_gateway_delivers_what_it_owed_after_it_came_back(world: Running, receiver: Hooked) -> None:
    receiver.status = 500
    made = webhook(world, receiver, events=["batch.completed"])
    batch = world.run(chat(1))
    receiver.until(lambda: len(receiver.asked) >= 1)
    world.gateway.kill()
    receiver.status = 204
    world.gateway.start()
    receiver.until(lambda: receiver.types(204) == ["batch.completed"])
    ids = {asked.headers["webhook-id"] for asked in receiver.asked}
    assert len(ids) == 1
    assert receiver.taken()[0].event["data"]["id"] == batch["id"]
    world.ask("DELETE", f"/v1/webhooks/{made['id']}")


def test_the_sdk_makes_tests_rotates_and_ends_a_webhook(world: Running, receiver: Hooked) -> None:
    with batchway.Client(base_url=world.gateway.url, api_key=MASTER) as client:
        made = client.create_webhook(receiver.url, allow_private=True, events=["batch.completed"])
        tested = client.test_webhook(made.id)
        assert (tested.delivered, tested.status) == (True, 204)
        (asked,) = receiver.asked
        assert Webhook(made.secret).verify(asked.body, asked.headers)["type"] == "webhook.test"
        rotated = client.rotate_webhook(made.id, 3600)
        client.test_webhook(made.id)
        for secret in (made.secret, rotated.secret):
            Webhook(secret).verify(receiver.asked[1].body, receiver.asked[1].headers)
        assert client.retrieve_webhook(made.id).secret is None
        assert client.update_webhook(made.id, disabled=True).disabled is True
        with pytest.raises(batchway.ConflictError):
            client.retry_deliveries(made.id)
        assert client.update_webhook(made.id, disabled=False, events=["job.*"]).events == ["job.*"]
        assert client.retry_deliveries(made.id).retried == 0
        assert client.list_deliveries(made.id).data == []
        assert made.id in [one.id for one in client.list_webhooks(limit=100)]
        of_batch = {"url": receiver.url, "allow_private": True}
        file = client.create_file(file=chat(1))
        batch = client.create_batch("24h", "/v1/chat/completions", file.id, webhook=of_batch)
        assert batch.batchway.webhook.secret.startswith("whsec_")
        assert [one.batch_id for one in client.list_webhooks(batch_id=batch.id)] == [batch.id]
        assert world.wait(batch.id)["status"] == "completed"
        assert client.delete_webhook(made.id).deleted is True
        with pytest.raises(batchway.NotFoundError):
            client.retrieve_webhook(made.id)
        receiver.status = 418
        other = client.create_webhook(receiver.url, allow_private=True)
        tested = client.test_webhook(other.id)
        assert (tested.delivered, tested.status, tested.error) == (False, 418, "status 418")
        client.delete_webhook(other.id)


def test_the_command_line_does_the_same(world: Running, receiver: Hooked) -> None:
    env = {**os.environ, "BATCHWAY_BASE_URL": world.gateway.url, "BATCHWAY_API_KEY": MASTER}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        asked = [sys.executable, "-m", "batchway", "webhooks", *arguments]
        return subprocess.run(asked, env=env, capture_output=True, text=True, timeout=60, check=False)

    made = command("create", receiver.url, "--allow-private", "--event", "batch.*", "--json")
    webhook_id = json.loads(made.stdout)["id"]
    assert command("test", webhook_id).stdout == "delivered, status 204\n"
    receiver.status = 500
    failed = command("test", webhook_id)
    assert (failed.returncode, failed.stdout) == (1, "not delivered: status 500\n")
    assert receiver.url in command("list").stdout
    assert command("rotate", webhook_id, "--grace", "0").stdout.startswith("whsec_")
    assert command("update", webhook_id, "--disable").stdout == f"{webhook_id} changed\n"
    assert "disabled" in command("list").stdout
    command("update", webhook_id, "--enable", "--event", "key.created")
    assert "id\tevent" in command("deliveries", webhook_id).stdout
    assert command("retry", webhook_id).stdout == "0 dead deliveries are sent again\n"
    assert command("delete", webhook_id).stdout == f"{webhook_id} deleted\n"
    refused = command("create", "https://localhost/x")
    assert refused.returncode == 3
    assert "public" in refused.stderr


def test_a_webhook_of_batchway_yaml_is_told_and_is_changed_there_alone(tmp_path: Path, receiver: Hooked) -> None:
    secret = "whsec_" + "QUFB" * 11
    entry = {"kind": "webhook", "name": "ops", "url": receiver.url, "secret": secret, "allow_private": True}
    gateway = Gateway(tmp_path / "home", {"receivers": [{**entry, "events": ["key.*"]}]})
    gateway.start()
    try:
        made = gateway.ask("POST", "/v1/keys", {"name": "n", "project": "p"})
        receiver.until(lambda: made["id"] in [asked.event["batchway"]["subject"] for asked in receiver.asked])
        asked = receiver.asked[-1]
        assert Webhook(secret).verify(asked.body, asked.headers)["type"] == "key.created"
        assert made["key"] not in asked.body.decode()
        (hook,) = gateway.ask("GET", "/v1/webhooks")["data"]
        assert (hook["receiver"], hook["url"], hook["secret"]) == ("ops", receiver.url, None)
        for method, path, body in (
            ("POST", "", {"events": ["batch.*"]}),
            ("POST", "/rotate", {}),
            ("DELETE", "", None),
        ):
            with pytest.raises(Refused, match=r"409.*batchway\.yaml"):
                gateway.ask(method, f"/v1/webhooks/{hook['id']}{path}", body)
        assert gateway.ask("POST", f"/v1/webhooks/{hook['id']}/test")["delivered"] is True
        types = [row["event_type"] for row in gateway.ask("GET", f"/v1/webhooks/{hook['id']}/deliveries")["data"]]
        assert set(types) == {"key.created"}
        assert secret not in gateway.log.read_text()
    finally:
        gateway.kill()
