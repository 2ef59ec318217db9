"""Costs, usage and corrections over real HTTP: OpenAI's own admin client, the SDK, the command and a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import time
from decimal import Decimal

import openai
import pytest
from openai.types.admin.organization import UsageCompletionsResponse, UsageCostsResponse

from batchway import BadRequestError, Client
from batchway.cli.main import main
from batchway.core.states import BatchState
from batchway.core.usage import Usage
from batchway.db import ledger
from batchway.db.costs import DAY
from batchway.db.transitions import create_batch, move_batch
from tests.journeys.serving import MASTER, serving

TODAY = int(time.time()) // DAY
BATCH = {
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-1",
    "completion_window": "24h",
    "window_seconds": 86400,
    "expires_at": 0,
}
USAGE = Usage(input_tokens=1000, cached_tokens=100, output_tokens=200, reasoning_tokens=50)


class Books:
    """A gateway with entries: (key, private, model, amount, days ago, metadata) each, of a batch of its own."""

    def __init__(self, served) -> None:
        self.served = served
        self.ids: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        for name, project in (("ann", "ours"), ("bob", "ours"), ("eve", "theirs")):
            made = served.ask("POST", "/v1/keys", {"name": name, "project": project}).json
            self.ids[name], self.secrets[name] = made["id"], made["key"]
        self.post("batch_1", "ann", amount=10**12, metadata={"team": "=HYPERLINK(1)"})
        self.post("batch_2", "ann", amount=5, private=True, metadata={"team": "blue"})
        self.post("batch_3", "bob", amount=None, model="odd", days=1)
        self.post("batch_4", "eve", amount=7 * 10**12, project="theirs")

    def post(
        self, batch_id, name, *, amount, project="ours", model="gpt", private=False, days=0, metadata=None
    ) -> None:
        owner = {"project": project, "key_id": self.ids[name]}
        now = (TODAY - days) * DAY + 5.0

        def fill(tx) -> None:
            create_batch(tx, now, {**BATCH, **owner, "id": batch_id, "private": private, "metadata": metadata})
            entry = ledger.Entry(
                job_id=f"job_of_{batch_id}", first_line=1, batch_id=batch_id, account="acc", model=model, lane="native",
                lines=3, usage=USAGE, **owner,
            )  # fmt: skip
            assert ledger.post(tx, entry, amount, "s", now)
            move_batch(tx, batch_id, BatchState.VALIDATING, BatchState.FAILED, now)

        self.served.gateway.db.write_now(fill)

    def ask(self, path: str, name: str | None = None, **headers: str):
        key = MASTER if name is None else self.secrets[name]
        return self.served.ask("GET", path, key=key, **headers)

    def amounts(self, query: str = "", name: str | None = None) -> dict[str, list]:
        """Day (counted back from today) -> the amounts of its results."""
        answer = self.ask(f"/v1/costs?{query}", name)
        assert answer.status == 200, answer.body
        data = answer.json["data"]
        found = {TODAY - bucket["start_time"] // DAY: bucket["results"] for bucket in data if bucket["results"]}
        return {day: [one["amount"]["value"] for one in results] for day, results in found.items()}


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gateway")) as running:
        yield Books(running)


# Reading --------------------------------------------------------------------------------------------------------------


def test_amounts_are_exact_strings_and_an_unknown_one_is_null(books) -> None:
    page = books.ask("/v1/costs").json
    assert (page["object"], page["has_more"], page["next_page"], len(page["data"])) == ("page", False, None, 7)
    *_, yesterday, today = page["data"]
    assert (today["object"], today["end_time"] - today["start_time"]) == ("bucket", DAY)
    (result,) = today["results"]
    assert result["object"] == "organization.costs.result"
    assert result["amount"] == {"value": "8.000000000005", "currency": "usd"}
    assert (result["amount_known"], result["entries"], result["unknown_entries"]) == (True, 3, 0)
    (result,) = yesterday["results"]
    assert (result["amount"]["value"], result["amount_known"], result["unknown_entries"]) == (None, False, 1)
    assert page["data"][0]["results"] == []


def test_openais_own_admin_client_reads_both_pages(books) -> None:
    client = openai.OpenAI(base_url=f"{books.served.url}/v1", api_key="x", admin_api_key=MASTER, max_retries=0)
    usage = client.admin.organization.usage
    costs = usage.costs(start_time=TODAY * DAY, group_by=["project_id", "api_key_id"])
    assert isinstance(costs, UsageCostsResponse)
    (bucket,) = costs.data
    told = {(one.project_id, one.api_key_id): one.amount.value for one in bucket.results}
    assert told == {("ours", books.ids["ann"]): 1.000000000005, ("theirs", books.ids["eve"]): 7.0}
    tokens = usage.completions(start_time=TODAY * DAY, group_by=["model"], project_ids=["ours"])
    assert isinstance(tokens, UsageCompletionsResponse)
    (result,) = tokens.data[0].results
    assert (result.model, result.num_model_requests, result.input_tokens, result.output_tokens) == ("gpt", 6, 2000, 400)
    assert (result.input_cached_tokens, result.project_id) == (200, None)


def test_a_key_sees_its_project_but_what_is_private_only_to_whose_it_is(books) -> None:
    assert books.amounts(name="ann") == {0: ["1.000000000005"], 1: [None]}
    assert books.amounts(name="bob") == {0: ["1"], 1: [None]}
    assert books.amounts("group_by=batch", "bob") == {0: ["1"], 1: [None]}
    assert books.amounts("group_by=tag:team", "bob") == {0: ["1"], 1: [None]}
    assert books.amounts(name="eve") == {0: ["7"]}
    for query in ("batch_id=batch_2", f"key_id={books.ids['eve']}", "project=theirs", "tag[team]=blue"):
        assert books.amounts(query, "bob") == {}
        assert books.amounts(f"{query}&group_by=batch", "bob") == {}


def test_groups_say_what_they_are_and_sum_up_to_the_whole(books) -> None:
    query = "group_by=tag:team&group_by=model&group_by=provider&group_by=lane"
    today = books.ask(f"/v1/costs?{query}&limit=1&start_time={TODAY * DAY}").json["data"][0]["results"]
    told = [(one["tags"], one["model"], one["provider"], one["lane"], one["amount"]["value"]) for one in today]
    assert told == [
        ({"team": "=HYPERLINK(1)"}, "gpt", "acc", "native", "1"),
        ({"team": "blue"}, "gpt", "acc", "native", "0.000000000005"),
        ({"team": None}, "gpt", "acc", "native", "7"),
    ]
    assert today[0]["project_id"] is None
    assert books.amounts("tag[team]=blue") == {0: ["0.000000000005"]}
    assert books.amounts("tag[team]=blue&group_by=tag:team&group_by=batch") == {0: ["0.000000000005"]}
    assert books.amounts("provider=acc&model=odd&project=ours&lane=native") == {1: [None]}
    assert books.amounts("provider=another") == {}


def test_pages_follow_one_another_to_the_end(books) -> None:
    start = (TODAY - 9) * DAY
    days, page, pages = [], "", 0
    while page is not None:
        answer = books.ask(f"/v1/costs?start_time={start}&limit=4" + (f"&page={page}" if page else "")).json
        assert answer["has_more"] is (answer["next_page"] is not None)
        days += [bucket["start_time"] for bucket in answer["data"]]
        page, pages = answer["next_page"], pages + 1
    assert (days, pages) == ([start + number * DAY for number in range(10)], 3)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=colour", "group_by"),
        ("group_by=tag:", "group_by"),
        ("group_by[]=user_id", "group_by"),
        ("bucket_width=1h", "bucket_width"),
        ("limit=0", "limit"),
        ("limit=181", "limit"),
        ("start_time=-1", "start_time"),
        ("start_time=9&end_time=8", "end_time"),
        ("page=page_1", "page"),
        ("lane=fast", "lane"),
        ("project=a%00", "project"),
        ("&".join(["project_ids=a"] * 101), "project_ids"),
    ],
)
def test_a_question_without_an_answer_is_refused(books, query, param) -> None:
    for path in ("costs", "usage"):
        answer = books.ask(f"/v1/{path}?{query}")
        assert (answer.status, answer.error["param"]) == (400, param), answer.body
        answer = books.ask(f"/v1/{path}?{query}", Accept="text/csv")
        assert (answer.status, answer.error["param"]) == (400, param), answer.body


# CSV ------------------------------------------------------------------------------------------------------------------


def test_csv_holds_every_day_that_is_asked_for_and_no_formula(books) -> None:
    query = f"start_time={(TODAY - 400) * DAY}&group_by=tag:team&group_by=batch"
    answer = books.ask(f"/v1/costs?{query}", Accept="text/csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.body.count(b"\r\n") == 5
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    assert [(row["batch_id"], row["tag:team"], row["amount_usd"], row["unknown_entries"]) for row in rows] == [
        ("batch_3", "", "", "1"),
        ("batch_1", "'=HYPERLINK(1)", "1", "0"),
        ("batch_2", "blue", "0.000000000005", "0"),
        ("batch_4", "", "7", "0"),
    ]
    assert rows[0]["date"] < rows[1]["date"] == time.strftime("%Y-%m-%d", time.gmtime(TODAY * DAY))
    answer = books.ask("/v1/usage?limit=1&start_time=0", Accept="text/csv")
    assert answer.body.startswith(b"date,num_model_requests,input_tokens,")
    assert answer.body.count(b"\r\n") == 1


def test_a_negative_amount_is_a_number_and_no_formula(books) -> None:
    books.post("batch_5", "eve", amount=0, project="theirs", days=30)
    wish = {"batch_id": "batch_5", "kind": "refund", "amount_usd": "-2.5", "note": "x"}
    assert books.served.ask("POST", "/v1/costs/corrections", wish).status == 200
    answer = books.ask("/v1/costs?batch_id=batch_5&limit=1", Accept="text/csv")
    assert answer.body.count(b"\r\n") == 1  # limit counts days here too: six days ago there was nothing
    answer = books.ask("/v1/costs?batch_id=batch_5&group_by=batch", Accept="text/csv")
    assert answer.body.splitlines()[1].split(b",")[1:] == [b"batch_5", b"-2.5", b"1", b"0"]
    books.served.ask("POST", "/v1/costs/corrections", {**wish, "kind": "correction", "amount_usd": "2.5"})


# Corrections ----------------------------------------------------------------------------------------------------------


def test_a_correction_stands_beside_the_amount_and_is_made_once(books) -> None:
    books.post("batch_6", "eve", amount=3 * 10**12, project="theirs", days=40)
    before = books.ask("/v1/batches/batch_6").json["batchway"]
    assert before["corrections_usd"] is None
    wish = {"batch_id": "batch_6", "amount_usd": "-0.5", "note": "agreed", "reference": "invoice 7"}
    send = {"Idempotency_Key": "once"}
    first = books.served.ask("POST", "/v1/costs/corrections", wish, **send)
    assert first.status == 200, first.body
    assert first.json["corrections_usd"] == "-0.5"
    for headers in (send, {}, {"Idempotency_Key": "another"}):
        assert books.served.ask("POST", "/v1/costs/corrections", wish, **headers).json == first.json
    changed = books.served.ask("POST", "/v1/costs/corrections", {**wish, "amount_usd": "-1"})
    assert (changed.status, changed.error["code"], changed.error["param"]) == (409, "reference_used", "reference")
    after = books.ask("/v1/batches/batch_6").json["batchway"]
    assert after == {**before, "corrections_usd": "-0.5"}
    listed = {one["id"]: one["batchway"]["corrections_usd"] for one in books.ask("/v1/batches?limit=100").json["data"]}
    assert (listed["batch_6"], listed["batch_1"]) == ("-0.5", None)
    audited = books.ask("/v1/audit?action=cost.corrected&target=batch_6").json["data"]
    assert [entry["details"]["amount_usd"] for entry in audited] == ["-0.5"]


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"batch_id": "batch_x"}, 404, "batch_id"),
        ({"amount_usd": 1.5}, 400, "amount_usd"),
        ({"amount_usd": "1.0000000000001"}, 400, "amount_usd"),
        ({"kind": "gift"}, 400, "kind"),
        ({"note": ""}, 400, "note"),
        ({"colour": 1}, 400, "colour"),
    ],
)
def test_a_correction_that_cannot_be_is_refused(books, changes, status, param) -> None:
    wish = {"batch_id": "batch_1", "amount_usd": "1", "note": "n", **changes}
    answer = books.served.ask("POST", "/v1/costs/corrections", wish)
    assert (answer.status, answer.error["param"]) == (status, param), answer.body


def test_only_an_admin_corrects(books) -> None:
    wish = {"batch_id": "batch_1", "amount_usd": "1", "note": "n"}
    answer = books.served.ask("POST", "/v1/costs/corrections", wish, key=books.secrets["ann"])
    assert (answer.status, answer.error["type"]) == (403, "permission_error")


# The SDK and the command ----------------------------------------------------------------------------------------------


def test_the_sdk_reads_and_corrects(books) -> None:
    books.post("batch_7", "eve", amount=1, project="theirs", days=50)
    with Client(base_url=books.served.url, api_key=MASTER) as client:
        page = client.costs(group_by=["batch", "tag:team"], batch_id="batch_1")
        (result,) = page.data[-1].results
        assert (result.batch_id, result.tags, result.amount.value) == ("batch_1", {"team": "=HYPERLINK(1)"}, "1")
        tokens = client.usage(TODAY * DAY, project="theirs", group_by="model", model="gpt", tag={})
        assert (tokens.data[0].results[0].input_tokens, tokens.data[0].results[0].tags) == (1000, None)
        made = client.correct_costs("batch_7", "0.25", "why", reference="r")
        assert (made.amount_usd, made.kind) == ("0.25", "correction")
        made = client.correct_costs("batch_7", "-0.25", "why", kind="refund")
        assert made.corrections_usd == "0"
        with pytest.raises(BadRequestError, match="decimal string"):
            client.correct_costs("batch_7", 0.25, "why")


def costs_command(books, capfdbinary, *words: str) -> str:
    code = main(["costs", "--base-url", books.served.url, "--api-key", MASTER, *words])
    captured = capfdbinary.readouterr()
    assert code == 0, captured.err
    return captured.out.decode()


def test_the_command_draws_a_table_with_a_total(books, capfdbinary) -> None:
    said = costs_command(
        books, capfdbinary, "--group-by", "project", "--group-by", "tag:team", "--key", books.ids["ann"]
    )
    day = time.strftime("%Y-%m-%d", time.gmtime(TODAY * DAY))
    assert said.splitlines() == [
        "day\tproject\ttag:team\tamount\tentries",
        f"{day}\tours\t=HYPERLINK(1)\t$1\t1",
        f"{day}\tours\tblue\t$0.000000000005\t1",
        "total\t\t\t$1.000000000005\t2",
    ]
    said = costs_command(books, capfdbinary, "--project", "ours", "--days", "2")
    assert said.splitlines()[1:] == [
        f"{time.strftime('%Y-%m-%d', time.gmtime((TODAY - 1) * DAY))}\tunknown\t1",
        f"{day}\t$1.000000000005\t2",
        "total\t$1.000000000005 + 1 unknown\t3",
    ]
    said = costs_command(books, capfdbinary, "--usage", "--days", "2", "--tag", "team=blue")
    assert said.splitlines()[-1] == "total\t3\t1000\t100\t200"


def test_the_command_answers_json_and_csv_of_any_number_of_days(books, capfdbinary) -> None:
    found = json.loads(costs_command(books, capfdbinary, "--days", "400", "--json"))
    assert len(found["data"]) == 400
    amounts = [Decimal(one["amount"]["value"] or 0) for bucket in found["data"] for one in bucket["results"]]
    said = costs_command(books, capfdbinary, "--days", "400", "--csv")
    told = [Decimal(row["amount_usd"] or 0) for row in csv.DictReader(io.StringIO(said, newline=""))]
    assert told == amounts
    assert len(told) > 2


@pytest.mark.parametrize(
    "words",
    [
        ["--group-by", "colour"],
        ["--from", "yesterday"],
        ["--from", "2026-02-02", "--to", "2026-02-01"],
        ["--from", "2026-02-02", "--days", "3"],
        ["--csv", "--json"],
    ],
)
def test_the_command_refuses_what_cannot_be(words) -> None:
    assert main(["costs", "--base-url", "http://127.0.0.1:9", *words]) == 2
