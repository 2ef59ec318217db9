"""The shipped provider suite over everything registered: a new folder or row is found here without an edit.

A kind runs against the simulator in its own folder; rows of compatible.toml speak OpenAI's API and run against that
one. A kind with neither, or without a native lane, must say why in `WITHOUT`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest

from batchway.http import Http
from batchway.providers import registry
from batchway.providers.compatible import Row
from batchway.providers.protocol import Tools
from batchway.storage import LocalStorage

pytest.register_assert_rewrite("batchway.testing.provider_suite")

from batchway.testing.provider_suite import Ground, ProviderSuite  # noqa: E402 - or its assertions would say nothing

KEY = "sk-conformance"
SPOKEN_BY_ROWS = "openai"
MODEL = {"openai": "gpt-4o-mini"}
WITHOUT = {
    "openai_compatible": "an endpoint without a batch API: its lane is the executor, whose contract is proved with a "
    "real engine in tests/stages/test_executor.py and tests/stages/test_executor_crash.py",
}
# By kind and test: what a provider cannot do, and why.
GAPS: dict[str, dict[str, str]] = {}


def folder_of(kind: str) -> str | None:
    """The provider folder whose simulator speaks this kind's API."""
    opener = registry.kinds()[kind]
    if isinstance(opener, Row):
        return SPOKEN_BY_ROWS
    folder = opener.__name__.split(".")[-2]
    return folder if find_spec(f"batchway.providers.{folder}.simulator") else None


SIMULATED = sorted(kind for kind in registry.kinds() if folder_of(kind))


class Simulator:
    """A provider's simulator as a child process: what it prints last is the address that an entry names."""

    def __init__(self, folder: str, state: Path) -> None:
        command = [sys.executable, "-m", f"batchway.providers.{folder}.simulator"]
        options = ["--port", "0", "--api-key", KEY, "--state-dir", str(state), "--retry-after", "0"]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().split()[-1]
        self._root = "/".join(self.base_url.split("/")[:3])

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
        body = json.dumps({"id": name, "status": "pondering", "request_counts": None}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.parametrize("kind", SIMULATED)
class TestEverythingRegistered(ProviderSuite):
    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest, kind: str) -> None:
        if reason := GAPS.get(kind, {}).get(request.node.originalname):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    async def ground(self, kind: str, simulators: dict[str, Simulator], tools: Tools, puzzling: str) -> Ground:
        simulator = simulators[folder_of(kind) or ""]

        def account(base_url: str, key: str = KEY):
            return registry.open_accounts({kind: {"api_key": key, "base_url": base_url}}, tools)[0]

        return Ground(
            account=account(simulator.base_url),
            denied=account(simulator.base_url, "sk-wrong"),
            puzzled=account(puzzling),
            model=MODEL.get(kind, "some-model"),
            passes=simulator.passes,
            disturb=simulator.disturb,
        )


def test_every_kind_is_on_trial_or_says_why_not() -> None:
    assert set(registry.kinds()) == {*SIMULATED, *WITHOUT}
    assert all(WITHOUT.values())


def test_gaps_are_gaps_of_something_there_is() -> None:
    tests = {name for name in dir(ProviderSuite) if name.startswith("test_")}
    for kind, gaps in GAPS.items():
        assert kind in SIMULATED
        assert set(gaps) <= tests
        assert all(gaps.values())
