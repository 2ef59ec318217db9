"""The real model that other tests send batches to, and the demo's requests: what llama.cpp accepts and answers."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import openai
import pytest

from batchway.cli.demo.model import DemoError, ModelServer, ModelSettings
from batchway.cli.demo.outcome import read_answers
from batchway.cli.demo.prompts import chat_lines, embedding_lines
from tests.model_server import MODEL_NAME, missing, tiny_model_server, write_tiny_model

pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

PARENT = """
import sys, pathlib
from batchway.cli.demo.model import ModelServer, ModelSettings
folder = pathlib.Path(sys.argv[1])
server = ModelServer(ModelSettings(folder / "tiny.gguf", "tiny", folder / "model.log", slots=1, threads=1, context=64))
server.start()
print(server.base_url, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with tiny_model_server(tmp_path_factory.mktemp("model"), slots=8) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as connected:
        yield connected


def ask(client, text, **more):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(**{"model": MODEL_NAME, "messages": messages, "max_tokens": 12, **more})


def test_the_same_seed_writes_the_same_half_megabyte(tmp_path):
    write_tiny_model(tmp_path / "a.gguf")
    write_tiny_model(tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert 300_000 < (tmp_path / "a.gguf").stat().st_size < 700_000


def test_chat_answers_repeat_for_a_prompt_and_differ_between_prompts(client):
    answers = [ask(client, f"Hello {number}", temperature=0) for number in (1, 2, 3, 1)]
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    usage = answers[0].usage
    assert usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + 12


def test_completions_responses_and_embeddings_are_offered_by_the_same_server(client):
    completion = client.completions.create(model=MODEL_NAME, prompt="Once upon", max_tokens=5)
    assert completion.usage.completion_tokens == 5
    response = client.responses.create(model=MODEL_NAME, input="Say hi", max_output_tokens=5)
    assert response.usage.output_tokens == 5
    vectors = client.embeddings.create(model=MODEL_NAME, input=["one", "two"])
    assert [len(entry.embedding) for entry in vectors.data] == [64, 64]
    assert vectors.usage.prompt_tokens > 0


def test_refusals_are_real_ones(client):
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        ask(client, "word " * 3000)
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model=MODEL_NAME, messages="not a list")
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)


def test_every_request_is_counted_once(server, client):
    before = server.requests_begun()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ask(client, f"Count {number}"), range(40)))
    assert server.requests_begun() == before + 40


def test_a_wrong_key_is_refused_when_a_key_is_set(tmp_path):
    with tiny_model_server(tmp_path, api_key="right") as guarded:
        with (
            openai.OpenAI(base_url=guarded.base_url, api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            ask(stranger, "hi")
        with openai.OpenAI(base_url=guarded.base_url, api_key="right", max_retries=0) as friend:
            assert ask(friend, "hi").usage.completion_tokens == 12


def test_a_model_that_cannot_be_loaded_is_an_error_that_names_the_log(tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"not a model")
    with pytest.raises(DemoError, match=r"model\.log"):
        ModelServer(ModelSettings(tmp_path / "no.gguf", "no", tmp_path / "model.log")).start()


def test_the_model_dies_with_a_parent_that_was_killed(tmp_path):
    write_tiny_model(tmp_path / "tiny.gguf")
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        address = urlsplit(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _listens(address.hostname, address.port):
        assert time.monotonic() < deadline, "the model outlived its parent"
        time.sleep(0.05)


def _listens(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionError:
        return False
    return True


def test_every_request_of_the_demo_is_accepted(client):
    lines = [*chat_lines(130, (MODEL_NAME,)), *embedding_lines(24, MODEL_NAME)]
    assert len({line["custom_id"] for line in lines}) == 154
    assert len({json.dumps(line["body"]) for line in lines[:130]}) == 130

    def send(line):
        return client.post(line["url"].removeprefix("/v1"), body=line["body"], cast_to=object)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, lines))
    assert all(answer["usage"]["prompt_tokens"] for answer in answers)


@pytest.mark.parametrize(
    ("returned", "complete", "verdict"),
    [
        ([[1, 2], [3]], True, "0 lines lost, 0 twice, in input order"),
        ([[1, 3], []], False, "1 lines lost, 0 twice, in input order"),
        ([[1, 2, 3], [2]], False, "0 lines lost, 1 twice, in input order"),
        ([[2, 1], [3]], False, "0 lines lost, 0 twice, NOT in input order"),
        ([[1, 2, 3, 4], []], False, "0 lines lost, 0 twice, NOT in input order"),
    ],
)
def test_the_demo_sees_lost_doubled_and_disordered_lines(tmp_path, returned, complete, verdict):
    sent = list(chat_lines(3, ("any",)))
    files = [tmp_path / "output.jsonl", tmp_path / "error.jsonl"]
    for file, numbers in zip(files, returned, strict=True):
        file.write_text("".join(json.dumps({"custom_id": f"chat-{number:05d}"}) + "\n" for number in numbers))
    answers = read_answers(sent, files)
    assert (answers.complete, answers.verdict) == (complete, verdict)
