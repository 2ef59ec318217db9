from __future__ import annotations

import asyncio
import gzip
import io
import re
import socket
import ssl
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from multipart import MultipartParser, parse_options_header

from batchway.core.errors import Fault
from batchway.core.refusal import refusal
from batchway.core.retry import NO_RETRY, ONCE, SAFE, Retry
from batchway.http import FilePart, Http, NotSent
from tests.unit.http_peer import (
    Answer,
    Server,
    answer,
    cut,
    failure,
    free_url,
    http,
    reset,
    server,
    silent,
    stopping_after,
    waits,
)

__all__ = ["http", "server", "waits"]


async def test_a_request_arrives_as_written(http: Http, server: Server) -> None:
    server.script = [answer(201, b"made", X_Request_Id="abc")]
    reply = await http.request(
        "POST", server.url, headers={"authorization": "Bearer k"}, query={"a": "b c", "n": 1}, json=b"{}", timeout=5
    )
    assert (reply.status, reply.body, reply.headers["x-request-id"]) == (201, b"made", "abc")
    head = server.heads[0].lower()
    assert head.startswith("post /v1/things?a=b+c&n=1 http/1.1")
    assert "authorization: bearer k" in head
    assert "content-type: application/json" in head
    assert "user-agent: batchway/test" in head
    assert server.bodies == [b"{}"]


async def test_a_streamed_body_is_opened_again_for_a_repeat(http: Http, server: Server) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 100_000

    server.script = [answer(503), answer()]
    await http.request("PUT", server.url, body=source, timeout=5)
    assert server.bodies == [b"x" * 300_000] * 2


async def test_a_declared_length_of_a_streamed_body_is_sent(http: Http, server: Server) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    server.script = [answer()]
    await http.request("PUT", server.url, headers={"content-length": "6"}, body=source, timeout=5)
    assert "content-length: 6" in server.heads[0].lower()
    assert "transfer-encoding" not in server.heads[0].lower()
    assert server.bodies == [b"abcdef"]


async def test_an_error_of_a_body_is_the_callers_own(http: Http, server: Server) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ZeroDivisionError

    server.script = [answer()]
    with pytest.raises(ZeroDivisionError):
        await http.request("PUT", server.url, body=source, timeout=5)


@pytest.mark.parametrize("size", [None, 500_000])
async def test_a_multipart_upload_streams_its_file(http: Http, server: Server, size: int | None) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"y" * 100_000

    server.script = [answer(200, b'{"id": "file-1"}')]
    part = FilePart("file", "in put.jsonl", "application/jsonl", source, size)
    reply = await http.upload_multipart(server.url, fields={"purpose": "batch"}, file=part, timeout=5)
    assert reply.body == b'{"id": "file-1"}'
    found = server.heads[0].lower()
    assert ("content-length" in found) == (size is not None)
    _, options = parse_options_header(re.findall(r"(?i)content-type: (.*)\r", server.heads[0])[0])
    body = io.BytesIO(server.bodies[0])
    parts = {part.name: part for part in MultipartParser(body, options["boundary"], spool_limit=1_000_000)}
    assert parts["purpose"].value == "batch"
    assert (parts["file"].filename, parts["file"].content_type) == ("in put.jsonl", "application/jsonl")
    assert parts["file"].raw == b"y" * 500_000


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, Fault.REJECTED),
        (401, Fault.DENIED),
        (403, Fault.DENIED),
        (404, Fault.REJECTED),
        (408, Fault.TRANSIENT),
        (429, Fault.THROTTLED),
        (500, Fault.TRANSIENT),
        (502, Fault.LOST),
        (503, Fault.TRANSIENT),
        (504, Fault.LOST),
    ],
)
async def test_each_status_has_its_fault(http: Http, server: Server, status: int, fault: Fault) -> None:
    server.script = [answer(status, b'{"error": {"code": "a_code", "message": "SECRET"}}')]
    error = await failure(http.request("POST", server.url + "?key=SECRET", json=b"SECRET", timeout=5))
    assert (error.fault, error.status, error.code) == (fault, status, "a_code")
    assert error.message == f"POST {server.url.removeprefix('http://')}: status {status}, 50 bytes"
    assert "SECRET" not in "".join(traceback.format_exception(error))
    assert len(server.heads) == 1  # not idempotent: nothing that was sent is repeated


async def test_statuses_the_caller_knows_are_no_errors(http: Http, server: Server) -> None:
    server.script = [answer(404, b"none")]
    assert (await http.request("GET", server.url, timeout=5, ok={200, 404})).body == b"none"


async def test_redirects_are_not_followed(http: Http, server: Server) -> None:
    server.script = [answer(302, location=server.url)]
    error = await failure(http.request("GET", server.url, timeout=5))
    assert (error.fault, error.status, len(server.heads)) == (Fault.REJECTED, 302, 1)


@pytest.mark.parametrize("first", [answer(500), answer(429), answer(502), cut, reset, silent])
async def test_an_idempotent_call_is_repeated(http: Http, server: Server, first: bytes | Answer) -> None:
    server.script = [first, answer(200, b"ok")]
    assert (await http.request("GET", server.url, timeout=0.5)).body == b"ok"
    assert len(server.heads) == 2


@pytest.mark.parametrize("first", [cut, reset, silent, stopping_after(b"HTTP/1.1 200 OK\r\ncontent-le")])
@pytest.mark.parametrize("retry", [NO_RETRY, ONCE])
async def test_a_submit_without_an_answer_is_lost_and_never_repeated(
    http: Http, server: Server, first: Answer, retry: Retry
) -> None:
    server.script = [first, answer()]
    error = await failure(http.request("POST", server.url + "?key=SECRET", json=b"{}", timeout=0.5, retry=retry))
    assert error.fault is Fault.LOST
    assert not error.retryable
    assert len(server.heads) == 1
    assert "SECRET" not in "".join(traceback.format_exception(error))


async def test_a_submit_whose_answer_breaks_off_is_lost(http: Http, server: Server) -> None:
    server.script = [stopping_after(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")]
    assert (await failure(http.request("POST", server.url, json=b"{}", timeout=5))).fault is Fault.LOST


async def test_what_never_left_is_repeated_even_when_not_idempotent(http: Http, waits: list[float]) -> None:
    error = await failure(http.request("POST", free_url(), json=b"{}", timeout=5))
    assert isinstance(error, NotSent)
    assert (error.fault, len(waits)) == (Fault.TRANSIENT, ONCE.attempts - 1)
    assert "refused" in error.message
    shown = "".join(traceback.format_exception(error))
    assert "SECRET" not in shown
    assert "after 4 of 4 attempts" in shown


async def test_an_unknown_host_and_an_untrusted_certificate_were_never_sent(http: Http, tmp_path: Path) -> None:
    assert isinstance(await failure(http.post("http://none.invalid/", {}, b"", 5)), NotSent)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    listening = await asyncio.start_server(Server(), "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    error = await failure(http.request("GET", f"https://127.0.0.1:{port}/", timeout=5, retry=NO_RETRY))
    assert isinstance(error, NotSent)
    assert "certificate" in error.message
    listening.close()


async def test_a_connection_that_does_not_come_in_time_was_never_sent() -> None:
    client = Http(user_agent="x", random=Random(1), connect_timeout=0.1)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        error = await failure(client.post(f"http://127.0.0.1:{full.getsockname()[1]}/", {}, b"", 5))
        assert isinstance(error, NotSent)
        for one in waiting:
            one.close()
    await client.close()


async def test_waits_grow_with_jitter_up_to_the_cap(http: Http, server: Server, waits: list[float]) -> None:
    server.script = [answer(500)] * 6
    retry = Retry(idempotent=True, attempts=6, base=1.0, cap=4.0)
    await failure(http.request("GET", server.url, timeout=5, retry=retry))
    assert len(waits) == 5
    assert all(0 <= wait <= limit for wait, limit in zip(waits, [1, 2, 4, 4, 4], strict=True))
    assert len(set(waits)) == 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:30 GMT"}, 0),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "nonsense"}, None),
        ({"retry_after_ms": "inf"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read_in_each_form(
    http: Http, server: Server, headers: dict[str, str], seconds: float | None
) -> None:
    server.script = [answer(429, **headers)]
    error = await failure(http.request("POST", server.url, timeout=5))
    assert (error.fault, error.retry_after) == (Fault.THROTTLED, seconds)


async def test_retry_after_is_obeyed(http: Http, server: Server, waits: list[float]) -> None:
    server.script = [answer(429, retry_after="7"), answer(503, retry_after_ms="2000"), answer()]
    await http.request("GET", server.url, timeout=5)
    assert [int(wait) for wait in waits] == [7, 2]


async def test_a_wait_beyond_the_total_is_left_to_the_caller(http: Http, server: Server, waits: list[float]) -> None:
    server.script = [answer(429, retry_after="3600")]
    error = await failure(http.request("GET", server.url, timeout=5))
    assert (error.retry_after, waits, len(server.heads)) == (3600, [], 1)


async def test_a_longer_answer_than_allowed_is_refused(http: Http, server: Server) -> None:
    server.script = [answer(200, b"x" * 1001), answer(200, b"x" * 1000), answer(200, b"x" * 1001)]
    error = await failure(http.request("GET", server.url, timeout=5, max_body=1000))
    assert error.fault is Fault.REJECTED
    assert len((await http.request("GET", server.url, timeout=5, max_body=1000)).body) == 1000
    error = await failure(http.request("POST", server.url, timeout=5, max_body=1000))
    assert error.fault is Fault.LOST


async def test_a_small_answer_that_unpacks_to_a_large_one_is_refused(http: Http, server: Server) -> None:
    server.script = [answer(200, gzip.compress(bytes(50_000_000)), content_encoding="gzip")]
    error = await failure(http.request("GET", server.url, timeout=5, retry=NO_RETRY))
    assert "longer than 4194304 bytes" in error.message


async def test_a_header_that_is_not_text_does_not_cost_the_answer(http: Http, server: Server) -> None:
    server.script = [b"HTTP/1.1 200 OK\r\nX-A: \xe9\r\nX-B: b\r\ncontent-length: 2\r\n\r\nok"]
    reply = await http.post(server.url, {}, b"", 5)
    assert (reply.body, reply.headers) == (b"ok", {"x-b": "b", "content-length": "2"})


@pytest.mark.parametrize("url", ["/relative", "ftp://x/y", "http://", "ht!tp://SECRET"])
async def test_a_request_that_cannot_be_is_rejected(http: Http, url: str) -> None:
    for call in (http.request("GET", url + "?SECRET", timeout=5), http.post(url + "?SECRET", {}, b"", 5)):
        assert (await failure(call)).fault is Fault.REJECTED
    error = await failure(http.post("http://127.0.0.1:1/", {"authorization": "SECRET\n"}, b"", 5))
    assert error.fault is Fault.REJECTED
    assert "SECRET" not in "".join(traceback.format_exception(error))


async def test_a_post_returns_every_status_and_is_tried_once(http: Http, server: Server, waits: list[float]) -> None:
    server.script = [answer(200, b"ok"), answer(429, b"busy", retry_after="1"), answer(500)]
    replies = [await http.post(server.url, {"authorization": "Bearer k"}, b"body", 5) for _ in range(3)]
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"ok"), (429, b"busy"), (500, b"")]
    assert server.bodies == [b"body"] * 3
    assert waits == []
    error = refusal("POST x", replies[1].status, replies[1].headers, replies[1].body)
    assert (error.fault, error.retry_after) == (Fault.THROTTLED, 1)


@pytest.mark.parametrize("first", [cut, reset, silent])
async def test_a_post_without_an_answer_is_lost(http: Http, server: Server, first: Answer) -> None:
    server.script = [first]
    assert (await failure(http.post(server.url, {}, b"", 0.3))).fault is Fault.LOST


async def test_a_cancelled_call_ends_at_once(http: Http, server: Server) -> None:
    server.script = [silent]
    task = asyncio.create_task(http.post(server.url, {}, b"", 30))
    await server.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
async def test_a_proxy_of_the_environment_is_used_but_not_for_loopback(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for old in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(old, raising=False)
        monkeypatch.delenv(old.upper(), raising=False)
    proxy = Server()
    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.setenv(name, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "spared.invalid")
    client = Http(user_agent="x", random=Random(1))
    server.script = [answer(200, b"direct")]
    proxy.script = [answer(200, b"proxied")]
    assert (await client.post(server.url, {}, b"", 5)).body == b"direct"
    assert (await client.post("http://api.invalid/x", {}, b"", 5)).body == b"proxied"
    assert proxy.heads[0].startswith("POST http://api.invalid/x ")
    assert isinstance(await failure(client.post("http://spared.invalid/", {}, b"", 5)), NotSent)
    await client.close()
    listening.close()


async def test_the_retry_presets_are_what_they_say() -> None:
    assert (NO_RETRY.attempts, ONCE.idempotent, SAFE.idempotent) == (1, False, True)


def self_signed(folder: Path) -> Path:
    """A PEM file with a key and a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
