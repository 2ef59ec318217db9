"""E-mail by SMTP: one message for the events that gathered, a digest when there are several.

It is sent by the standard library off the event loop. The Message-ID is drawn from the events' ids, so a repeat is the
same message to whoever drops repeats. Nothing of an event stands in a header but in the subject, which is one line of
printable characters. SMTP says what is permanent itself: codes 500 to 599; but bad credentials are the operator's to
mend, so they are tried again.
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as LINES
from email.utils import format_datetime
from hashlib import sha256
from typing import Literal

import msgspec

from batchway.core.events import Event
from batchway.integrations.protocol import Receiver, ReceiverError, Tools
from batchway.integrations.threads import in_thread
from batchway.integrations.wording import NOTABLE, figures, headline

log = logging.getLogger(__name__)

KIND = "email"
EVENTS = NOTABLE

PORTS = {"starttls": 587, "tls": 465, "none": 25}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`sender` and `to` are addresses, `security` says when TLS begins, `ca_file` names a CA; `timeout` in seconds."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    subject_prefix: str = "[Batchway]"
    timeout: float = 20.0

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("to: at least one address")
        for address in (self.sender, *self.to):
            _check(address)
        if not self.subject_prefix.isprintable():
            raise ValueError("subject_prefix: one line of printable characters")
        if self.username and self.security == "none" and self.host not in LOOPBACK:
            raise ValueError("security: a password is sent over TLS only; use starttls or tls")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password: both or neither")


def _check(address: str) -> None:
    try:
        parsed = Address(addr_spec=address)
    except (ValueError, IndexError):
        parsed = None
    if parsed is None or not address.isascii() or not address.isprintable() or not parsed.domain:
        raise ValueError(f"{address!r}: is not an e-mail address such as name@example.com")


def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
    """Mail to the entry's addresses."""
    return Email(name, options)


class Email:
    """See the module."""

    window = 50

    def __init__(self, name: str, options: Options) -> None:
        self._name = name
        self._options = options

    async def tell(self, events: Sequence[Event]) -> None:
        """One mail."""
        mail = digest(events, self._options)
        try:
            refused = await in_thread(lambda: _send(mail, self._options), f"receiver {self._name}")
            if refused:
                log.warning("receiver %s: %d of %d addresses were refused", self._name, refused, len(self._options.to))
            return
        except smtplib.SMTPAuthenticationError as error:
            failure = ReceiverError(f"{self._name}: the server refuses the credentials ({error.smtp_code})")
        except smtplib.SMTPResponseException as error:
            failure = _refusal(self._name, [error.smtp_code])
        except smtplib.SMTPRecipientsRefused as error:
            failure = _refusal(self._name, [code for code, _ in error.recipients.values()])
        except (smtplib.SMTPException, OSError) as error:
            failure = ReceiverError(f"{self._name}: the server cannot be reached: {type(error).__name__}")
        raise failure

    async def close(self) -> None:
        """Nothing is held back."""


def digest(events: Sequence[Event], options: Options) -> EmailMessage:
    """The mail about these events."""
    mail = EmailMessage(policy=LINES)
    more = f" (and {len(events) - 1} more)" if len(events) > 1 else ""
    mail["Subject"] = f"{options.subject_prefix} {headline(events[0])}{more}".strip()
    mail["From"] = options.sender
    mail["To"] = ", ".join(options.to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(events[-1].created_at, UTC))
    mail["Message-ID"] = message_id(events, options.sender)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n\n".join(_paragraph(event) for event in events) + "\n")
    return mail


def message_id(events: Sequence[Event], sender: str) -> str:
    """The same for the same events."""
    name = events[0].id if len(events) == 1 else sha256("\n".join(event.id for event in events).encode()).hexdigest()
    return f"<{name}@{sender.rpartition('@')[2]}>"


def _paragraph(event: Event) -> str:
    told = [f"  {word}: {value}" for word, value in figures(event)]
    return "\n".join([headline(event), *told, f"  event: {event.id}"])


def _send(mail: EmailMessage, options: Options) -> int:
    """How many addresses were refused, while others were not."""
    context = ssl.create_default_context(cafile=options.ca_file)
    place = (options.host, options.port or PORTS[options.security])
    if options.security == "tls":
        server = smtplib.SMTP_SSL(*place, timeout=options.timeout, context=context)
    else:
        server = smtplib.SMTP(*place, timeout=options.timeout)
    with server:
        if options.security == "starttls":
            server.starttls(context=context)
        if options.username is not None and options.password is not None:
            server.login(options.username, options.password)
        return len(server.send_message(mail))


def _refusal(name: str, codes: Sequence[int]) -> ReceiverError:
    permanent = all(500 <= code < 600 for code in codes)
    return ReceiverError(f"{name}: the server answered {', '.join(map(str, sorted(set(codes))))}", permanent=permanent)
