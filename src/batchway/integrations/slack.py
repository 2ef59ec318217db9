"""Slack, by an incoming webhook: a readable part for each event, escaped, in one message for those that gathered.

Slack takes about one message a second from a webhook and answers 429 with Retry-After beyond, so what gathers meanwhile
goes into one message. Its errors: 400 for what it cannot read, 403, 404 and 410 for a webhook or channel that is gone
(api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks, read 2026-11-22). The URL is a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from batchway.core.events import Event
from batchway.integrations.posting import checked_url, post
from batchway.integrations.protocol import Receiver, Tools
from batchway.integrations.wording import NOTABLE, figures, headline

KIND = "slack"
EVENTS = NOTABLE

HEADERS = {"content-type": "application/json"}
LONGEST = 2900  # characters; Slack allows 3,000 in a section
MARKS = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})

encode = msgspec.json.Encoder().encode


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`url` is the incoming webhook's; `timeout` in seconds."""

    url: str
    timeout: float = 15.0

    def __post_init__(self) -> None:
        checked_url(self.url)


def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
    """The channel behind the entry's webhook."""
    return Slack(name, options, tools)


class Slack:
    """See the module."""

    window = 20  # a message has at most 50 blocks

    def __init__(self, name: str, options: Options, tools: Tools) -> None:
        self._name = name
        self._options = options
        self._http = tools.http

    async def tell(self, events: Sequence[Event]) -> None:
        """One message."""
        await post(self._http, self._name, self._options.url, HEADERS, message(events), self._options.timeout)

    async def close(self) -> None:
        """Nothing is held back."""


def message(events: Sequence[Event]) -> bytes:
    """The message; `text` is what notifications show, and a block's id is its event's."""
    more = f" (and {len(events) - 1} more)" if len(events) > 1 else ""
    return encode({"text": escaped(headline(events[0])) + more, "blocks": [_block(event) for event in events]})


def _block(event: Event) -> dict[str, Any]:
    told = "\n".join(f"{word}: {escaped(value)}" for word, value in figures(event))
    text = f"*{escaped(headline(event))}*\n{told}"[:LONGEST]
    return {"type": "section", "block_id": event.id, "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def escaped(text: str) -> str:
    """Text in which nothing is a mention, a link or a mark-up of Slack's.

    The three characters are those that docs.slack.dev names; an invisible word joiner keeps the others from marking up.
    """
    plain = text.translate(MARKS)
    return "".join(f"\u2060{letter}" if letter in "*_~`" else letter for letter in plain)
