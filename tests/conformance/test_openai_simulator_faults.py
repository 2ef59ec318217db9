"""The OpenAI simulator against OpenAI's official client: its answers, the faults it draws, its limits, its command."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from batchway.providers.openai.simulator import SimulatorSettings, config, main, parse_faults
from batchway.providers.shared.file_simulator.answers import body_hash
from batchway.providers.shared.file_simulator.lines import Order, Rules, write
from batchway.providers.shared.simulation import Dice
from tests.conformance.openai_simulated import CHAT, Running, Start, kept, line, serving, shared, sim, start

__all__ = ["kept", "shared", "sim", "start"]


def test_keys_are_checked(start: Start) -> None:
    sim = start(api_key="right")
    with pytest.raises(openai.AuthenticationError) as refused:
        sim.client.models.list()
    assert refused.value.code == "invalid_api_key"
    assert sim.http.get("/v1/models", headers={"authorization": ""}).status_code == 401
    assert sim.client.with_options(api_key="right").models.list().data


def test_sync_answers_are_deterministic_typed_and_the_same_as_in_a_batch(sim: Running) -> None:
    body = line(5)["body"]
    answer = sim.client.chat.completions.create(**body)
    assert answer.model == "gpt-4o-mini-2024-07-18"
    again = sim.http.post(CHAT, json=dict(reversed(body.items()))).json()
    ChatCompletion.model_validate(again, strict=True)
    assert again["choices"][0]["message"]["content"] == answer.choices[0].message.content
    done = sim.after(sim.create([line(5)]), 2_000)
    batched = sim.lines(done["output_file_id"])[0]["response"]["body"]
    assert (batched["choices"], batched["usage"]) == (again["choices"], again["usage"])

    (counted,) = sim.http.get("/_sim/requests").json()["data"]
    sha256 = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    assert counted["sha256"] == sha256.hexdigest() == body_hash(body)
    assert (counted["attempts"], counted["answered"], counted["model"]) == (2, 2, "gpt-4o-mini")
    assert sim.http.get("/_sim/requests?min=3").json()["data"] == []


def test_the_other_endpoints_answer_in_their_shapes(shared: Running) -> None:
    client = shared.client
    embedded = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=16)
    assert [len(each.embedding) for each in embedded.data] == [16, 16]
    assert embedded.data[0].embedding != embedded.data[1].embedding
    plain = client.embeddings.create(model="m", input="a", encoding_format="float")
    assert sum(value * value for value in plain.data[0].embedding) == pytest.approx(1)
    assert len(client.completions.create(model="m", prompt=["a", "b"]).choices) == 2
    answered = client.responses.create(model="gpt-5", input="hi")
    assert answered.output_text
    assert answered.usage is not None
    assert answered.usage.output_tokens_details.reasoning_tokens > 0
    Response.model_validate(shared.http.post("/v1/responses", json={"model": "m", "input": "x"}).json())
    cut = client.chat.completions.create(**line(1)["body"], max_completion_tokens=2)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 2
    assert len(client.chat.completions.create(**line(1)["body"], n=3).choices) == 3


def test_json_schemas_and_demanded_tools_are_followed(shared: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "kind": {"enum": ["a", "b"]}, "list": {"$ref": "#/$defs/numbers"}},
        "$defs": {"numbers": {"type": "array", "items": {"type": "integer"}}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    content = shared.client.chat.completions.create(**line(1)["body"], response_format=form).choices[0].message.content
    value = json.loads(content or "")
    assert isinstance(value["name"], str)
    assert (value["kind"], value["list"]) == ("a", [1])
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    choice = shared.client.chat.completions.create(**line(1)["body"], tools=[tool], tool_choice="required").choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert json.loads(choice.message.tool_calls[0].function.arguments)["kind"] == "a"


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]}),
        ("/v1/responses", {"model": "gpt-4.1", "input": "hi"}),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "hi"}),
        ("/v1/moderations", {"model": "omni-moderation-latest", "input": "hi"}),
    ],
)
def test_every_endpoint_runs_in_a_batch(shared: Running, endpoint: str, body: dict[str, Any]) -> None:
    lines = [{"custom_id": f"{n}", "method": "POST", "url": endpoint, "body": body} for n in range(3)]
    done = shared.after(shared.create(lines, endpoint), 2_000)
    assert done["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert done["usage"]["input_tokens"] > 0 or endpoint == "/v1/moderations"


def test_a_sync_request_fails_as_it_asked_and_recovers_after_its_count(shared: Running) -> None:
    def ask(word: str) -> Any:
        return shared.client.chat.completions.create(**line(1, simulate=word)["body"])

    with pytest.raises(openai.RateLimitError) as throttled:
        ask("429")
    assert throttled.value.response.headers["retry-after"] == "1"
    with pytest.raises(openai.InternalServerError):
        ask("500x2")
    with pytest.raises(openai.InternalServerError):
        ask("500x2")
    assert ask("500x2").choices
    with pytest.raises(openai.APIConnectionError):
        ask("reset")
    with pytest.raises(openai.APITimeoutError):
        shared.client.with_options(timeout=0.2).chat.completions.create(**line(1, simulate="timeout")["body"])
    with pytest.raises(openai.BadRequestError):
        shared.client.chat.completions.create(**line(1)["body"], stream=True)


def test_drawn_faults_happen_at_their_rate_and_can_be_changed_live(sim: Running) -> None:
    sim.faults("429=0.3,500=0.3")
    statuses = [sim.http.get("/v1/models").status_code for _ in range(100)]
    assert {200, 429, 500} == set(statuses)
    sim.faults("reset=1")
    with pytest.raises(httpx2.TransportError):
        sim.http.get("/v1/models")
    sim.faults("")
    assert sim.http.get("/v1/models").status_code == 200
    drawn = sim.http.get("/_sim").json()["faults_drawn"]
    assert drawn["throttled"] > 10
    refused = sim.http.post("/_sim/faults", json={"spec": "lin=0.1"})
    assert (refused.status_code, "did you mean 'line'?" in refused.text) == (400, True)


@pytest.mark.parametrize(
    ("fault", "error"), [("500", openai.InternalServerError), ("reset", openai.APIConnectionError)]
)
def test_a_lied_about_batch_exists_and_runs(sim: Running, fault: str, error: type[Exception]) -> None:
    sim.faults(f"accept_then_{fault}=1")
    with pytest.raises(error):
        sim.create([line(1)], metadata={"token": "lost"})
    (found,) = sim.http.get("/_sim/batches").json()["data"]
    assert found["metadata"] == {"token": "lost"}
    sim.advance(2_000)
    assert next(iter(sim.client.batches.list())).status == "completed"


def test_a_dropped_answer_was_given_and_a_cut_download_breaks(sim: Running) -> None:
    sim.faults("drop=1,truncate=1")
    with pytest.raises(openai.APIConnectionError):
        sim.client.chat.completions.create(**line(1)["body"])
    assert sim.http.get("/_sim/requests").json()["totals"] == {"distinct": 1, "attempts": 1, "answered": 1}
    done = sim.after(sim.create([line(n) for n in range(50)]), 2_000)
    with pytest.raises(httpx2.TransportError):
        sim.http.get(f"/v1/files/{done['output_file_id']}/content")


@pytest.mark.parametrize(
    ("fault", "seconds", "status", "code"),
    [
        ("fail_batch=1", 100, "failed", "billing_hard_limit_reached"),
        ("token_limit=1", 100, "failed", "token_limit_exceeded"),
        ("slow_validation=1", 200, "validating", None),
        ("stall=1", 7_200, "in_progress", None),
        ("stall=1", 20_000, "completed", None),
        ("expire=1", 80_000, "in_progress", None),
        ("expire=1", 90_000, "expired", None),
        ("line=1", 2_000, "completed", None),
    ],
)
def test_drawn_faults_of_batches(shared: Running, fault: str, seconds: int, status: str, code: str | None) -> None:
    shared.faults(fault)
    found = shared.after(shared.create([line(n) for n in range(30)]), seconds)
    assert found["status"] == status
    assert code is None or [each["code"] for each in found["errors"]["data"]] == [code]
    if fault == "line=1":
        assert found["request_counts"] == {"total": 30, "completed": 0, "failed": 30}
    if status == "expired":
        assert 0 < found["request_counts"]["completed"] < 30
        assert len(shared.lines(found["error_file_id"])) == 30 - found["request_counts"]["completed"]


def test_random_line_faults_count_alike_while_running_and_in_the_files(shared: Running) -> None:
    shared.faults("line=0.3")
    batch = shared.create([line(n) for n in range(200)])
    failed = 0
    while (found := shared.after(batch, 40))["status"] != "completed":
        assert failed <= found["request_counts"]["failed"]
        failed = found["request_counts"]["failed"]
    assert 30 < failed == found["request_counts"]["failed"] < 90
    assert len(shared.lines(found["error_file_id"])) == failed
    assert len(shared.lines(found["output_file_id"])) == 200 - failed


def test_waiting_tokens_of_one_model_are_limited(start: Start) -> None:
    sim = start(enqueued_token_limit=3_000)
    first = sim.create([line(n) for n in range(50)])
    sim.advance(100)
    second = sim.create([line(n) for n in range(50)])
    other = sim.create([line(n, model="gpt-4o") for n in range(50)])
    (fault,) = sim.after(second, 100)["errors"]["data"]
    assert fault["code"] == "token_limit_exceeded"
    assert fault["message"].startswith("Enqueued token limit reached for gpt-4o-mini in organization ")
    assert sim.raw(other)["status"] == sim.raw(first)["status"] == "in_progress"
    sim.advance(2_000)
    assert sim.after(sim.create([line(n) for n in range(50)]), 100)["status"] == "in_progress"


def test_creations_an_hour_and_requests_in_flight_are_limited(start: Start) -> None:
    sim = start(max_batches_per_hour=2, capacity=1, latency=0.2)
    sim.create([line(1)])
    sim.create([line(1)])
    with pytest.raises(openai.RateLimitError) as refused:
        sim.create([line(1)])
    assert int(refused.value.response.headers["retry-after"]) > 0
    sim.advance(3_700)
    sim.create([line(1)])

    async def together() -> list[int]:
        async with httpx2.AsyncClient(base_url=sim.url, headers={"authorization": "Bearer sim"}) as http:
            answers = await asyncio.gather(*(http.post(CHAT, json=line(n)["body"]) for n in range(3)))
        return sorted(answer.status_code for answer in answers)

    assert asyncio.run(together()) == [200, 429, 429]


def test_state_outlives_the_process_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with serving(tmp_path, state_dir=folder, speed=5.0) as before:
        before.client.chat.completions.create(**line(1)["body"])
        batch = before.create([line(n) for n in range(40)], metadata={"token": "t"})
        counts = before.after(batch, 250)["request_counts"]
        assert counts["completed"] > 0
    with serving(tmp_path, state_dir=folder) as after:
        found = after.raw(batch)
        assert found["status"] == "in_progress"
        assert found["request_counts"]["completed"] >= counts["completed"]
        done = after.after(batch, 2_000)
        assert len(after.lines(done["output_file_id"])) == 40
        assert after.http.get("/_sim/requests").json()["totals"]["answered"] == 1
        assert after.http.get("/_sim/batches").json()["data"][0]["metadata"] == {"token": "t"}


def test_the_command_serves_and_prints_what_points_a_gateway_at_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--port", "9123", "--fail", "line=0.5,429=0.1", "--speed", "1000", "--print-config"])
    expected = {"openai": {"api_key": "sim", "base_url": "http://127.0.0.1:9123/v1"}}
    assert json.loads(capsys.readouterr().out) == expected == config(SimulatorSettings(port=9123))
    command = [sys.executable, "-m", "batchway.providers.openai.simulator", "--port", "0", "--speed", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with openai.OpenAI(base_url=url, api_key="sim") as client:
                file = client.files.create(file=("in.jsonl", json.dumps(line(1)).encode()), purpose="batch")
                batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
                deadline = time.monotonic() + 10
                while client.batches.retrieve(batch.id).status != "completed":
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        finally:
            process.terminate()
        assert process.wait(10) == -signal.SIGTERM, "uvicorn ends in peace, then passes the signal on"


@pytest.mark.parametrize("spec", ["line", "line=2", "line=-0.1", "line=nan", "line=x", "nothing=0.1"])
def test_wrong_fault_specs_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"line|nothing"):
        parse_faults(spec)


def test_fault_specs_use_the_names_that_users_type() -> None:
    faults = parse_faults("line=0.02, 429=0.05,500=0.01,reset=1")
    assert (faults.line, faults.throttled, faults.server_error, faults.reset) == (0.02, 0.05, 0.01, 1)
    assert faults.named()["429"] == 0.05


def test_the_time_a_line_of_results_takes_does_not_grow_with_their_number(tmp_path: Path) -> None:
    def cost(lines: int) -> float:
        """CPU seconds of this thread a line, so that a busy machine does not fail it."""
        source = tmp_path / f"in-{lines}"
        with source.open("wb") as file:
            file.writelines(json.dumps(line(n)).encode() + b"\n" for n in range(lines))
        rules = Rules(
            batch_id="batch_12345678",
            ordinal=1,
            endpoint=CHAT,
            dice=Dice(0),
            line_rate=0.1,
            max_requests=50_000,
            models=(),
        )
        order = Order(source=source, output=tmp_path / "o", errors=tmp_path / "e", done=lines, rest=None, now=0)
        started = time.thread_time()
        written = write(order, rules)
        assert written.output_lines + written.error_lines == lines
        return (time.thread_time() - started) / lines

    cost(500)  # whatever is made once
    assert cost(16_000) < 3 * cost(2_000)
