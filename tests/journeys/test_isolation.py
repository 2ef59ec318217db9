"""The isolation matrix: every operation, in every spelling of its path, for every kind of caller, over real HTTP."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from batchway.core.events import Event, EventType
from batchway.core.usage import Usage
from batchway.db import batches, deliveries, webhooks
from batchway.db import keys as key_rows
from batchway.db.ledger import Entry, post
from batchway.server.routes import OPERATIONS
from batchway.server.routing import Operation
from tests.journeys.isolation import BATCH, FORM, HOOK, RULES, UPLOAD, Rule, Things
from tests.journeys.serving import MASTER, Answer, Served, form, jsonl, serving

SPELLINGS = ("/v1", "", "/openai/v1", "/openai", "/local/v1")
UNKNOWN = ("nobody", "unknown", "disabled", "expired", "deleted", "rotated")
SCOPES = {
    "owner": {"read", "write"},  # a private key
    "mate": {"read", "write"},  # of the same project
    "foreigner": {"read", "write"},
    "reader": {"read"},
    "writer": {"write"},
    "admin": {"admin"},
    "master": {"admin"},
}
CALLERS = (*UNKNOWN, *SCOPES)
HIDDEN = ("file_id", "read_file_id", "batch_id", "upload_id", "webhook_id", "delivery_id")
ABSENT = {
    "file_id": "file-0", "batch_id": "batch_0", "upload_id": "upload_0", "part_id": "part_0", "webhook_id": "wh_0",
    "delivery_id": "dlv_0",
}  # fmt: skip
NOWHERE = "https://192.0.2.1/hook"  # of a network for documents: the guard lets nothing out to it
AZURE = "api-version=2025-01-01"  # so that the spelling with `openai` forces no provider


@dataclass
class Ground:
    """A served gateway, a key a caller, and the objects of `owner` that nobody may harm."""

    served: Served
    secrets: dict[str, str | None]
    things: Things

    def fresh(self, operation: Operation | None = None) -> Things:
        """Objects of `owner` that the operation may use up."""
        key = self.secrets["owner"]
        file_id = self.served.upload(jsonl(2), purpose="batch", key=key).json["id"]
        batch_id = self.served.ask("POST", "/v1/batches", {**BATCH, "input_file_id": file_id}, key=key).json["id"]
        upload_id = self.served.ask("POST", "/v1/uploads", UPLOAD, key=key).json["id"]
        part = form({}, "p", b"{}\n\n", {}, "data")
        part_id = self.served.ask("POST", f"/v1/uploads/{upload_id}/parts", part, key=key, Content_Type=FORM).json["id"]
        free = self.served.upload(jsonl(2), purpose="batch", key=key).json["id"]  # that no batch reads
        spare = self.served.ask("POST", "/v1/keys", {"name": "spare", "project": "ours"}).json["id"]
        hook = self._webhook() if operation is None or operation.tag == "Webhooks" else {}
        return {
            **hook, "file_id": free, "read_file_id": file_id, "batch_id": batch_id, "upload_id": upload_id,
            "part_id": part_id, "key_id": spare, "project": "ours", "model": "chat", "receiver": "nobody",
        }  # fmt: skip

    def _webhook(self) -> Things:
        gateway = self.served.gateway
        hook_id = self.served.ask("POST", "/v1/webhooks", {"url": HOOK}, key=self.secrets["owner"]).json["id"]
        self.served.run(gateway.db.write(webhooks.change, hook_id, {"url": NOWHERE}))
        about = {"subject": "s", "project": "ours", "key_id": "k", "data": {}}
        event = Event(id=hook_id, type=EventType.BATCH_CREATED, created_at=1.0, **about)
        self.served.run(gateway.db.write(deliveries.expand, [(hook_id, event)], 1.0, gateway.new_id))
        listed = self.served.ask("GET", f"/v1/webhooks/{hook_id}/deliveries").json
        return {"webhook_id": hook_id, "delivery_id": listed["data"][0]["id"]}

    def ask(self, operation: Operation, spelling: str, caller: str, things: Things) -> Answer:
        rule = RULES[operation.name]
        path = re.sub(r"\{(\w+)\*?\}", lambda match: things[match[1]], operation.path)
        azure = AZURE if operation.versioned and spelling.startswith("/openai") else ""
        query = "&".join(filter(None, (rule.query, azure)))
        path = (spelling if operation.versioned else "") + path + (f"?{query}" if query else "")
        headers: dict[str, str] = {}
        secret = self.secrets[caller]
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        body = rule.body(things) if rule.body else None
        if isinstance(body, tuple):
            body, headers["Content-Type"] = body
        elif body is not None:
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        return self._exchange(operation.method, path, body, headers, endless=rule.streams)

    def _exchange(self, method: str, path: str, body: Any, headers: dict[str, str], *, endless: bool) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = b"" if endless and answer.status == 200 else answer.read()
            return Answer(answer.status, answer.headers, content)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Iterator[Ground]:
    models = {name: ["local/llama"] for name in ("chat", "gpt-4o-mini")}
    with serving(tmp_path_factory.mktemp("gateway"), models=models) as served:
        yield _laid(served)


def _laid(served: Served) -> Ground:
    def key(caller: str, project: str = "ours", **rules: Any) -> dict[str, Any]:
        scopes = sorted(SCOPES.get(caller, {"read", "write"}))
        return served.ask("POST", "/v1/keys", {"name": caller, "project": project, "scopes": scopes, **rules}).json

    secrets: dict[str, str | None] = {"nobody": None, "unknown": "sk-bw-unknown", "master": MASTER}
    for caller in ("mate", "reader", "writer", "admin", "deleted", "expired", "rotated"):
        made = key(caller)
        secrets[caller] = made["key"]
        if caller == "deleted":
            served.ask("DELETE", f"/v1/keys/{made['id']}")
        if caller == "expired":
            served.run(served.gateway.db.write(key_rows.change, made["id"], {"expires_at": 1.0}))
        if caller == "rotated":
            served.ask("POST", f"/v1/keys/{made['id']}/rotate", {"grace_seconds": 0})
    secrets["owner"] = key("owner", private=True)["key"]
    secrets["foreigner"] = key("foreigner", "theirs")["key"]
    secrets["disabled"] = key("disabled", disabled=True)["key"]
    ground = Ground(served, secrets, {})
    ground.things = ground.fresh()
    row = served.run(served.gateway.db.read(batches.get, ground.things["batch_id"]))
    job = {"job_id": "job_1", "account": "a", "model": "m", "lane": "native", "first_line": 1, "lines": 1}
    entry = Entry(batch_id=row["id"], project=row["project"], key_id=row["key_id"], usage=Usage(), **job)
    served.run(served.gateway.db.write(post, entry, 5, "a table", served.gateway.clock()))
    return ground


def expected(operation: Operation, rule: Rule, caller: str) -> tuple[int, ...]:
    """The statuses that are right."""
    if operation.open:
        return rule.ok
    if caller in UNKNOWN:
        return (401,)
    if "admin" in SCOPES[caller]:
        return rule.ok
    if operation.needs not in SCOPES[caller]:
        return (403,)
    return (404,) if rule.hidden and caller != "owner" else rule.ok


def named(operation: Operation) -> str:
    return operation.name


def test_every_operation_has_a_rule_and_every_rule_an_operation() -> None:
    assert {operation.name for operation in OPERATIONS} == set(RULES)


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
def test_who_may_not_is_refused_in_every_spelling_and_harms_nothing(ground: Ground, operation: Operation) -> None:
    rule = RULES[operation.name]
    for caller in CALLERS:
        right = expected(operation, rule, caller)
        if right == rule.ok:
            continue
        for spelling in SPELLINGS if operation.versioned else ("",):
            answer = ground.ask(operation, spelling, caller, ground.things)
            assert (caller, spelling, answer.status) == (caller, spelling, right[0])
            _assert_envelope(answer)
            if right == (404,):
                absent = ground.ask(operation, spelling, caller, {**ground.things, **ABSENT})
                assert _without_ids(answer, ground.things) == _without_ids(absent, ABSENT)
    _assert_unharmed(ground)


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
def test_who_may_is_served(ground: Ground, operation: Operation) -> None:
    rule = RULES[operation.name]
    for caller in CALLERS:
        if expected(operation, rule, caller) == rule.ok:
            answer = ground.ask(operation, "/v1", caller, ground.fresh(operation))
            assert answer.status in rule.ok, (caller, answer.status, answer.body)
            if rule.lists and caller not in ("owner", "admin", "master"):
                seen = [name for name in HIDDEN if ground.things[name].encode() in answer.body]
                assert not seen, caller


LISTS = [operation for operation in OPERATIONS if RULES.get(operation.name, Rule()).lists]


@pytest.mark.parametrize("operation", LISTS, ids=named)
def test_a_list_names_what_one_may_know_of(ground: Ground, operation: Operation) -> None:
    for caller in ("owner", "admin", "master"):
        body = ground.ask(operation, "/v1", caller, ground.things).body
        assert [name for name in HIDDEN if ground.things[name].encode() in body], caller


@pytest.mark.parametrize(("path", "name"), [("/v1/files", "file_id"), ("/v1/batches", "batch_id")])
def test_a_page_behind_a_foreign_object_is_not_there(ground: Ground, path: str, name: str) -> None:
    for caller in ("mate", "foreigner", "reader"):
        answer = ground.served.ask("GET", f"{path}?after={ground.things[name]}", key=ground.secrets[caller])
        assert answer.status == 404, caller


def test_a_foreign_input_file_is_as_an_absent_one(ground: Ground) -> None:
    for caller in ("mate", "foreigner"):
        bodies = [{**BATCH, "input_file_id": file_id} for file_id in (ground.things["file_id"], "file-0")]
        answers = [ground.served.ask("POST", "/v1/batches", body, key=ground.secrets[caller]) for body in bodies]
        assert answers[0].status == answers[1].status
        shapes = [{name: type(value) for name, value in answer.json.items()} for answer in answers]
        assert shapes[0] == shapes[1]


def test_a_project_that_shares_shows_its_keys_each_others_objects_but_for_private_ones(ground: Ground) -> None:
    served, mate, reader = ground.served, ground.secrets["mate"], ground.secrets["reader"]
    file_id = served.upload(jsonl(1), purpose="batch", key=mate).json["id"]
    assert served.ask("GET", f"/v1/files/{file_id}", key=reader).status == 200
    assert served.ask("GET", f"/v1/files/{file_id}", key=ground.secrets["owner"]).status == 200, "a private key sees"
    assert served.ask("GET", f"/v1/files/{file_id}", key=ground.secrets["foreigner"]).status == 404
    assert served.ask("POST", "/v1/projects/ours", {"sharing": False}).status == 200
    try:
        later = served.upload(jsonl(1), purpose="batch", key=mate).json["id"]
        assert served.ask("GET", f"/v1/files/{later}", key=reader).status == 404, "from now on"
        assert served.ask("GET", f"/v1/files/{later}", key=mate).status == 200
        assert served.ask("GET", f"/v1/files/{file_id}", key=reader).status == 200, "what was shared stays so"
    finally:
        served.ask("POST", "/v1/projects/ours", {"sharing": True})


def test_an_admins_touch_opens_nothing(ground: Ground) -> None:
    things = ground.fresh()
    served: Served = ground.served
    paths: list[tuple[str, Callable[[Things], str]]] = [
        ("POST", lambda it: f"/v1/batches/{it['batch_id']}/cancel"),
        ("GET", lambda it: f"/v1/files/{it['file_id']}/content"),
    ]
    for method, path in paths:
        assert served.ask(method, path(things)).status == 200
        for caller in ("mate", "foreigner"):
            assert served.ask(method, path(things), key=ground.secrets[caller]).status == 404


def _assert_envelope(answer: Answer) -> None:
    assert set(answer.error) == {"message", "type", "param", "code"}
    if answer.status == 401:
        assert (answer.error["code"], answer.headers["WWW-Authenticate"]) == ("invalid_api_key", "Bearer")
    if answer.status == 403:
        assert (answer.error["type"], answer.error["code"]) == ("permission_error", "insufficient_permissions")


def _without_ids(answer: Answer, things: Things) -> tuple[int, str]:
    text = answer.body.decode()
    for thing in things.values():
        text = text.replace(thing, "")
    return answer.status, text


def _assert_unharmed(ground: Ground) -> None:
    things, owner = ground.things, ground.secrets["owner"]
    ask = ground.served.ask
    assert ask("GET", f"/v1/files/{things['file_id']}/content", key=owner).body == jsonl(2)
    assert ask("GET", f"/v1/batches/{things['batch_id']}", key=owner).json["status"] == "validating"
    assert ask("GET", f"/v1/uploads/{things['upload_id']}", key=owner).json["status"] == "pending"
    assert ask("GET", f"/v1/keys/{things['key_id']}").json["name"] == "spare"
    hook = ask("GET", f"/v1/webhooks/{things['webhook_id']}", key=owner).json
    assert (hook["url"], "job.*" in hook["events"], hook["disabled"]) == (NOWHERE, False, False)
