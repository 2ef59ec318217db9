"""The receivers that POST: the generic sink and Slack, told against a real HTTP server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchway.core.events import EventType
from batchway.integrations import http_sink, slack
from batchway.integrations.protocol import ReceiverError
from batchway.testing.receiver_ground import ReceiverGround, Trouble, ends, event
from batchway.testing.receiver_suite import ReceiverSuite
from tests.conformance.receiving import HttpPeer, opened_tools

TOKEN = "sk-token-of-the-sink"


@pytest.fixture
async def tools(tmp_path: Path):
    async with opened_tools(tmp_path) as made:
        yield made


@pytest.fixture
async def peer():
    made = HttpPeer()
    await made.start()
    yield made
    await made.stop()


class SinkGround(ReceiverGround):
    patience = 15.0
    secrets = (TOKEN, "path-key", "query-key")

    def __init__(self, peer: HttpPeer, tools, **options: Any) -> None:
        self.peer = peer
        url = f"{peer.url}/path-key/in?key=query-key"
        self.options = http_sink.Options(url=url, headers={"Authorization": f"Bearer {TOKEN}"}, lines=True, **options)
        self.open = lambda: http_sink.open_receiver("sink", self.options, tools)
        self.receiver = self.open()

    def elements(self) -> list[dict[str, Any]]:
        array = self.options.format == "json"
        bodies = [asked.body for asked in self.peer.asked]
        parsed = [json.loads(body) if array else [json.loads(line) for line in body.splitlines()] for body in bodies]
        return [element for elements in parsed for element in elements]

    async def taken(self, wanted: int) -> list[str]:
        return [one["id"] for one in self.elements() if one["type"] != "line"]

    async def lines_taken(self, wanted: int) -> list[tuple[str, int]]:
        return [(one["job_id"], one["number"]) for one in self.elements() if one["type"] == "line"]

    async def disturb(self, how: Trouble) -> None:
        await self.peer.disturb(how)

    async def reopened(self):
        return self.open()


class TestHttpSink(ReceiverSuite):
    @pytest.fixture(params=["json", "ndjson"])
    async def ground(self, request, tools, peer: HttpPeer):
        return SinkGround(peer, tools, format=request.param)


async def test_a_post_of_the_sink_has_at_most_as_many_bytes_as_wanted(tools, peer: HttpPeer) -> None:
    events = ends(20)
    size = len(json.dumps(SinkGround(peer, tools).options.headers)) + 4000
    ground = SinkGround(peer, tools, max_bytes=size)
    await ground.receiver.tell(events)
    assert len(peer.asked) > 1
    assert all(len(asked.body) <= size for asked in peer.asked)
    assert await ground.taken(20) == [one.id for one in events]


async def test_one_event_that_is_too_large_goes_alone(tools, peer: HttpPeer) -> None:
    ground = SinkGround(peer, tools, max_bytes=1)
    events = ends(3)
    await ground.receiver.tell(events)
    assert [len(json.loads(asked.body)) for asked in peer.asked] == [1, 1, 1]


async def test_a_repeated_post_of_the_sink_has_the_same_idempotency_key(tools, peer: HttpPeer) -> None:
    ground = SinkGround(peer, tools)
    events = ends(2)
    await ground.receiver.tell(events)
    await ground.receiver.tell(events)
    await ground.receiver.tell(ends(1))
    first, second, third = (asked.headers["idempotency-key"] for asked in peer.asked)
    assert first == second != third


@pytest.mark.parametrize("status", [401, 404, 410, 500])
async def test_a_wrong_address_or_key_is_told_later_for_it_can_be_mended(tools, peer: HttpPeer, status: int) -> None:
    ground = SinkGround(peer, tools)

    async def refuse(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())

    peer.serve = refuse
    with pytest.raises(ReceiverError) as caught:
        await ground.receiver.tell(ends(1))
    assert not caught.value.permanent
    assert str(status) in caught.value.message


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"url": "ftp://x/"}, "url"),
        ({"url": "http://x/ y"}, "url"),
        ({"url": "http://x/", "headers": {"a": "b\r\nc: d"}}, "headers"),
        ({"url": "http://x/", "max_bytes": 0}, "max_bytes"),
    ],
)
def test_what_cannot_be_posted_is_refused_at_the_start(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        http_sink.Options(**options)


class SlackGround(ReceiverGround):
    patience = 15.0
    secrets = ("T0/B0/the-secret",)

    def __init__(self, peer: HttpPeer, tools) -> None:
        self.peer = peer
        options = slack.Options(url=f"{peer.url}/services/T0/B0/the-secret")
        self.open = lambda: slack.open_receiver("chat", options, tools)
        self.receiver = self.open()

    async def taken(self, wanted: int) -> list[str]:
        return [block["block_id"] for asked in self.peer.asked for block in json.loads(asked.body)["blocks"]]

    async def disturb(self, how: Trouble) -> None:
        await self.peer.disturb(how)

    async def reopened(self):
        return self.open()


class TestSlack(ReceiverSuite):
    @pytest.fixture
    async def ground(self, tools, peer: HttpPeer):
        return SlackGround(peer, tools)


def said(*events: Any) -> dict[str, Any]:
    return json.loads(slack.message(events))


def test_a_message_says_what_happened_and_what_it_amounted_to() -> None:
    ended = event(EventType.BATCH_COMPLETED, "batch_1")
    text = said(ended)["blocks"][0]["text"]["text"]
    assert said(ended)["text"] == "Batch batch\u2060_1 is completed (12 lines, /v1/chat/completions)"
    assert "amount: $0.000123" in text
    assert "took: 1 min 0 s" in text
    assert "models: gpt-4o-mini" in text


def test_a_failed_batch_says_why_and_a_budget_how_much_is_left() -> None:
    assert "why: Line 3 is bad." in said(event(EventType.BATCH_FAILED))["blocks"][0]["text"]["text"]
    budget = said(event(EventType.BUDGET_THRESHOLD, "project:default"))
    assert budget["text"] == "80 % of the budget of project:default are used"
    assert "settled: $0.5\nheld: $0.3\namount: $1" in budget["blocks"][0]["text"]["text"]


def test_nothing_that_a_client_wrote_marks_up_mentions_or_links() -> None:
    wild = {"x": "<!channel> <https://evil|ok> *bold* `code` & \n> quote"}
    text = said(event(EventType.BATCH_COMPLETED, metadata=wild))["blocks"][0]["text"]["text"]
    assert "<" not in text
    line = next(line for line in text.splitlines() if line.startswith("metadata"))
    assert "\u2060*bold\u2060* \u2060`code\u2060` &amp; &gt; quote" in line


def test_a_message_fits_into_what_slack_takes() -> None:
    long = {f"key{number}": "<" * 500 for number in range(16)}
    events = [event(EventType.BATCH_COMPLETED, metadata=long) for _ in range(20)]
    blocks = said(*events)["blocks"]
    assert len(blocks) <= 50
    assert all(len(block["text"]["text"]) <= 3000 for block in blocks)


def test_a_person_is_told_of_ends_and_budgets_unless_the_entry_says_otherwise() -> None:
    from batchway.integrations.registry import listed

    plain, chosen = listed([
        {"kind": "slack", "url": "https://hooks.example/x"},
        {"kind": "slack", "name": "all", "url": "https://hooks.example/x", "events": ["*"]},
    ])[:2]  # fmt: skip
    assert "batch.completed" in plain.entry.events
    assert "file.created" not in plain.entry.events
    assert chosen.entry.events == ("*",)
