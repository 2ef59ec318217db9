"""Limits at the API, projects and the gateway's budget: over real HTTP."""

from __future__ import annotations

import itertools
import json
from http.client import HTTPConnection

import openai
import pytest

from batchway.db.outbox import of_subject
from tests.journeys.serving import FORM, jsonl, line, serving
from tests.postgres import postgres

__all__ = ["postgres"]

numbers = itertools.count(1)
BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def served(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    settings = {}
    if request.param == "postgresql":
        settings["database_url"] = request.getfixturevalue("postgres").fresh()
    with serving(folder, **settings) as running:
        yield running


def key(served, **rules):
    return served.ask("POST", "/v1/keys", {"name": f"key {next(numbers)}", **rules}).json["key"]


def project(served, **rules):
    name = f"project-{next(numbers)}"
    answer = served.ask("POST", "/v1/projects", {"name": name, **rules})
    assert answer.status == 200, answer.body
    return name


# Limits ---------------------------------------------------------------------------------------------------------------


def test_requests_over_the_limit_of_a_minute_are_429s_in_openais_headers(served):
    limited = key(served, limits={"requests_per_minute": 2})
    answers = [served.ask("GET", "/v1/files", key=limited) for _ in range(6)]  # two minutes at most
    refused = [answer for answer in answers if answer.status == 429]
    assert answers[0].status == 200
    assert len(refused) >= 2
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
    assert answers[0].headers["x-ratelimit-reset-requests"].endswith("s")
    assert (refused[0].error["code"], refused[0].error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 60
    assert refused[0].headers["x-ratelimit-remaining-requests"] == "0"
    assert served.ask("GET", "/v1/files").headers["x-ratelimit-limit-requests"] is None


def test_a_refusal_tells_the_limit_too(served):
    limited = key(served, limits={"requests_per_minute": 100})
    answer = served.ask("GET", "/v1/files/file-0", key=limited)
    assert (answer.status, answer.headers["x-ratelimit-limit-requests"]) == (404, "100")


def test_a_changed_limit_holds_from_the_next_request_on(served):
    name = project(served, limits={"requests_per_minute": 0})
    limited = key(served, project=name)
    assert served.ask("GET", "/v1/files", key=limited).status == 429
    served.ask("POST", f"/v1/projects/{name}", {"limits": {"requests_per_minute": None}})
    assert served.ask("GET", "/v1/files", key=limited).status == 200


def test_uploads_of_every_kind_count_for_the_day(served):
    def refusals(send):
        limited = key(served, limits={"uploads_per_day": 1})
        answers = [send(limited) for _ in range(4)]  # two days at most
        assert answers[0].status == 200, answers[0].body
        return {answer.error["code"] for answer in answers if answer.status == 429}

    wanted = {"bytes": 9, "filename": "u.jsonl", "mime_type": "x/y", "purpose": "batch"}
    inline = {**BATCH, "requests": [json.loads(line(1))]}
    for send in (
        lambda limited: served.upload(jsonl(1), purpose="batch", key=limited),
        lambda limited: served.ask("POST", "/v1/uploads", wanted, key=limited),
        lambda limited: served.ask("POST", "/v1/batches", inline, key=limited),
    ):
        assert refusals(send) == {"upload_limit_exceeded"}


def test_an_upload_that_is_refused_does_not_count(served):
    limited = key(served, limits={"uploads_per_day": 1})
    for _ in range(3):
        assert served.upload(b"", purpose="batch", key=limited).status == 400
    assert served.upload(jsonl(1), purpose="batch", key=limited).status == 200


def test_a_repeated_upload_counts_once(served):
    limited = key(served, limits={"uploads_per_day": 2})
    ids = {served.upload(jsonl(1), purpose="batch", key=limited, Idempotency_Key="again").json["id"] for _ in range(4)}
    assert len(ids) == 1
    assert served.upload(jsonl(2), purpose="batch", key=limited).status == 200


def test_a_file_over_the_limit_of_a_key_or_a_project_is_a_413_before_its_bytes_are_read(served):
    name = project(served, limits={"file_bytes": 1000})
    limited = key(served, project=name, limits={"file_bytes": 5000})
    assert served.upload(jsonl(1), purpose="batch", key=limited).status == 200
    assert served.upload(jsonl(40), purpose="batch", key=limited).status == 413
    wanted = {"bytes": 1001, "filename": "u.jsonl", "mime_type": "x/y", "purpose": "batch"}
    assert served.ask("POST", "/v1/uploads", wanted, key=limited).status == 413
    assert served.ask("POST", "/v1/uploads", {**wanted, "bytes": 1000}, key=limited).status == 200
    inline = {**BATCH, "requests": [json.loads(line(number)) for number in range(40)]}
    assert served.ask("POST", "/v1/batches", inline, key=limited).status == 413
    connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.putrequest("POST", "/v1/files")
    for header, value in {
        "Authorization": f"Bearer {limited}", "Content-Type": FORM, "Content-Length": str(3 << 20),
    }.items():  # fmt: skip
        connection.putheader(header, value)
    connection.endheaders()
    assert connection.getresponse().status == 413, "told before a byte of the body"
    connection.close()


def test_the_official_client_waits_as_it_is_told(served):
    limited = key(served, limits={"requests_per_minute": 0})
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=limited, max_retries=0)
    with client, pytest.raises(openai.RateLimitError) as refused:
        client.files.list()
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) >= 1


# Projects -------------------------------------------------------------------------------------------------------------


def test_a_project_is_made_shown_changed_and_ended(served):
    body = {
        "sharing": False, "redaction": "hash", "models": ["m*"], "providers": ["local"],
        "limits": {"active_batches": 3}, "budget": {"usd": "100", "period": "total"},
    }  # fmt: skip
    name = project(served, **body)
    path = f"/v1/projects/{name}"
    shown = served.ask("GET", path).json
    assert {rule: shown[rule] for rule in ("id", "name", "sharing", "redaction", "models", "providers")} == {
        "id": name, "name": name, **{rule: body[rule] for rule in ("sharing", "redaction", "models", "providers")},
    }  # fmt: skip
    assert shown["limits"]["active_batches"] == 3
    assert (shown["budget"]["remaining_usd"], shown["budget"]["ends_at"]) == ("100", None)
    changed = served.ask("POST", path, {"models": None, "budget": {"usd": "7", "period": "day"}}).json
    assert (changed["models"], changed["providers"], changed["budget"]["usd"]) == (None, ["local"], "7")
    assert served.ask("POST", path, {"name": "other"}).error["param"] == "name"
    made = served.ask("POST", "/v1/keys", {"name": "n", "project": name}).json
    refused = served.ask("DELETE", path)
    assert (refused.status, refused.error["code"]) == (409, "project_in_use")
    served.ask("DELETE", f"/v1/keys/{made['id']}")
    assert served.ask("DELETE", path).json == {"id": name, "object": "project", "deleted": True}
    assert served.ask("GET", path).status == served.ask("DELETE", path).status == 404
    for method, body in (("/v1/projects", {"name": name}), ("/v1/keys", {"name": "n", "project": name})):
        assert served.ask("POST", method, body).error["code"] == "project_deleted"
    events = [event.type.value for event in served.run(served.gateway.db.read(of_subject, name))]
    assert events == ["project.created", "project.updated", "project.deleted"]
    logged = served.ask("GET", f"/v1/audit?target={name}&order=asc").json["data"]
    assert [entry["action"] for entry in logged] == events


def test_a_project_that_is_made_twice_or_twice_at_once_with_a_key_is_one(served):
    name = project(served)
    assert served.ask("POST", "/v1/projects", {"name": name}).error["code"] == "project_exists"
    body = {"name": f"project-{next(numbers)}"}
    first, again = (served.ask("POST", "/v1/projects", body, Idempotency_Key="project-once") for _ in range(2))
    assert first.json == again.json


def test_default_is_listed_and_can_be_changed_but_never_ended(served):
    assert "default" in [one["id"] for one in served.ask("GET", "/v1/projects?limit=100").json["data"]]
    assert served.ask("DELETE", "/v1/projects/default").status == 409
    budget = {"usd": "3", "period": "month"}
    assert served.ask("POST", "/v1/projects/default", {"budget": budget}).json["budget"]["usd"] == "3"
    assert served.ask("POST", "/v1/projects/default", {"budget": None}).json["budget"] is None


def test_the_gateways_budget_is_set_shown_and_taken_away(served):
    rung = served.gateway.trip.bells.money
    rung.clear()
    answer = served.ask("POST", "/v1/budget", {"budget": {"usd": "1000.000000000001", "period": "month"}})
    assert answer.json["budget"]["remaining_usd"] == "1000.000000000001"
    assert rung.is_set(), "paused batches may go on"
    assert served.ask("GET", "/v1/budget").json == answer.json
    assert served.ask("POST", "/v1/budget", {}).error["param"] == "budget"
    assert served.ask("POST", "/v1/budget", {"budget": None}).json == {"object": "gateway.budget", "budget": None}
    logged = served.ask("GET", "/v1/audit?target=gateway&order=asc").json["data"]
    assert [entry["action"] for entry in logged] == ["budget.updated"] * 2
