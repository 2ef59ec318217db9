"""Keys: made, changed, rotated, ended; what each rule does at the next request; and the log of it. Over real HTTP."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from batchway.db import keys as rows
from batchway.db.outbox import of_subject
from tests.journeys.serving import serving

names = itertools.count(1)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    with serving(folder, trusted_proxies=["127.0.0.0/8", "10.1.0.0/16"]) as running:
        yield running


def made(served, **rules):
    answer = served.ask("POST", "/v1/keys", {"name": f"key {next(names)}", **rules})
    assert answer.status == 200, answer.body
    return answer.json


def asked(served, key, **headers):
    answer = served.ask("GET", "/v1/files", key=key, **headers)
    return answer.status, None if answer.status == 200 else answer.error["code"]


def told(served, subject):
    return [event.type.value for event in served.run(served.gateway.db.read(of_subject, subject))]


def test_a_key_has_every_rule_it_was_made_with_and_shows_what_is_left_of_its_budget(served):
    rules = {
        "project": "all", "scopes": ["write", "read"], "models": ["gpt-4o*"], "providers": ["local"],
        "cidrs": ["10.1.2.3/8", "2001:db8::1"], "limits": {"requests_per_minute": 6, "file_bytes": 1000},
        "on_budget": "pause", "private": True, "disabled": True, "expires_at": 4_000_000_000,
        "budget": {"usd": "12.50", "period": "month"},
    }  # fmt: skip
    key = made(served, **rules)
    budget = key.pop("budget")
    assert {name: budget[name] for name in ("usd", "period", "held_usd", "settled_usd", "remaining_usd")} == {
        "usd": "12.5", "period": "month", "held_usd": "0", "settled_usd": "0", "remaining_usd": "12.5",
    }  # fmt: skip
    assert budget["starts_at"] < key["created_at"] < budget["ends_at"]
    none = dict.fromkeys(("enqueued_tokens", "active_batches", "uploads_per_day"))
    expected = {
        **rules, "object": "key", "scopes": ["read", "write"], "cidrs": ["10.0.0.0/8", "2001:db8::1/128"],
        "limits": {**none, "requests_per_minute": 6, "file_bytes": 1000},
    }  # fmt: skip
    del expected["budget"]
    assert {name: key[name] for name in expected} == expected
    assert served.ask("GET", f"/v1/keys/{key['id']}").json == {**key, "budget": budget, "key": None}


def test_an_update_sets_only_what_is_sent_and_null_clears(served):
    key = made(
        served,
        models=["a"],
        cidrs=["10.0.0.0/8"],
        limits={"active_batches": 2, "file_bytes": 9},
        budget={"usd": "5", "period": "day"},
    )
    path = f"/v1/keys/{key['id']}"
    assert served.ask("POST", path, {}).json == {**key, "key": None}
    changed = served.ask("POST", path, {"models": None, "limits": {"file_bytes": None, "uploads_per_day": 3}}).json
    assert (changed["models"], changed["cidrs"], changed["budget"]) == (None, key["cidrs"], key["budget"])
    assert {name: limit for name, limit in changed["limits"].items() if limit is not None} == {
        "active_batches": 2,
        "uploads_per_day": 3,
    }
    cleared = served.ask("POST", path, {"limits": None, "budget": None, "cidrs": None, "name": "other"}).json
    assert set(cleared["limits"].values()) == {None}
    assert (cleared["budget"], cleared["cidrs"], cleared["name"]) == (None, None, "other")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"limit": {}}, "limit", "unknown_parameter"),
        ({"limits": {"requests": 1}}, "limits.requests", "unknown_parameter"),
        ({"limits": {"file_bytes": -1}}, "limits.file_bytes", "integer_below_min_value"),
        ({"scopes": []}, "scopes", "invalid_value"),
        ({"scopes": ["root"]}, "scopes[0]", "invalid_value"),
        ({"models": []}, "models", "invalid_value"),
        ({"cidrs": ["10.0.0.0/33"]}, "cidrs", "invalid_value"),
        ({"expires_at": 1000}, "expires_at", "invalid_value"),
        ({"budget": {"usd": 5, "period": "day"}}, "budget.usd", "invalid_type"),
        ({"budget": {"usd": "5"}}, "budget.period", "missing_required_parameter"),
        ({"budget": {"usd": "-1", "period": "day"}}, "budget.usd", "invalid_value"),
        ({"budget": {"usd": "NaN", "period": "day"}}, "budget.usd", "invalid_value"),
        ({"budget": {"usd": "4000001", "period": "day"}}, "budget.usd", "invalid_value"),
        ({"budget": {"usd": "0.0000000000001", "period": "day"}}, "budget.usd", "invalid_value"),
        ({"budget": {"usd": "1", "period": "week"}}, "budget.period", "invalid_value"),
        ({"on_budget": "ignore"}, "on_budget", "invalid_value"),
        ({"name": "x\0"}, "name", "invalid_value"),
    ],
)
def test_a_rule_that_cannot_be_is_a_400_that_names_it_and_makes_nothing(served, body, param, code):
    before = len(served.ask("GET", "/v1/keys?limit=100").json["data"])
    key = made(served)
    for path, sent in (("/v1/keys", {"name": "n", **body}), (f"/v1/keys/{key['id']}", body)):
        answer = served.ask("POST", path, sent)
        assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code)
    assert len(served.ask("GET", "/v1/keys?limit=100").json["data"]) == before + 1
    assert served.ask("GET", f"/v1/keys/{key['id']}").json == {**key, "key": None}


def test_the_project_of_a_key_cannot_be_changed_nor_written_so_that_no_path_reaches_it(served):
    key = made(served)
    assert served.ask("POST", f"/v1/keys/{key['id']}", {"project": "other"}).error["code"] == "unknown_parameter"
    for name in ("", "a/b", "..", "a b", "é", "x" * 129):
        assert served.ask("POST", "/v1/keys", {"name": "n", "project": name}).error["param"] == "project"


def test_a_disabled_expired_or_deleted_key_is_told_why_at_its_next_request(served):
    key = made(served)
    assert asked(served, key["key"]) == (200, None)
    path = f"/v1/keys/{key['id']}"
    for change, word in (({"disabled": True}, "disabled"), ({"disabled": False}, None)):
        served.ask("POST", path, change)
        answer = served.ask("GET", "/v1/files", key=key["key"])
        assert answer.status == (401 if word else 200)
        assert word is None or word in answer.error["message"]
    served.run(served.gateway.db.write(rows.change, key["id"], {"expires_at": 1.0}))
    served.ask("POST", path, {})  # a change by this process is seen at once
    answer = served.ask("GET", "/v1/files", key=key["key"])
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert "expired" in answer.error["message"]
    served.ask("DELETE", path)
    assert "deleted" in served.ask("GET", "/v1/files", key=key["key"]).error["message"]
    assert served.ask("POST", path, {}).status == served.ask("POST", f"{path}/rotate", {}).status == 404


def test_after_a_rotation_the_old_secret_lets_in_until_its_grace_is_over(served):
    key = made(served)
    first = key["key"]
    path = f"/v1/keys/{key['id']}/rotate"
    second = served.ask("POST", path, {"grace_seconds": 3600}).json["key"]
    assert re.fullmatch(r"sk-bw-[\w-]{43}", second)
    assert asked(served, first) == asked(served, second) == (200, None)
    third = served.ask("POST", path, {"grace_seconds": 0}).json["key"]
    assert asked(served, third) == (200, None)
    for old in (first, second):
        answer = served.ask("GET", "/v1/files", key=old)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert "rotated" in answer.error["message"]
    assert served.ask("POST", path, {"grace_seconds": -1}).error["param"] == "grace_seconds"
    assert told(served, key["id"]) == ["key.created", "key.rotated", "key.rotated"]


def test_a_repeated_create_or_rotation_makes_no_second_secret(served):
    body = {"name": "once"}
    first, again = (served.ask("POST", "/v1/keys", body, Idempotency_Key="made-once").json for _ in range(2))
    assert (again["id"], again["key"]) == (first["id"], None)
    path = f"/v1/keys/{first['id']}/rotate"
    second, again = (served.ask("POST", path, {}, Idempotency_Key="rotated-once").json for _ in range(2))
    assert (again["id"], again["key"]) == (first["id"], None)
    assert asked(served, second["key"]) == (200, None)
    assert told(served, first["id"]) == ["key.created", "key.rotated"]


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        (None, 403),  # 127.0.0.1 is a trusted proxy and no client of this key
        ("192.0.2.7", 200),
        ("192.0.2.7:4711", 200),
        ("192.0.2.7, 10.1.9.9", 200),  # two proxies of ours
        ("192.0.2.7, 203.0.113.9", 403),  # the first is a stranger's claim
        ("203.0.113.9", 403),
        ("[2001:db8::5]:443", 200),
        ("2001:db8::5", 200),
        ("::ffff:192.0.2.7", 200),
        ("192.0.2.7, unknown", 403),
        ("192.0.2.7,", 403),
        ("", 403),
    ],
)
def test_a_key_is_good_only_in_its_networks_and_a_client_cannot_claim_an_address(served, forwarded, status):
    key = made(served, cidrs=["192.0.2.0/24", "2001:db8::/32"])["key"]
    headers = {} if forwarded is None else {"X_Forwarded_For": forwarded}
    assert asked(served, key, **headers) == (status, None if status == 200 else "ip_not_allowed")
    assert asked(served, key, X_Real_IP="192.0.2.7", Forwarded="for=192.0.2.7") == (403, "ip_not_allowed")


def test_without_trusted_proxies_no_header_changes_the_address(tmp_path):
    with serving(tmp_path) as served:
        here, there = made(served, cidrs=["127.0.0.0/8"])["key"], made(served, cidrs=["192.0.2.0/24"])["key"]
        assert asked(served, here, X_Forwarded_For="192.0.2.7") == (200, None)
        assert asked(served, there, X_Forwarded_For="192.0.2.7") == (403, "ip_not_allowed")


def test_a_key_knows_the_models_that_its_policies_allow(served):
    def models(**rules):
        key = made(served, **rules)["key"]
        return [model["id"] for model in served.ask("GET", "/v1/models", key=key).json["data"]]

    assert models() == ["chat", "local/llama"]
    assert models(models=["chat*"]) == ["chat"]
    assert models(providers=["local"]) == ["chat", "local/llama"]
    assert models(providers=["elsewhere"]) == []
    served.ask("POST", "/v1/projects", {"name": "narrow", "models": ["local/*"]})
    assert models(project="narrow") == ["local/llama"]
    assert models(project="narrow", models=["chat"]) == []


def test_keys_are_listed_in_pages_and_by_project(served):
    ids = [made(served, project="paged")["id"] for _ in range(3)]
    page = served.ask("GET", "/v1/keys?project=paged&limit=2").json
    assert ([key["id"] for key in page["data"]], page["has_more"]) == (ids[:0:-1], True)
    rest = served.ask("GET", f"/v1/keys?project=paged&limit=2&after={page['last_id']}").json
    assert ([key["id"] for key in rest["data"]], rest["has_more"]) == (ids[:1], False)
    up = served.ask("GET", "/v1/keys?project=paged&order=asc").json
    assert [key["id"] for key in up["data"]] == ids
    for query, param in (("limit=0", "limit"), ("limit=101", "limit"), ("order=x", "order")):
        assert served.ask("GET", f"/v1/keys?{query}").error["param"] == param
    assert served.ask("GET", "/v1/keys?after=key_0").status == 404


def test_every_admin_action_is_in_the_audit_log_with_its_request_and_no_secret(served):
    key = served.ask("POST", "/v1/keys", {"name": "audited", "models": ["a"]}, x_request_id="first").json
    path = f"/v1/keys/{key['id']}"
    served.ask("POST", path, {"models": None}, x_request_id="second")
    secret = served.ask("POST", f"{path}/rotate", {"grace_seconds": 7}, x_request_id="third").json["key"]
    served.ask("DELETE", path, x_request_id="fourth")
    served.ask("POST", path, {"name": "too late"})
    answer = served.ask("GET", f"/v1/audit?target={key['id']}&order=asc")
    found = [(entry["action"], entry["request_id"], entry["details"]) for entry in answer.json["data"]]
    assert [(action, request) for action, request, _ in found] == [
        ("key.created", "first"), ("key.updated", "second"), ("key.rotated", "third"), ("key.deleted", "fourth"),
    ]  # fmt: skip
    assert found[0][2]["models"] == ["a"]
    assert [details for _, _, details in found[1:]] == [{"models": None}, {"grace_seconds": 7}, {}]
    assert {entry["key_id"] for entry in answer.json["data"]} == {"master"}
    for text in (key["key"], secret):
        assert text.encode() not in answer.body
    assert told(served, key["id"]) == ["key.created", "key.updated", "key.rotated", "key.deleted"]


def test_the_audit_log_is_paged_and_filtered(served):
    for _ in range(3):
        made(served, project="watched")
    everything = served.ask("GET", "/v1/audit?limit=100").json["data"]
    first = served.ask("GET", "/v1/audit?limit=2").json
    second = served.ask("GET", f"/v1/audit?limit=2&after={first['last_id']}").json
    assert first["has_more"]
    assert [*first["data"], *second["data"]] == everything[:4]
    created = served.ask("GET", "/v1/audit?action=project.created&target=watched").json["data"]
    assert len(created) == 1, "the project came with its first key"
    assert served.ask("GET", "/v1/audit?key_id=nobody").json["data"] == []
    past = served.ask("GET", "/v1/audit?created_before=1000").json["data"]
    assert past == []
    assert served.ask("GET", "/v1/audit?created_after=1000&limit=1").json["data"] == everything[:1]
    assert served.ask("GET", "/v1/audit?after=audit_0").status == 404


def test_the_database_holds_no_secret_of_a_rotated_key(served):
    key = made(served)
    second = served.ask("POST", f"/v1/keys/{key['id']}/rotate", {}).json["key"]
    home = Path(served.gateway.settings.home)
    database = b"".join(path.read_bytes() for path in home.glob("*.db*") if path.is_file())
    assert key["id"].encode() in database
    assert not [secret for secret in (key["key"], second) if secret.encode() in database]
