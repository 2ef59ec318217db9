"""Messages are judged by the clients that users verify them with: OpenAI's, and Standard Webhooks' own."""

from __future__ import annotations

import base64
import time

import openai
import pytest
from openai.types import webhooks as official
from standardwebhooks import Webhook, WebhookVerificationError

from batchway.core.errors import RequestError
from batchway.core.events import EventType
from batchway.integrations.webhook.payloads import body_of, body_of_test
from batchway.integrations.webhook.sign import (
    Secret,
    checked_secret,
    new_secret,
    packed,
    rotated,
    signed,
    unpacked,
)
from batchway.testing.receiver_ground import event, of_every_type

NOW = 1_790_000_000.0
TYPED = {
    "batch.completed": official.BatchCompletedWebhookEvent,
    "batch.failed": official.BatchFailedWebhookEvent,
    "batch.expired": official.BatchExpiredWebhookEvent,
    "batch.cancelled": official.BatchCancelledWebhookEvent,
}


def client(secret: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", webhook_secret=secret)


@pytest.mark.parametrize("kind", TYPED)
def test_the_ends_of_a_batch_are_typed_events_of_openais_client(kind: str) -> None:
    told, secret = event(EventType(kind)), new_secret()
    body = body_of(told)
    unwrapped = client(secret).webhooks.unwrap(body, signed([Secret(secret)], told.id, time.time(), body))
    assert type(unwrapped) is TYPED[kind]
    assert (unwrapped.id, unwrapped.type, unwrapped.object) == (told.id, kind, "event")
    assert (unwrapped.data.id, unwrapped.created_at) == (told.subject, int(told.created_at))
    assert unwrapped.data.batchway == told.data
    assert type(unwrapped).model_validate_json(body, strict=True).data.id == told.subject


def test_every_event_is_verified_by_standard_webhooks() -> None:
    secret = new_secret()
    for told in of_every_type():
        body = body_of(told)
        seen = Webhook(secret).verify(body, signed([Secret(secret)], told.id, time.time(), body))
        assert (seen["id"], seen["type"], seen["object"]) == (told.id, told.type, "event")
        assert seen["batchway"]["subject"] == told.subject
        assert seen["data"].get("batchway", seen["data"]) == told.data


def test_the_same_event_makes_the_same_bytes() -> None:
    told = event(EventType.JOB_ENDED)
    assert body_of(told) == body_of(told)


def test_a_changed_body_id_or_time_is_not_verified() -> None:
    secret, body = new_secret(), body_of_test("evt_1", "webhook_1", NOW)
    good = signed([Secret(secret)], "evt_1", time.time(), body)
    Webhook(secret).verify(body, good)
    bad = [(body + b" ", good), (body, good | {"webhook-id": "evt_2"}), (body, good | {"webhook-timestamp": "1"})]
    bad.append((body, signed([Secret(secret)], "evt_1", time.time() - 3600, body)))
    bad.append((body, signed([Secret(new_secret())], "evt_1", time.time(), body)))
    for content, headers in bad:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(content, headers)


def test_while_a_secret_rotates_both_verify_and_then_only_the_new_one() -> None:
    old, new, now = new_secret(), new_secret(), time.time()
    secrets = rotated([Secret(old)], new, now - 60, 60.5)
    body = b"{}"
    both = signed(secrets, "evt_1", now, body)
    for secret in (old, new):
        Webhook(secret).verify(body, both)
        client(secret).webhooks.verify_signature(body, both)
    later = signed(secrets, "evt_1", now + 1, body)
    Webhook(new).verify(body, later)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body, later)


def test_a_rotation_without_grace_ends_the_old_secrets_at_once_and_never_keeps_many() -> None:
    assert rotated([Secret("a")], "b", NOW, 0) == [Secret("b")]
    secrets = [Secret("s0")]
    for number in range(1, 9):
        secrets = rotated(secrets, f"s{number}", NOW, 100)
    assert [one.text for one in secrets] == ["s8", "s7", "s6", "s5"]
    assert rotated(secrets, "s9", NOW, 50)[2].until == NOW + 50


def test_stored_secrets_are_read_back() -> None:
    secrets = [Secret(new_secret()), Secret(new_secret(), NOW)]
    assert unpacked(packed(secrets)) == secrets


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_good_secret_of_the_callers_own_is_taken(size: int) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * size).decode()
    assert checked_secret(secret) == secret


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "password", "whsec_AAAA", "A" * 44, "whsec_ " + "A" * 43 + "="]
    + ["whsec_" + odd for odd in ("A" * 200, "ö" * 40, "A" * 31 + "?")],
)
def test_a_weak_or_odd_secret_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(RequestError) as caught:
        checked_secret(secret, "webhook.secret")
    assert (caught.value.code, caught.value.param) == ("invalid_secret", "webhook.secret")
    assert len(secret) < 8 or secret not in caught.value.message
