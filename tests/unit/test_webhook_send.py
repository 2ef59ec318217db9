"""Messages over real connections to endpoints that misbehave in every way, and to one behind a name that moves."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from standardwebhooks import Webhook

from batchway.integrations.webhook.guard import Guard
from batchway.integrations.webhook.send import Message, Messenger
from batchway.integrations.webhook.sign import Secret, new_secret
from tests.unit.certificates import authority
from tests.unit.http_peer import Server, answer

SECRET = new_secret()
BODY = b'{"id":"evt_1","type":"webhook.test"}'
PATIENCE = 20.0  # seconds for a try that succeeds on a busy machine
SHORT = 1.5  # for one that cannot succeed


async def here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@asynccontextmanager
async def open_server():
    """A peer at a name of its own; its connections end with the block, whatever they were doing."""
    made, open_ends = Server(), []

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ends.append((asyncio.current_task(), writer))
        await made(reader, writer)

    listening = await asyncio.start_server(exchange, "127.0.0.1", 0)
    made.url = f"http://hooks.example.com:{listening.sockets[0].getsockname()[1]}/path?key=hidden"
    try:
        yield made
    finally:
        listening.close()
        for task, writer in open_ends:
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*(task for task, _ in open_ends), return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in a callback


@pytest.fixture
async def server():
    async with open_server() as made:
        yield made


def port_of(server: Server) -> str:
    return server.url.split(":")[2].split("/")[0]


@pytest.fixture
async def messenger():
    made = Messenger(time.time, Guard(here), timeout=PATIENCE)
    yield made
    await made.close()


def message(url: str, *, allow_private: bool = True, turn: int = 0) -> Message:
    return Message(
        url=url, allow_private=allow_private, secrets=[Secret(SECRET)], event_id="evt_1", body=BODY, turn=turn
    )


async def test_a_message_arrives_signed_at_the_host_that_was_meant(server: Server, messenger: Messenger) -> None:
    server.script = [answer(204), answer(200, b"thanks")]
    assert (await messenger.send(message(server.url))).error is None
    assert (await messenger.send(message(server.url))).status == 200
    head = server.heads[0]
    assert head.startswith("POST /path?key=hidden HTTP/1.1\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])}
    assert headers["host"] == server.url.split("/")[2]
    assert headers["content-type"] == "application/json"
    Webhook(SECRET).verify(server.bodies[0], headers)


@pytest.mark.parametrize("status", [199, 300, 304, 400, 401, 404, 410, 429, 500, 503])
async def test_only_2xx_is_a_success(server: Server, messenger: Messenger, status: int) -> None:
    server.script = [answer(status, b"a secret body")]
    got = await messenger.send(message(server.url))
    if status == 199:  # an interim answer: the last one never comes
        assert got.status is None
    else:
        assert got.status == status
    assert got.error is not None
    assert "secret" not in got.error


async def test_a_redirect_into_the_own_network_is_not_followed(server: Server, messenger: Messenger) -> None:
    async with open_server() as inside:
        for status in (301, 302, 303, 307, 308):
            server.script = [answer(status, location=f"http://127.0.0.1:{port_of(inside)}/admin")]
            got = await messenger.send(message(server.url))
            assert (got.status, got.error) == (status, f"status {status} (a redirect; none is followed)")
        assert inside.heads == []


async def test_the_time_that_a_receiver_asks_for_is_read(server: Server, messenger: Messenger) -> None:
    server.script = [answer(429, retry_after="17"), answer(503, retry_after="soon")]
    assert (await messenger.send(message(server.url))).retry_after == 17
    assert (await messenger.send(message(server.url))).retry_after is None


async def forever(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def headers_by_drops(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-a: b\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def body_by_drops(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def interim_without_end(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def closes(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def rubbish(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff not HTTP at all\r\n\r\n")
    await writer.drain()


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-" + b"a" * 60_000 + b": b\r\n")
        await writer.drain()


@pytest.mark.parametrize("how", [forever, headers_by_drops, interim_without_end, closes, rubbish, endless_headers])
async def test_an_endpoint_that_gives_no_answer_is_given_up_in_time(
    server: Server, how: Callable[[asyncio.StreamWriter], Awaitable[None]]
) -> None:
    messenger = Messenger(time.time, Guard(here), timeout=SHORT)
    server.script = [how]
    async with asyncio.timeout(PATIENCE):
        got = await messenger.send(message(server.url))
    assert got.status is None
    assert got.error
    assert "hidden" not in got.error
    assert "hooks.example.com" not in got.error
    await messenger.close()


async def test_a_body_by_drops_does_not_hold_up_the_status(server: Server, messenger: Messenger) -> None:
    server.script = [body_by_drops]
    assert (await messenger.send(message(server.url))).error is None


async def test_of_ten_gigabytes_hardly_any_are_read(server: Server, messenger: Messenger) -> None:
    sent = 0

    async def ten_gigabytes(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n")
        for _ in range(10 * 1024):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            sent += 1

    server.script = [ten_gigabytes]
    assert (await messenger.send(message(server.url))).error is None
    assert sent < 50  # megabytes: what the system buffers


async def test_a_compressed_bomb_is_not_unpacked(server: Server, messenger: Messenger) -> None:
    import gzip

    bomb = gzip.compress(b"0" * (64 << 20))
    server.script = [answer(200, bomb, content_encoding="gzip")]
    began = time.process_time()
    assert (await messenger.send(message(server.url))).error is None
    assert time.process_time() - began < 1.0


async def test_an_endpoint_that_is_away_says_why(messenger: Messenger) -> None:
    got = await messenger.send(message("http://hooks.example.com:1/secret-path"))
    assert got.status is None
    assert "no connection" in got.error
    assert "secret-path" not in got.error


async def test_a_name_that_moves_between_check_and_connection_does_not_get_through(server: Server) -> None:
    """DNS rebinding: public when it is looked at, private a moment later. It is looked at once, by us."""
    server.script = [answer(200), answer(200)]
    asked = 0

    async def moving(host: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        return ["8.8.8.8" if asked % 2 else "127.0.0.1"]

    connected: list[str] = []

    class Watched(Messenger):
        def _line(self, place, address):
            connected.append(address)
            # In the place of the public address, one of this machine where nobody listens.
            return super()._line(place, "127.0.0.2")

    # `localhost` is this machine for everybody else: only the pin keeps the message away from the server.
    messenger = Watched(time.time, Guard(moving), timeout=PATIENCE)
    got = await messenger.send(message(f"https://localhost:{port_of(server)}/", allow_private=False))
    assert (got.status, connected, asked) == (None, ["8.8.8.8"], 1)
    got = await messenger.send(message(f"https://localhost:{port_of(server)}/", allow_private=False))
    assert (connected, asked) == (["8.8.8.8"], 2)  # the private answer: not even tried
    assert got.error.startswith("not sent")
    got = await messenger.send(message(f"http://localhost:{port_of(server)}/"))
    assert got.status is None
    assert server.heads == []
    await messenger.close()


async def test_a_connection_that_is_kept_is_not_used_for_another_address(server: Server) -> None:
    """The second try must not ride on a connection to where the name pointed before."""
    found = ["127.0.0.1"]

    async def moving(host: str, port: int) -> list[str]:
        return list(found)

    messenger = Messenger(time.time, Guard(moving), timeout=PATIENCE)
    server.script = [answer(200), answer(200)]
    assert (await messenger.send(message(server.url))).status == 200
    found[:] = ["127.0.0.2"]  # listens on nothing: the server is bound to 127.0.0.1 alone
    assert (await messenger.send(message(server.url))).status is None
    found[:] = ["127.0.0.1"]
    assert (await messenger.send(message(server.url))).status == 200
    await messenger.close()


async def test_tries_take_turns_among_the_addresses_of_a_host(server: Server) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    messenger = Messenger(time.time, Guard(two), timeout=PATIENCE)
    server.script = [answer(200)]
    assert (await messenger.send(message(server.url, turn=0))).status is None
    assert (await messenger.send(message(server.url, turn=1))).status == 200
    await messenger.close()


async def test_no_proxy_of_the_environment_carries_a_message(server: Server, monkeypatch) -> None:
    async with open_server() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port_of(proxy)}")
        messenger = Messenger(time.time, Guard(here), timeout=PATIENCE)
        server.script = [answer(200)]
        assert (await messenger.send(message(server.url))).status == 200
        assert proxy.heads == []
        await messenger.close()


async def test_over_tls_the_certificate_must_be_for_the_name_not_for_the_address(tmp_path, monkeypatch) -> None:
    signer = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(signer.certificate))
    named: list[str | None] = []

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(200, connection="close"))
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signer.issue("hooks.example.com"))
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    listening = await asyncio.start_server(exchange, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    messenger = Messenger(time.time, Guard(here), timeout=PATIENCE)
    got = await messenger.send(message(f"https://hooks.example.com:{port}/"))
    assert (got.status, got.error, named) == (200, None, ["hooks.example.com"])
    other = await messenger.send(message(f"https://other.example.com:{port}/"))
    assert other.status is None
    assert "no connection" in other.error
    await messenger.close()
    listening.close()


async def test_connections_to_many_hosts_are_not_all_kept(server: Server, messenger: Messenger, monkeypatch) -> None:
    monkeypatch.setattr("batchway.integrations.webhook.send.CLIENTS", 3)
    port = port_of(server)
    server.script = [answer(200) for _ in range(8)]
    for number in range(8):
        assert (await messenger.send(message(f"http://host-{number}.example.com:{port}/"))).status == 200
    assert len(messenger._lines) == 3


async def test_a_name_server_that_hangs_costs_one_try(server: Server) -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    messenger = Messenger(time.time, Guard(never), timeout=0.2)
    assert "no answer" in (await messenger.send(message(server.url))).error
    await messenger.close()
