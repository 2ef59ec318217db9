"""Signatures by Standard Webhooks 1.0: HMAC-SHA256 over id, timestamp and body: who wrote it, and when.

The id is the event's and the same on every try; the timestamp is that of the try. While a secret is being rotated each
message carries the signatures of the new one and of the old ones, and a receiver accepts any of them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from batchway.core.errors import RequestError

PREFIX = "whsec_"
BYTES = range(24, 65)  # of a secret, as the standard has it


class Secret(msgspec.Struct, frozen=True, array_like=True):
    """One of a webhook's secrets; `until` in unix seconds, None for the present one."""

    text: str
    until: float | None = None


def new_secret() -> str:
    """A fresh secret of 256 bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def checked_secret(text: str, param: str = "secret") -> str:
    """A secret that a caller brought; RequestError when it is none."""
    try:
        size = len(_key(text)) if text.startswith(PREFIX) else 0
    except (binascii.Error, ValueError):
        size = 0
    if size not in BYTES:
        message = (
            f"Invalid '{param}': a webhook secret is '{PREFIX}' and the base64 of {BYTES.start} to {BYTES.stop - 1} "
            "random bytes. Leave it out, and one is made."
        )
        raise RequestError(message, code="invalid_secret", param=param)
    return text


def rotated(old: Sequence[Secret], fresh: str, now: float, grace: float) -> list[Secret]:
    """The secrets after `fresh` became the present one: the others sign along for `grace` seconds at most."""
    until = now + grace
    before = [Secret(one.text, until if one.until is None else min(one.until, until)) for one in old]
    return [Secret(fresh), *(one for one in before if one.until is not None and one.until > now)][:4]


def packed(found: Sequence[Secret]) -> str:
    """The text that is sealed and stored."""
    return msgspec.json.encode(found).decode()


def unpacked(text: str) -> list[Secret]:
    """What `packed` made."""
    return msgspec.json.decode(text, type=list[Secret])


def signed(found: Sequence[Secret], event_id: str, now: float, body: bytes) -> dict[str, str]:
    """The three headers of the standard."""
    stamp = str(int(now))
    content = b".".join((event_id.encode(), stamp.encode(), body))
    signatures = [
        "v1," + base64.b64encode(hmac.digest(_key(one.text), content, sha256)).decode()
        for one in found
        if one.until is None or one.until > now
    ]
    return {"webhook-id": event_id, "webhook-timestamp": stamp, "webhook-signature": " ".join(signatures)}


def _key(text: str) -> bytes:
    return base64.b64decode(text.removeprefix(PREFIX), validate=True)
