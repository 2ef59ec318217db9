"""Who may come in, what belongs to whom, envelopes, spellings, batches, keys, health, documents: over real HTTP."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from batchway.server.routes import OPERATIONS
from tests.journeys.serving import MASTER, jsonl, line, serving

BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(served):
    return {project: served.key(project) for project in ("ours", "theirs")}


@pytest.fixture(scope="module")
def batch(served, keys):
    file_id = served.upload(jsonl(3), purpose="batch", key=keys["ours"]).json["id"]
    return served.ask(
        "POST", "/v1/batches", {**BATCH, "input_file_id": file_id, "metadata": {"job": "a"}}, key=keys["ours"]
    ).json


def test_every_way_to_send_a_key_works_and_no_other(served, keys):
    ours = keys["ours"]
    for headers in (
        {"Authorization": f"Bearer {ours}"},
        {"Authorization": f"bearer  {ours}"},
        {"x_api_key": ours},
        {"api_key": ours},
    ):
        assert served.ask("GET", "/v1/files", key=None, **headers).status == 200, headers
    for headers in (
        {},
        {"Authorization": f"Basic {ours}"},
        {"Authorization": "Bearer "},
        {"x_api_key": ours[:-1]},
        {"api_key": "é"},
    ):
        answer = served.ask("GET", "/v1/files", key=None, **headers)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert ours[:-1] not in answer.body.decode()
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_operation_answers_without_a_key_but_the_open_ones(served, operation):
    path = re.sub(r"\{\w+\*?\}", "some_id", operation.full_path)
    without = served.ask(operation.method, path, key=None)
    assert (without.status == 401) is (not operation.open)
    if operation.admin:
        answer = served.ask(operation.method, path, key=served.key("p"))
        assert (answer.status, answer.error["type"]) == (403, "permission_error")


def test_a_file_and_a_batch_of_another_project_do_not_exist(served, keys, batch):
    theirs = keys["theirs"]
    file_id, batch_id = batch["input_file_id"], batch["id"]
    paths = [
        ("GET", f"/v1/files/{file_id}"), ("DELETE", f"/v1/files/{file_id}"), ("GET", f"/v1/files/{file_id}/content"),
        ("GET", f"/v1/files?after={file_id}"), ("GET", f"/v1/batches/{batch_id}"),
        ("POST", f"/v1/batches/{batch_id}/cancel"),
        ("GET", f"/v1/batches/{batch_id}/results"), ("GET", f"/v1/batches/{batch_id}/events"),
        ("POST", f"/v1/batches/{batch_id}/retry"), ("GET", f"/v1/batches?after={batch_id}"),
    ]  # fmt: skip
    for method, path in paths:
        foreign, absent = (
            served.ask(method, path, key=theirs),
            served.ask(method, path.replace(file_id, "file-0").replace(batch_id, "batch_0"), key=theirs),
        )
        assert foreign.status == absent.status == 404, path
        assert foreign.error["code"] == absent.error["code"]
    assert served.ask("GET", "/v1/files", key=theirs).json["data"] == []
    assert served.ask("GET", "/v1/batches", key=theirs).json["data"] == []
    wanted = {"bytes": 9, "filename": "u.jsonl", "mime_type": "x/y", "purpose": "batch"}
    upload = served.ask("POST", "/v1/uploads", wanted, key=keys["ours"]).json["id"]
    for method, path in [("GET", ""), ("POST", "/cancel")]:
        assert served.ask(method, f"/v1/uploads/{upload}{path}", key=theirs).status == 404
    assert served.ask("GET", f"/v1/batches/{batch_id}").status == 200, "an admin sees all"
    assert served.ask("GET", f"/v1/batches/{batch_id}", key=keys["ours"]).status == 200


def test_a_key_is_shown_once_and_lets_nobody_in_when_deleted(served):
    made = served.ask("POST", "/v1/keys", {"name": "n", "project": "p2"}, Idempotency_Key="key-1").json
    assert re.fullmatch(r"sk-bw-[\w-]{43}", made["key"])
    again = served.ask("POST", "/v1/keys", {"name": "n", "project": "p2"}, Idempotency_Key="key-1").json
    assert (again["id"], again["key"]) == (made["id"], None)
    listed = served.ask("GET", "/v1/keys").body.decode()
    assert made["id"] in listed
    assert made["key"] not in listed
    assert served.ask("GET", f"/v1/keys/{made['id']}").json["key"] is None
    assert served.ask("GET", "/v1/files", key=made["key"]).status == 200
    assert served.ask("DELETE", f"/v1/keys/{made['id']}").json["deleted"]
    assert served.ask("GET", "/v1/files", key=made["key"]).status == 401
    assert served.ask("DELETE", f"/v1/keys/{made['id']}").status == 404
    for body, param in [({}, "name"), ({"name": ""}, "name"), ({"name": "n", "scope": ["read"]}, "scope")]:
        assert served.ask("POST", "/v1/keys", body).error["param"] == param


def test_the_database_holds_no_secret(served, keys):
    home = served.gateway.settings.home
    database = b"".join(path.read_bytes() for path in Path(home).glob("*.db*") if path.is_file())
    assert database
    assert keys["ours"].encode() not in database


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/", 307, None),
        ("GET", "//", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v1/v1/files", 404, "unknown_url"),
        ("GET", "/v1/health/live", 404, "unknown_url"),
        ("GET", "/x/y/v1/files", 404, "unknown_url"),
        ("PUT", "/v1/files", 405, None),
        ("DELETE", "/v1/batches/b", 405, None),
        ("GET", "/v1/files/a%00b", 400, "invalid_value"),
        ("GET", "/v1/files/a%0Ab", 404, None),
    ],
)
def test_wrong_addresses_are_envelopes(served, method, path, status, code):
    answer = served.ask(method, path)
    assert answer.status == status
    if status != 307:
        assert answer.error["code"] == code
        assert set(answer.error) == {"message", "type", "param", "code"}
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize("prefix", ["/v1", "", "/openai/v1", "/openai", "/local/v1"])
def test_every_spelling_reaches_the_same_operation(served, prefix):
    assert served.ask("GET", f"{prefix}/files/?api-version=2025-01-01").status == 200
    assert served.ask("GET", f"{prefix}/models/chat?api-version=1").json["id"] == "chat"


def test_the_provider_is_forced_alike_everywhere_in_one_order(served):
    file_id = served.upload(jsonl(1), purpose="batch").json["id"]
    good = {**BATCH, "input_file_id": file_id}

    def create(path: str, body: dict[str, str], **headers: str) -> tuple[int, str]:
        answer = served.ask("POST", path, {**good, **body}, **headers)
        return answer.status, "" if answer.status == 200 else answer.error["message"]

    header = {"custom_llm_provider": "header"}
    assert "'path'" in create("/path/v1/batches?provider=query", {"custom_llm_provider": "body"}, **header)[1]
    assert "'query'" in create("/v1/batches?provider=query", {"custom_llm_provider": "body"}, **header)[1]
    assert "'header'" in create("/v1/batches", {"custom_llm_provider": "body"}, **header)[1]
    assert "'body'" in create("/v1/batches", {"custom_llm_provider": "body"})[1]
    assert create("/local/v1/batches", {})[0] == 200
    assert "'openai'" in create("/openai/v1/batches", {})[1], "a provider's name"
    assert create("/openai/v1/batches?api-version=preview", {})[0] == 200, "Azure's address"
    assert create("/openai/v1/batches", {}, api_key=MASTER)[0] == 200


def test_the_azure_client_works(served):
    client = openai.AzureOpenAI(azure_endpoint=served.url, api_key=MASTER, api_version="2025-01-01", max_retries=0)
    file = client.files.create(file=("in.jsonl", jsonl(2)), purpose="batch")
    assert client.batches.create(input_file_id=file.id, **BATCH).status == "validating"
    client.close()


def test_batches_through_the_official_client(served, batch):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=MASTER, max_retries=0) as client:
        assert client.batches.retrieve(batch["id"]).metadata == {"job": "a"}
        made = [
            client.batches.create(input_file_id=batch["input_file_id"], metadata={"k": "v'\""}, **BATCH).id
            for _ in range(3)
        ]
        paged = [one.id for one in client.batches.list(limit=2, extra_query={"metadata[k]": "v'\""})]
        assert paged == made[::-1]
        assert client.batches.cancel(made[0]).status in ("cancelling", "cancelled")
        assert client.files.retrieve(batch["input_file_id"]).id
        with pytest.raises(openai.ConflictError):
            client.files.delete(batch["input_file_id"])


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, None),
        (b"[]", None, None),
        (b"{", None, None),
        (b"\xff{}", None, None),
        (b"[" * 100_000, None, None),
        (b'{"endpoint": "/v1/chat/completions"}', "completion_window", "missing_required_parameter"),
        (b'{"endpoint": 1, "completion_window": "24h"}', "endpoint", "invalid_type"),
        (b'{"endpoint": "/v1/x", "completion_window": "24h", "input_file_id": "f"}', "endpoint", "invalid_value"),
        (b'{"endpoint": "/v1/embeddings", "completion_window": "24h", "metadata": "null"}', "metadata", "invalid_type"),
        (b'{"endpoint": "/v1/embeddings", "completion_window": "24h", "input_file_id": "f", "metadata": {"a": 1}}',
         "metadata.a", "invalid_type"),
        (b'{"endpoint": "/v1/embeddings", "completion_window": "24h", "input_file_id": "a\\u0000"}', "input_file_id",
         "invalid_value"),
        (b'{"endpoint": "/v1/x", "completion_window": "24h", "input_file_id": "f", "metadata": {"a": "\\u0000"}}',
         "metadata", "invalid_value"),
        (b'{"endpoint": "/v1/x", "completion_window": "24h", "output_expires_after": {"anchor": "x", "seconds": 1}}',
         "output_expires_after.anchor", "invalid_value"),
    ],
)  # fmt: skip
def test_wrong_bodies_are_400s_that_name_the_parameter(served, body, param, code):
    answer = served.ask("POST", "/v1/batches", body)
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == (param, code)
    assert "None" not in (answer.error["type"], answer.error["param"])


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=ten", "limit"), ("order=down", "order"),
     ("status=done", "status"), ("created_after=x", "created_after"),
     ("created_before=99999999999999999999", "created_before"),
     ("metadata=x", "metadata"), ("metadata[a%00]=x", "metadata[a]")],
)  # fmt: skip
def test_wrong_list_queries_are_400s(served, query, param):
    answer = served.ask("GET", f"/v1/batches?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


def test_a_null_metadata_is_fine_and_unknown_fields_are_ignored(served, batch):
    body = {**BATCH, "input_file_id": batch["input_file_id"], "metadata": None, "litellm_metadata": {"x": 1}}
    assert served.ask("POST", "/v1/batches?unknown=1", body).json["metadata"] is None


def test_a_repeated_create_makes_one_batch_also_when_all_run_at_once(served, batch):
    body = {**BATCH, "input_file_id": batch["input_file_id"], "metadata": {"once": "yes"}}
    start = threading.Barrier(8)

    def create(_: int) -> str:
        start.wait()
        return served.ask("POST", "/v1/batches", body, Idempotency_Key="once").json["id"]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(8)))) == 1
    assert len(served.ask("GET", "/v1/batches?metadata[once]=yes").json["data"]) == 1
    other = served.ask("POST", "/v1/batches", {**body, "priority": 1}, Idempotency_Key="once")
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")
    mine = served.key("mine")
    assert served.ask("POST", "/v1/batches", body, Idempotency_Key="once", key=mine).status == 200, (
        "keys are a caller's own"
    )
    assert served.ask("POST", "/v1/batches", body, Idempotency_Key="x" * 300).status == 400


def test_an_inline_body_has_a_limit(served):
    requests = [json.loads(line(0, user="x" * (17 << 20)))]
    answer = served.ask("POST", "/v1/batches", {**BATCH, "requests": requests})
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_results_and_events_stream(served, batch, keys):
    path = f"/v1/batches/{batch['id']}"
    results = served.ask("GET", f"{path}/results", key=keys["ours"])
    assert (results.status, results.body, results.headers["Content-Type"]) == (200, b"", "application/x-ndjson")
    assert served.ask("GET", f"{path}/results?after=nonsense", key=keys["ours"]).error["param"] == "after"
    assert served.ask("GET", f"{path}/results?status=odd", key=keys["ours"]).error["param"] == "status"
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as stream:
        stream.sendall(
            f"GET {path}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys['ours']}\r\n\r\n".encode()
        )
        got = b""
        while b"request_counts" not in got:
            got += stream.recv(65536)
    assert b"content-type: text/event-stream" in got
    assert b'event: batch\ndata: {"id":"' + batch["id"].encode() in got


def test_each_answer_has_a_request_id_and_a_sane_one_is_kept(served):
    assert re.fullmatch(r"[0-9a-f]{32}", served.ask("GET", "/v1/files").headers["x-request-id"])
    assert served.ask("GET", "/nothing", x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    assert served.ask("GET", "/v1/files", x_request_id="no spaces").headers["x-request-id"] != "no spaces"
    assert served.ask("GET", "/v1/files").headers["openai-processing-ms"].isdecimal()
    assert served.ask("GET", "/v1/files").headers["server"] is None


def test_the_log_has_a_line_a_request_without_secrets(served, caplog):
    with caplog.at_level(logging.INFO, "batchway.access"):
        served.ask("GET", "/v1/files?purpose=hidden", x_request_id="logged")
        served.ask("GET", "/v1/forged%0Aline")
        served.ask("GET", "/v1/files")  # a line is written behind its answer: the last may still be missing
    lines = [record.getMessage() for record in caplog.records if record.name == "batchway.access"]
    assert re.fullmatch(r"GET /v1/files 200 [\d.]+ms", lines[0])
    assert "\n" not in lines[1]
    assert not [text for text in lines if MASTER in text or "hidden" in text]


def test_what_was_not_foreseen_is_a_bare_500(served, caplog, monkeypatch):
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("batchway.db.files.list_page", broken)
    answer = served.ask("GET", "/v1/files")
    assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert b"swordfish" not in answer.body
    assert "swordfish" in caplog.text


def test_health_needs_no_key_and_tells_what_fails(served, monkeypatch, caplog):
    assert served.ask("GET", "/health/live", key=None).json == {"status": "ok"}
    assert served.ask("GET", "/health/ready", key=None).json == {"status": "ok", "database": "ok", "storage": "ok"}

    async def gone(_key: str) -> bool:
        raise OSError("disk")

    monkeypatch.setattr(served.gateway.storage, "exists", gone)
    answer = served.ask("GET", "/health/ready", key=None)
    assert (answer.status, answer.json) == (503, {"status": "failing", "database": "ok", "storage": "failing"})
    assert "disk" in caplog.text


def test_the_documents_work_offline_under_a_strict_policy(served):
    page = served.ask("GET", "/docs", key=None)
    assert page.status == 200
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert b"http" not in page.body
    for found in re.findall(rb'(?:src|href)="(docs/[^"]+)"', page.body):
        asset = served.ask("GET", f"/{found.decode()}", key=None)
        assert asset.status == 200
        assert len(asset.body) > 50
    document = served.ask("GET", "/openapi.json", key=None).json
    assert {operation.full_path.replace("*}", "}") for operation in OPERATIONS} == set(document["paths"])


def test_without_auth_other_web_pages_and_rebound_names_are_refused(tmp_path):
    with serving(tmp_path, no_auth=True, master_key=None) as served:
        assert served.ask("GET", "/v1/keys", key=None).status == 200
        assert served.ask("GET", "/v1/files", key=None, Host="localhost:4000").status == 200
        assert served.ask("GET", "/v1/files", key=None, Host="evil.example").status == 403
        assert served.ask("GET", "/v1/files", key=None, Host="[::1").status == 403
        assert served.ask("GET", "/v1/files", key=None, Origin="https://evil.example").status == 403
        assert served.ask("GET", "/v1/files", key=None, Origin=served.url).status == 200
