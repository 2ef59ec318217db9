"""The shipped provider suite over everything registered: a new folder or row is found here without an edit.

A kind runs against the simulator in its own folder; rows of compatible.toml speak OpenAI's API and run against that
one. A kind with neither, or without a native lane, must say why in `WITHOUT`. A folder may hold `trial.toml`:

    model = "a-model"                  a name that the simulator takes, when it does not take any
    [gaps]
    test_a_lost_submit_is_found = "why the provider cannot do it, and where that is read"
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import JobSpec, Look, Route, Span
from batchway.http import Http
from batchway.providers import registry
from batchway.providers.compatible import Row
from batchway.providers.protocol import Account, Tools
from batchway.storage import LocalStorage

pytest.register_assert_rewrite("batchway.testing.provider_suite")

from batchway.testing.provider_suite import Ground, ProviderSuite  # noqa: E402 - or its assertions would say nothing

KEY = "sk-conformance"
SPOKEN_BY_ROWS = "openai"
MODEL = "gpt-4o-mini"
SECRETS, ADDRESSES = ("api_key", "access_token"), ("base_url", "endpoint")  # what entries call them
WITHOUT = {
    "openai_compatible": "an endpoint without a batch API: its lane is the executor, whose contract is proved with a "
    "real engine in tests/stages/test_executor.py and tests/stages/test_executor_crash.py",
}


def folder_of(kind: str) -> str | None:
    """The provider folder whose simulator speaks this kind's API."""
    opener = registry.kinds()[kind]
    if isinstance(opener, Row):
        return SPOKEN_BY_ROWS
    folder = opener.__name__.split(".")[-2]
    return folder if find_spec(f"batchway.providers.{folder}.simulator") else None


def trial_of(kind: str) -> dict[str, Any]:
    path = registry.FOLDER / (folder_of(kind) or "") / "trial.toml"
    return tomllib.loads(path.read_text()) if path.exists() else {}


SIMULATED = sorted(kind for kind in registry.kinds() if folder_of(kind))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class Simulator:
    """A provider's simulator as a child process; `entry` is what it prints to point a gateway at it."""

    def __init__(self, folder: str, state: Path) -> None:
        command = [sys.executable, "-m", f"batchway.providers.{folder}.simulator", "--port", str(free_port())]
        printed = subprocess.run([*command, "--print-config"], capture_output=True, check=True, timeout=60).stdout
        ((_, self.entry),) = json.loads(printed).items()
        self.secret = next(name for name in SECRETS if name in self.entry)
        self.address = next(name for name in ADDRESSES if name in self.entry)
        self.entry[self.secret] = KEY
        options = [f"--{self.secret.replace('_', '-')}", KEY, "--state-dir", str(state)]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline()  # it listens
        self._root = "/".join(self.entry[self.address].split("/")[:3])

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    async def passes(self, seconds: float) -> None:
        await asyncio.to_thread(self._tell, "/_sim/advance", {"seconds": seconds})

    async def disturb(self, spec: str) -> None:
        await asyncio.to_thread(self._tell, "/_sim/faults", {"spec": spec})

    def _tell(self, path: str, body: Any) -> None:
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(self._root + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            answer.read()


@pytest.fixture(scope="module")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Simulator]]:
    """One a folder, started when first asked for."""

    class Started(dict[str, Simulator]):
        def __missing__(self, folder: str) -> Simulator:
            self[folder] = Simulator(folder, tmp_path_factory.mktemp(folder))
            return self[folder]

    started = Started()
    yield started
    for simulator in started.values():
        simulator.close()


@pytest.fixture
async def tools(tmp_path: Path) -> AsyncIterator[Tools]:
    async def no_sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    http = Http(user_agent="batchway-test", random=Random(1), sleep=no_sleep)
    storage = LocalStorage(tmp_path / "files", durable=False)
    yield Tools(http=http, storage=storage, clock=lambda: 0.0, random=Random(1))
    await http.close()
    await storage.close()


@pytest.fixture
async def puzzling() -> AsyncIterator[str]:
    """A server for which every batch is in a state that nobody has heard of."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).split()
        name = head[1].decode().rsplit("/", 1)[-1]
        words = {"id": name, "name": name, "status": "pondering", "state": "PONDERING", "request_counts": None}
        body = json.dumps(words).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("kind", SIMULATED)
class TestEverythingRegistered(ProviderSuite):
    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest, kind: str) -> None:
        if reason := trial_of(kind).get("gaps", {}).get(request.node.originalname):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    async def ground(self, kind: str, simulators: dict[str, Simulator], tools: Tools, puzzling: str) -> Ground:
        simulator = simulators[folder_of(kind) or ""]

        def account(**changes: str) -> Account:
            return registry.open_accounts({kind: simulator.entry | changes}, tools)[0]

        return Ground(
            account=account(),
            denied=account(**{simulator.secret: "wrong"}),
            puzzled=account(**{simulator.address: puzzling}),
            model=trial_of(kind).get("model", MODEL),
            passes=simulator.passes,
            disturb=simulator.disturb,
        )


@pytest.fixture
async def answering() -> AsyncIterator[Callable[[int, bytes], Awaitable[str]]]:
    """Servers that answer everything with one status and one body."""
    async with AsyncExitStack() as stack:

        async def start(status: int, body: bytes) -> str:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 %d X\r\nconnection: close\r\n" % status)
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
                writer.close()
                await writer.wait_closed()

            server = await stack.enter_async_context(await asyncio.start_server(serve, "127.0.0.1", 0))
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start


def job(remote_id: str = "batch_1") -> JobSpec:
    span = Span(file_key="f", start=0, end=1, first_line=1, models=frozenset())
    return JobSpec(
        id="job_1", batch_id="b", token="t", route=Route(account="groq", model="m"), endpoint="/v1/chat/completions",
        span=span, lines=1, bytes=1, window=86400, deadline=4e9, remote_id=remote_id,
    )  # fmt: skip


@pytest.mark.parametrize("body", [b"<html>a proxy's page</html>", b"[]", b'{"id": 7}', b""])
async def test_an_answer_of_another_form_is_a_passing_fault_of_the_provider(
    answering, tools: Tools, body: bytes
) -> None:
    address = await answering(200, body)
    (account,) = registry.open_accounts({"groq": {"api_key": KEY, "base_url": address}}, tools)
    look = Look(remote_id="batch_1", results=("file-1",))
    for call in (account.native.look(job()), account.native.find(job()), account.list_models()):
        with pytest.raises(ProviderError) as failed:
            await call
        assert failed.value.fault is Fault.TRANSIENT
        assert "proxy" not in failed.value.message
    if body:
        with pytest.raises(ProviderError):
            [window async for window in account.native.answers(job(), look, None)]


async def test_nothing_is_left_to_clean_of_a_job_that_the_provider_has_forgotten(answering, tools: Tools) -> None:
    address = await answering(404, b"{}")
    (account,) = registry.open_accounts({"groq": {"api_key": KEY, "base_url": address}}, tools)
    await account.native.clean(job(), Look(remote_id="batch_1", results=("file-1",)))


def test_every_kind_is_on_trial_or_says_why_not() -> None:
    assert set(registry.kinds()) == {*SIMULATED, *WITHOUT}
    assert all(WITHOUT.values())


@pytest.mark.parametrize("kind", SIMULATED)
def test_gaps_are_gaps_of_something_there_is(kind: str) -> None:
    tests = {name for name in dir(ProviderSuite) if name.startswith("test_")}
    gaps = trial_of(kind).get("gaps", {})
    assert set(gaps) <= tests
    assert all(gaps.values())
