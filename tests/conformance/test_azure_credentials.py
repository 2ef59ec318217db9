"""Who the Azure provider says it is: keys, Entra ID clients, identities of the machine; and what it never tells."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.providers.azure.credentials import Client, Token, Tokens, from_identity
from batchway.providers.protocol import Tools
from tests.conformance.azure_simulated import Start, Trial, line, opened, start, tools

__all__ = ["start", "tools"]

MODEL = "gpt-4o-mini-batch"
CLIENT = {"tenant_id": "t", "client_id": "c", "client_secret": "very-secret"}


async def test_a_client_secret_buys_one_token_for_many_calls(
    start: Start, tools: Tools, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sim = start(api_key="nobody-has-it", **CLIENT)
    account = opened(tools, sim, api_key=None, authority=sim.url, **CLIENT)
    trial = Trial(account, [line(1)], model=MODEL)
    await trial.submit()
    await asyncio.gather(*(trial.look() for _ in range(5)))
    assert trial.native._dealer.authorize.__self__._token.ends_at > time.time()
    assert "very-secret" not in caplog.text
    assert "simulated." not in caplog.text
    assert "very-secret" not in repr(Client(**CLIENT))
    assert "abc" not in repr(Token("abc", 0))


async def test_tokens_are_renewed_before_their_end_and_a_good_one_survives_an_outage() -> None:
    now, asked, broken = [0.0], [0], [False]

    async def ask() -> Token:
        asked[0] += 1
        if broken[0]:
            raise ProviderError("away", fault=Fault.TRANSIENT)
        return Token(f"token{asked[0]}", now[0] + 3_600)

    held = Tokens(ask, lambda: now[0])
    first = await asyncio.gather(*(held.headers() for _ in range(10)))
    assert (asked[0], first[0]) == (1, {"authorization": "Bearer token1"})
    now[0] = 3_299
    await held.headers()
    assert asked[0] == 1
    now[0], broken[0] = 3_400, True
    assert await held.headers() == first[0]
    now[0] = 3_601
    with pytest.raises(ProviderError):
        await held.headers()
    broken[0] = False
    assert (await held.headers())["authorization"].startswith("Bearer token")


async def test_a_wrong_secret_is_denied_without_being_told(start: Start, tools: Tools) -> None:
    sim = start(**CLIENT)
    for wrong in ({"client_secret": "wrong-secret"}, {"tenant_id": "elsewhere"}):
        account = opened(tools, sim, api_key=None, authority=sim.url, **{**CLIENT, **wrong})
        with pytest.raises(ProviderError) as denied:
            await Trial(account, [line(1)], model=MODEL).submit()
        assert denied.value.fault is Fault.DENIED
        assert "secret" not in denied.value.message


@pytest.fixture
async def identity_service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """App Service's endpoint of managed identities, which azure-identity finds by its variables."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        ends = int(time.time()) + 7_200
        answer = {"access_token": "from-the-machine", "expires_on": str(ends), "resource": "r", "token_type": "Bearer"}
        body = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "proof")
        yield seen


async def test_a_managed_identity_asks_the_machine(identity_service: list[bytes]) -> None:
    pytest.importorskip("azure.identity", reason="azure-identity is an optional extra")
    token = await from_identity("managed", "mine", "https://cognitiveservices.azure.com/.default")()
    assert token.value == "from-the-machine"
    assert token.ends_at > time.time()
    (asked,) = identity_service
    assert b"resource=https" in asked
    assert b"client_id=mine" in asked


async def test_a_machine_without_an_identity_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.identity", reason="azure-identity is an optional extra")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ProviderError) as denied:
        await from_identity("workload", None, "scope/.default")()
    assert denied.value.fault is Fault.DENIED
