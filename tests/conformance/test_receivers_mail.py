"""E-mail, told against a real SMTP server: plain, STARTTLS and TLS, with a password."""

from __future__ import annotations

import asyncio
import email
import ipaddress
import re
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from batchway.core.events import EventType
from batchway.integrations import email as mail
from batchway.integrations.protocol import ReceiverError
from batchway.testing.receiver_ground import ReceiverGround, Trouble, ends, event
from batchway.testing.receiver_suite import ReceiverSuite
from tests.conformance.receiving import Proxy

PASSWORD = "the-password-of-the-mail"
EVENT_ID = re.compile(r"^  event: (evt_\w+)", re.MULTILINE)


class Mailbox:
    """What aiosmtpd calls; `trouble` is answered to the content of a mail."""

    def __init__(self) -> None:
        self.trouble: Trouble = ""
        self.mails: list[bytes] = []
        self.users: list[str] = []
        self.refused: tuple[str, ...] = ()

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd looks for
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address in self.refused:
            return "550 5.1.1 nobody"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.trouble == "busy":
            return "451 4.3.0 later"
        if self.trouble == "refuses":
            return "554 5.6.0 never this"
        self.mails.append(envelope.content)
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        if data.password != PASSWORD.encode():
            return AuthResult(success=False, handled=False)
        self.users.append(data.login.decode())
        return AuthResult(success=True)


@pytest.fixture
async def box():
    return Mailbox()


async def served(box: Mailbox, **options: Any) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    tls = options.pop("ssl", None)

    def protocol() -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it does not see that the whole connection is TLS
            return SMTP(box, loop=loop, **options)

    return await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls)


def port_of(server: asyncio.Server) -> int:
    return server.sockets[0].getsockname()[1]


class MailGround(ReceiverGround):
    patience = 2.0

    def __init__(self, box: Mailbox, proxy: Proxy) -> None:
        self.box, self.proxy = box, proxy
        options = mail.Options(
            host="127.0.0.1", port=proxy.port, sender="gateway@example.com", to=("ops@example.com",),
            security="none", timeout=1.5,
        )  # fmt: skip
        self.open = lambda: mail.open_receiver("mail", options, None)  # pyright: ignore[reportArgumentType]
        self.receiver = self.open()

    async def taken(self, wanted: int) -> list[str]:
        return [found for sent in self.box.mails for found in EVENT_ID.findall(text_of(sent))]

    async def disturb(self, how: Trouble) -> None:
        self.box.trouble = how
        await self.proxy.disturb(how if how in ("away", "hangs") else "")

    async def reopened(self):
        return self.open()


def parsed(sent: bytes) -> Any:
    return email.message_from_bytes(sent, policy=email.policy.default)


def text_of(sent: bytes) -> str:
    return parsed(sent).get_content()


class TestEmail(ReceiverSuite):
    gaps = {"test_a_busy_peer_is_given_the_time_it_asks_for": "SMTP has no word for it"}  # noqa: RUF012

    @pytest.fixture
    async def ground(self, box: Mailbox):
        server = await served(box)
        proxy = Proxy(port_of(server))
        await proxy.start()
        yield MailGround(box, proxy)
        await proxy.stop()
        server.close()


def options(**changes: Any) -> mail.Options:
    said = {"host": "127.0.0.1", "sender": "gateway@example.com", "to": ["ops@example.com"], "security": "none"}
    return mail.Options(**(said | changes))


def told(*events: Any) -> Any:
    return parsed(mail.digest(events, options()).as_bytes())


def test_a_digest_names_the_first_and_tells_all() -> None:
    events = [event(EventType.BATCH_FAILED, "batch_1"), *ends(2)]
    message = told(*events)
    assert message["Subject"] == "[Batchway] Batch batch_1 is failed (12 lines, /v1/chat/completions) (and 2 more)"
    assert EVENT_ID.findall(message.get_content()) == [one.id for one in events]
    assert "why: Line 3 is bad." in message.get_content()
    assert message["To"] == "ops@example.com"


def test_a_repeat_is_the_same_message() -> None:
    events = ends(3)
    assert told(*events)["Message-ID"] == told(*events)["Message-ID"]
    assert told(*events)["Message-ID"] != told(*events[:2])["Message-ID"]
    assert told(events[0])["Message-ID"] == f"<{events[0].id}@example.com>"


def test_nothing_that_a_client_wrote_becomes_a_header() -> None:
    wild = event(EventType.BATCH_COMPLETED, "batch_1\r\nBcc: x@example.com", endpoint="/v1\nX-Evil: 1")
    message = told(wild)
    assert set(message.keys()) == {
        "Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert "Bcc: x@example.com" in message["Subject"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"to": []}, "at least one address"),
        ({"to": ["ops@example.com\r\nBcc: x@example.com"]}, "is not an e-mail address"),
        ({"sender": "gateway"}, "is not an e-mail address"),
        ({"subject_prefix": "a\nb"}, "subject_prefix"),
        ({"host": "mail.example.com", "username": "u", "password": "p"}, "over TLS only"),
        ({"username": "u"}, "both or neither"),
    ],
)
def test_what_cannot_be_mailed_is_refused_at_the_start(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        options(**changes)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and a certificate of 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    return folder / "cert.pem", folder / "key.pem"


def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(*certificate)
    return made


@pytest.fixture(params=["starttls", "tls"])
async def secured(request, box: Mailbox, certificate: tuple[Path, Path]):
    """The options for a server that wants TLS and a password."""
    asks = {"authenticator": box.authenticate, "auth_required": True}
    if request.param == "tls":
        server = await served(box, ssl=context(certificate), auth_require_tls=False, **asks)
    else:
        server = await served(box, tls_context=context(certificate), require_starttls=True, **asks)
    yield {"port": port_of(server), "security": request.param, "username": "gateway", "ca_file": str(certificate[0])}
    server.close()


async def test_mail_goes_over_tls_with_a_password(box: Mailbox, secured: dict[str, Any]) -> None:
    receiver = mail.Email("mail", options(password=PASSWORD, **secured))
    await receiver.tell(ends(1))
    assert (len(box.mails), box.users) == (1, ["gateway"])


async def test_a_wrong_password_is_told_later_for_it_can_be_mended(box: Mailbox, secured: dict[str, Any]) -> None:
    receiver = mail.Email("mail", options(password="wrong-password", **secured))
    with pytest.raises(ReceiverError) as caught:
        await receiver.tell(ends(1))
    assert not caught.value.permanent
    assert "refuses the credentials (535)" in caught.value.message
    assert "wrong-password" not in caught.value.message


async def test_a_server_that_nobody_vouches_for_gets_no_mail(box: Mailbox, secured: dict[str, Any]) -> None:
    receiver = mail.Email("mail", options(password=PASSWORD, **(secured | {"ca_file": None})))
    with pytest.raises(ReceiverError, match="SSLCertVerificationError") as caught:
        await receiver.tell(ends(1))
    assert not caught.value.permanent
    assert not box.mails


async def test_one_refused_address_does_not_cost_the_others_their_mail(
    box: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    server = await served(box)
    box.refused = ("gone@example.com",)
    both = options(port=port_of(server), to=["gone@example.com", "ops@example.com"])
    await mail.Email("mail", both).tell(ends(1))
    assert len(box.mails) == 1
    assert "1 of 2 addresses were refused" in caplog.text
    with pytest.raises(ReceiverError, match="550") as caught:
        await mail.Email("mail", options(port=port_of(server), to=["gone@example.com"])).tell(ends(1))
    assert caught.value.permanent
    server.close()
