"""The gateway inside the caller's process: the same calls, no server started by anybody."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import batchway
from batchway import AsyncClient, Client, local
from batchway.core.errors import ConfigError
from batchway.engine.filelock import FolderLock
from batchway.sdk import place
from batchway.settings import Settings
from tests.tiny_gateway import KEY, TinyGateway, serving


async def chat(request: Request) -> Response:
    """An endpoint that answers with what was asked."""
    asked = await request.json()
    said = asked["messages"][-1]["content"]
    if said == "no":
        return JSONResponse({"error": {"message": "I will not.", "code": "refused"}}, 400)
    message = {"role": "assistant", "content": said.upper()}
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return JSONResponse({"id": "c", "object": "chat.completion", "choices": choices, "usage": usage, "model": "echo"})


@pytest.fixture(scope="module")
def endpoint():
    with serving(Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])) as url:
        yield url


@pytest.fixture
def home(endpoint, tmp_path, monkeypatch):
    """A home folder whose gateway has one provider, as a user's environment would say."""
    for name in ("BATCHWAY_BASE_URL", "BATCHWAY_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCHWAY_HOME", str(tmp_path / "home"))
    entry = {"kind": "openai_compatible", "base_url": f"{endpoint}/v1"}
    monkeypatch.setenv("BATCHWAY_PROVIDERS", json.dumps({"here": entry}))
    monkeypatch.setenv("BATCHWAY_POLL_SECONDS", "0.05")
    yield tmp_path / "home"
    local._close_all()


def test_a_whole_job_runs_in_this_process_in_both_flavours(home):
    with Client() as client:
        results = list(client.run(["one", "no", "three"], model="here/echo", poll=0.05))
        assert [result.text for result in results] == ["ONE", None, "THREE"]
        assert results[1].error.status_code == 400
        assert client.list_batches(limit=1).data[0].status == "completed"
        with pytest.raises(batchway.NotFoundError) as refused:
            client.file_content("file-none")
        assert refused.value.request_id

    async def again() -> list[str | None]:
        async with AsyncClient() as ours:
            run = await ours.run(["two"], model="here/echo", poll=0.05, ordered=False)
            return [result.text async for result in run]

    assert asyncio.run(again()) == ["TWO"]


def test_what_a_process_began_the_next_one_finds(home):
    begin = (
        'import batchway; f = batchway.create_file(b\'{"custom_id":"a","method":"POST","url":'
        '"/v1/chat/completions","body":{"model":"here/echo","messages":[{"role":"user","content":"hi"}]}}\\n\');'
        "print(batchway.create_batch('24h', '/v1/chat/completions', f.id).id)"
    )
    batch_id = in_another_process(begin)
    follow = (
        "import batchway, time\n"
        f"while (b := batchway.retrieve_batch({batch_id!r})).status != 'completed': time.sleep(0.05)\n"
        "print(batchway.file_content(b.output_file_id).text)"
    )
    assert '"HI"' in in_another_process(follow)


def in_another_process(code: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout.strip()


def test_one_folder_has_one_gateway_in_a_process(home):
    assert place.local() is place.local()
    assert local.open_local(home) is place.local()


def test_a_forked_process_is_told_that_the_gateway_is_its_parents(home):
    client = Client()
    client.list_models()
    child = os.fork()
    if child == 0:
        told = 1
        try:
            client.list_models(max_retries=0)
        except batchway.APIConnectionError as error:
            told = 0 if "forked" in str(error) else 2
        finally:
            os._exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.list_models().object == "list"


def test_a_folder_that_another_process_serves_is_reached_over_http(home):
    home.mkdir(parents=True)
    lock = FolderLock(home / "engine.lock")
    tiny = TinyGateway()
    with serving(tiny.app) as url:
        with pytest.raises(ConfigError, match="in use by another"):
            place.local()
        (home / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid(), "key": KEY, "later": 1}))
        with Client() as client:
            assert client.list_models().data
        (home / "server.json").write_text(json.dumps({"url": url, "pid": 4_000_000}))
        with pytest.raises(ConfigError, match="in use by another"):
            place.local()
    lock.release()


# The transport, over small applications -------------------------------------------------------------------------------


@pytest.fixture
def opened():
    """Opens a local gateway that is any application, and closes it."""
    gateways: list[local.LocalGateway] = []

    def open_with(app: object) -> local.LocalGateway:
        @asynccontextmanager
        async def start(settings: Settings):
            yield app

        gateways.append(local.LocalGateway(Settings(), start))
        return gateways[-1]

    yield open_with
    for gateway in gateways:
        gateway.close()
        gateway.close()


def test_the_small_gateway_answers_in_process_as_over_http(opened):
    tiny = TinyGateway()
    with Client(transport=opened(tiny.app).blocking(), api_key=KEY) as client:
        file = client.create_file(("n.jsonl", io.BytesIO(b"x" * 1_000_000)), api_key=KEY)
        assert client.file_content(file.id, api_key=KEY).content == b"x" * 1_000_000
        with pytest.raises(batchway.AuthenticationError):
            client.list_models(max_retries=0)


def test_an_answer_waits_for_its_reader_and_ends_when_nobody_reads(opened):
    made: list[int] = []
    ended = asyncio.Event()

    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                made.append(1)
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        finally:
            ended.set()

    gateway = opened(endless)
    with Client(transport=gateway.blocking()) as client:
        content = client.file_content("file-x")
        assert next(content.iter_bytes()) == b"x" * 1000
        assert len(made) < 20
        content.close()
    asyncio.run_coroutine_threadsafe(asyncio.wait_for(ended.wait(), 5), gateway._loop).result()


def test_a_file_that_cannot_be_read_raises_its_own_error(opened):
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError("the disk is gone")

    with (
        Client(transport=opened(TinyGateway().app).blocking()) as client,
        pytest.raises(OSError, match="the disk is gone"),
    ):
        client.create_file(Broken(b"x"), api_key=KEY)


def test_a_gateway_that_fails_is_told_and_logged(opened, caplog):
    async def failing(scope, receive, send):
        raise RuntimeError("a bug")

    with (
        Client(transport=opened(failing).blocking(), max_retries=0) as client,
        pytest.raises(batchway.APIConnectionError),
    ):
        client.list_models()
    assert "a bug" in caplog.text


def test_an_answer_that_breaks_off_is_no_whole_answer(opened, caplog):
    async def breaking(request: Request) -> Response:
        async def pieces():
            yield b"x"
            raise RuntimeError("a bug")

        return StreamingResponse(pieces())

    gateway = opened(Starlette(routes=[Route("/v1/files/{id}/content", breaking)]))
    with Client(transport=gateway.blocking(), max_retries=0) as client, pytest.raises(batchway.APIConnectionError):
        client.file_content("file-x").read()


@pytest.mark.parametrize("flavour", ["blocking", "suspending"])
def test_silence_is_a_timeout(opened, flavour):
    async def silent(scope, receive, send):
        await asyncio.Event().wait()

    gateway = opened(silent)
    blocking = Client(transport=gateway.blocking(), max_retries=0)
    suspending = AsyncClient(transport=gateway.suspending(), max_retries=0)
    with pytest.raises(batchway.APITimeoutError):
        blocking.list_models(timeout=0.05) if flavour == "blocking" else asyncio.run(
            suspending.list_models(timeout=0.05)
        )


def test_what_hinders_the_start_is_raised_to_the_caller(opened):
    @asynccontextmanager
    async def start(settings: Settings):
        raise ConfigError("port: no")
        yield

    with pytest.raises(ConfigError, match="port: no"):
        local.LocalGateway(Settings(), start)


def test_a_stopped_gateway_is_told_as_one(opened):
    gateway = opened(TinyGateway().app)
    client = Client(transport=gateway.blocking(), max_retries=0)
    gateway.close()
    with pytest.raises(batchway.APIConnectionError, match="has stopped"):
        client.list_models()
