"""One POST of a receiver, and what its failure means to the teller.

It is tried once: the teller repeats, later each time. Only an answer that finds fault with the content itself is
permanent; bad credentials and wrong places are mended by the operator within the days for which the teller tries, and
then nothing is lost. Messages name the receiver and the status, never a URL: its path or query may be the secret.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchway.core.errors import ProviderError
from batchway.core.retry import NO_RETRY
from batchway.http import Http, NotSent, Reply
from batchway.integrations.protocol import ReceiverError

CONTENT_AT_FAULT = frozenset({400, 413, 415, 422})
MAX_ANSWER = 1 << 20  # bytes that are read of an answer


async def post(http: Http, name: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Reply:
    """The answer, when its status is a success; ReceiverError otherwise. `timeout` in seconds."""
    try:
        sending = http.request(
            "POST", url, headers=headers, body=body, timeout=timeout, retry=NO_RETRY, max_body=MAX_ANSWER
        )
        return await sending
    except ProviderError as error:
        failure = ReceiverError(
            _message(name, error), permanent=error.status in CONTENT_AT_FAULT, retry_after=error.retry_after
        )
    raise failure


def _message(name: str, error: ProviderError) -> str:
    if error.status is not None:
        return f"{name}: answered with status {error.status}"
    return f"{name}: {'cannot be reached' if isinstance(error, NotSent) else 'no usable answer'}"


def checked_url(url: str) -> str:
    """The URL, when it is one of HTTP; ValueError without quoting it."""
    if not url.startswith(("https://", "http://")) or any(ord(letter) <= 32 for letter in url):
        raise ValueError("url: must begin with https:// or http:// and hold no blanks")
    return url


def checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers, when no line break is smuggled in; ValueError names the field, not its value."""
    for name, value in headers.items():
        if not name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name + value):
            raise ValueError(f"headers: {name!r} cannot be sent")
    return headers
