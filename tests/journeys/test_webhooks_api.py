"""The API of webhooks: who may make, see and change which; what is refused, and what is never shown."""

from __future__ import annotations

import pytest

from tests.journeys.serving import Served, jsonl, serving

URL = "https://1.1.1.1/a-secret-path?key=a-secret-query"  # no name to resolve; nothing is sent there
OWN = "whsec_" + "QUFB" * 11


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home")) as running:
        yield running


def key(served: Served, project: str, **rules) -> str:
    answer = served.ask("POST", "/v1/keys", {"name": project, "project": project, **rules})
    assert answer.status == 200, answer.body
    return answer.json["key"]


def create(served: Served, by: str | None = None, **wanted) -> dict:
    given = {} if by is None else {"key": by}
    answer = served.ask("POST", "/v1/webhooks", {"url": URL, **wanted}, **given)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_secret_is_shown_once_and_stored_sealed(served: Served) -> None:
    made = create(served)
    own = create(served, secret=OWN)
    assert made["secret"].startswith("whsec_")
    assert own["secret"] == OWN
    assert served.ask("GET", f"/v1/webhooks/{made['id']}").json["secret"] is None
    rotated = served.ask("POST", f"/v1/webhooks/{made['id']}/rotate", {}).json["secret"]
    assert rotated not in (None, made["secret"])
    secrets = (made["secret"], OWN, rotated)
    for file in served.gateway.settings.folder.rglob("*"):
        if file.is_file():
            assert not [secret for secret in secrets if secret.encode() in file.read_bytes()], file


def test_a_repeat_with_the_same_idempotency_key_makes_no_second_and_shows_no_secret(served: Served) -> None:
    first = served.ask("POST", "/v1/webhooks", {"url": URL}, Idempotency_Key="once").json
    again = served.ask("POST", "/v1/webhooks", {"url": URL}, Idempotency_Key="once").json
    assert (again["id"], again["secret"]) == (first["id"], None)


@pytest.mark.parametrize(
    ("wanted", "code", "param"),
    [
        ({"url": "http://1.1.1.1/"}, "invalid_url", "url"),
        ({"url": "https://u:p@1.1.1.1/"}, "invalid_url", "url"),
        ({"url": "https://127.0.0.1/"}, "url_not_allowed", "url"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "url_not_allowed", "url"),
        ({"url": "https://localhost:8443/"}, "url_not_allowed", "url"),
        ({"url": URL, "secret": "hunter2"}, "invalid_secret", "secret"),
        ({"url": URL, "events": ["batch.complete"]}, "invalid_value", "events"),
        ({"url": URL, "events": []}, None, "events"),
        ({"url": URL, "event": ["batch.*"]}, None, "event"),
        ({}, None, "url"),
    ],
)
def test_what_cannot_work_is_refused_with_the_field_at_fault(served: Served, wanted, code, param) -> None:
    answer = served.ask("POST", "/v1/webhooks", wanted)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert code is None or answer.error["code"] == code
    assert "hunter2" not in answer.error["message"]


def test_the_nearest_event_is_named(served: Served) -> None:
    answer = served.ask("POST", "/v1/webhooks", {"url": URL, "events": ["batch.complete"]})
    assert "did you mean 'batch.completed'" in answer.error["message"]


@pytest.mark.parametrize(
    ("webhook", "code", "param"),
    [
        ({"url": "https://10.0.0.1/"}, "url_not_allowed", "webhook.url"),
        ({"url": "ftp://1.1.1.1/"}, "invalid_url", "webhook.url"),
        ({"url": URL, "secret": "x"}, "invalid_secret", "webhook.secret"),
        ({"url": URL, "events": ["nothing"]}, "invalid_value", "webhook.events"),
    ],
)
def test_a_batch_with_a_webhook_that_cannot_work_is_not_made(served: Served, webhook, code, param) -> None:
    before = len(served.ask("GET", "/v1/batches").json["data"])
    files = len(served.ask("GET", "/v1/files").json["data"])
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "chat", "messages": []},
    }
    wanted = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line], "webhook": webhook}
    answer = served.ask("POST", "/v1/batches", wanted)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)
    assert len(served.ask("GET", "/v1/batches").json["data"]) == before
    assert len(served.ask("GET", "/v1/files").json["data"]) == files


def test_only_an_admin_allows_private_hosts_and_no_key_gets_there_by_an_update(served: Served) -> None:
    worker = key(served, "private-hosts")
    refused = served.ask("POST", "/v1/webhooks", {"url": URL, "allow_private": True}, key=worker)
    assert (refused.status, refused.error["code"]) == (403, "insufficient_permissions")
    batch = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": "file-x"}
    batch["webhook"] = {"url": "http://127.0.0.1/", "allow_private": True}
    assert served.ask("POST", "/v1/batches", batch, key=worker).status == 403
    mine = create(served, worker)
    for change, status in (({"allow_private": True}, 403), ({"url": "https://127.0.0.1/"}, 400)):
        assert served.ask("POST", f"/v1/webhooks/{mine['id']}", change, key=worker).status == status
    inside = create(served, url="http://127.0.0.1:9/x", allow_private=True, project="private-hosts")
    assert served.ask("POST", f"/v1/webhooks/{inside['id']}", {"url": "http://127.0.0.1/"}, key=worker).status == 404
    narrowed = served.ask("POST", f"/v1/webhooks/{inside['id']}", {"allow_private": False})
    assert (narrowed.status, narrowed.error["param"]) == (400, "url")


def test_keys_of_a_project_share_its_webhooks_and_know_no_others(served: Served) -> None:
    one, two = key(served, "share"), key(served, "share")
    private, stranger = key(served, "share", private=True), key(served, "elsewhere")
    shared, own = create(served, one), create(served, private)
    of_admin, of_gateway = create(served, project="share"), create(served)
    assert (shared["project"], of_gateway["project"]) == ("share", None)

    def known(by: str) -> set[str]:
        return {hook["id"] for hook in served.ask("GET", "/v1/webhooks?limit=100", key=by).json["data"]}

    assert known(one) == known(two) == {shared["id"]}
    assert known(private) == {shared["id"], own["id"]}
    assert known(stranger) == set()
    assert {hook["id"] for hook in (shared, own, of_admin, of_gateway)} <= known("sk-master-of-the-tests")
    for hook, by in ((shared, stranger), (own, one), (of_admin, one), (of_gateway, one)):
        for method, path, body in (
            ("GET", "", None), ("POST", "", {"disabled": True}), ("DELETE", "", None), ("POST", "/rotate", {}),
            ("POST", "/test", None), ("GET", "/deliveries", None), ("POST", "/retry", None),
            ("POST", "/deliveries/dlv_1/retry", None),
        ):  # fmt: skip
            absent = served.ask(method, f"/v1/webhooks/webhook_absent{path}", body, key=by)
            hidden = served.ask(method, f"/v1/webhooks/{hook['id']}{path}", body, key=by)
            assert hidden.status == absent.status == 404
            assert hidden.body.replace(hook["id"].encode(), b"webhook_absent") == absent.body
    assert served.ask("POST", "/v1/webhooks", {"url": URL, "project": "share"}, key=stranger).status == 403
    assert served.ask("DELETE", f"/v1/webhooks/{shared['id']}", key=two).json["deleted"] is True


def test_a_webhook_of_a_project_that_does_not_exist_is_refused(served: Served) -> None:
    answer = served.ask("POST", "/v1/webhooks", {"url": URL, "project": "typo"})
    assert (answer.status, answer.error["param"]) == (404, "project")
    assert create(served, project="default")["project"] == "default"


def test_changes_are_in_the_audit_log_without_the_url_or_a_secret(served: Served) -> None:
    made = create(served)
    served.ask("POST", f"/v1/webhooks/{made['id']}", {"disabled": True})
    served.ask("POST", f"/v1/webhooks/{made['id']}/rotate", {"secret": OWN})
    served.ask("DELETE", f"/v1/webhooks/{made['id']}")
    answer = served.ask("GET", f"/v1/audit?target={made['id']}&limit=100")
    actions = [entry["action"] for entry in answer.json["data"]]
    assert actions == ["webhook.deleted", "webhook.rotated", "webhook.updated", "webhook.created"]
    for word in (b"secret-path", b"secret-query", made["secret"].encode(), OWN.encode()):
        assert word not in answer.body
    assert b"1.1.1.1" in answer.body


def test_pages_follow_one_another(served: Served) -> None:
    worker = key(served, "pages")
    made = [create(served, worker)["id"] for _ in range(5)]
    seen, after = [], ""
    while True:
        page = served.ask("GET", f"/v1/webhooks?limit=2{after}", key=worker).json
        seen += [hook["id"] for hook in page["data"]]
        after = f"&after={page['last_id']}"
        if not page["has_more"]:
            break
    assert seen == made[::-1]
    assert served.ask("GET", "/v1/webhooks?after=webhook_absent", key=worker).status == 404
    assert served.ask("GET", "/v1/webhooks?limit=0", key=worker).status == 400


def test_a_project_has_a_hundred_webhooks_at_most(served: Served) -> None:
    worker = key(served, "many")
    made = [create(served, worker)["id"] for _ in range(100)]
    answer = served.ask("POST", "/v1/webhooks", {"url": URL}, key=worker)
    assert (answer.status, answer.error["code"]) == (400, "too_many_webhooks")
    served.ask("DELETE", f"/v1/webhooks/{made[0]}", key=worker)
    create(served, worker)


def test_a_read_only_key_changes_nothing(served: Served) -> None:
    worker, reader = key(served, "read-only"), key(served, "read-only", scopes=["read"])
    made = create(served, worker)
    assert served.ask("GET", f"/v1/webhooks/{made['id']}", key=reader).status == 200
    assert served.ask("POST", "/v1/webhooks", {"url": URL}, key=reader).status == 403
    assert served.ask("POST", f"/v1/webhooks/{made['id']}/test", key=reader).status == 403
    assert served.ask("DELETE", f"/v1/webhooks/{made['id']}", key=reader).status == 403


def test_the_webhook_of_a_batch_is_made_with_it_and_not_again(served: Served) -> None:
    worker = key(served, "of-batch")
    file_id = served.upload(jsonl(2), purpose="batch", key=worker).json["id"]
    wanted = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": file_id}
    wanted["webhook"] = {"url": URL, "secret": OWN}
    first = served.ask("POST", "/v1/batches", wanted, key=worker, Idempotency_Key="batch-once").json
    again = served.ask("POST", "/v1/batches", wanted, key=worker, Idempotency_Key="batch-once").json
    assert first["id"] == again["id"]
    assert first["batchway"]["webhook"]["secret"] == OWN
    assert "webhook" not in again["batchway"]
    (listed,) = served.ask("GET", f"/v1/webhooks?batch_id={first['id']}", key=worker).json["data"]
    assert listed["id"] == first["batchway"]["webhook"]["id"]
    assert served.ask("GET", "/v1/webhooks", key=worker).json["data"] == []
