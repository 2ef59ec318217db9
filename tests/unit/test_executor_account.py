from __future__ import annotations

import msgspec
import pytest

from batchway.http import Reply
from batchway.providers.executed.provider import KIND, LIMITS, Options, from_environment, open_account
from batchway.providers.protocol import Tools


class Models:
    """An Http whose GETs are answered with a list of models."""

    def __init__(self, body):
        self.body = body
        self.asked = []

    async def request(self, method, url, *, headers, timeout):
        self.asked.append((method, url, headers["authorization"]))
        return Reply(200, {}, self.body)


def opened(http, **entry):
    options = msgspec.convert({"base_url": "http://h/v1/", "api_key": "k", **entry}, Options)
    return open_account("local", options, Tools(http=http, storage=None, clock=None, random=None))


def test_an_account_is_an_endpoint_without_a_native_lane():
    account = opened(Models(b""), concurrency=64, headers={"x-a": "b"}, models=["llama"], timeout=5)
    assert (account.name, account.kind, account.native, account.models) == ("local", KIND, None, ("llama",))
    assert account.endpoint.base_url == "http://h/v1"
    assert account.endpoint.headers == {"x-a": "b", "authorization": "Bearer k"}
    assert (account.endpoint.concurrency, account.endpoint.timeout) == (64, 5.0)
    assert "Bearer" not in repr(account)
    assert account.known("llama")
    assert not account.known("gpt")


async def test_the_models_are_those_the_server_lists():
    http = Models(b'{"object": "list", "data": [{"id": "a", "object": "model"}, {"id": "b"}]}')
    assert await opened(http).list_models() == ["a", "b"]
    assert http.asked == [("GET", "http://h/v1/models", "Bearer k")]


def test_no_entry_comes_from_the_environment_and_unknown_options_are_refused():
    assert from_environment({"OPENAI_API_KEY": "x"}) is None
    with pytest.raises(msgspec.ValidationError, match="concurency"):
        opened(Models(b""), concurency=1)


@pytest.mark.parametrize(("entry", "field"), [({"concurrency": 0}, "concurrency"), ({"timeout": 0}, "timeout")])
def test_a_concurrency_or_timeout_that_would_never_send_is_refused(entry, field):
    with pytest.raises(msgspec.ValidationError, match=field):
        opened(Models(b""), **entry)


def test_limits_allow_windows_from_a_minute_to_a_month():
    assert LIMITS.windows == (60, 2_592_000)
    assert LIMITS.lines == 50_000
