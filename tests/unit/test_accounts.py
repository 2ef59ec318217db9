from __future__ import annotations

import logging

import pytest

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Limits, Route
from batchway.executor import Endpoint
from batchway.providers.accounts import NAMES_TTL, Accounts, NoRoute, Want
from batchway.providers.protocol import Account

CHAT, DAY = "/v1/chat/completions", 86400
PLACE = Endpoint(base_url="http://127.0.0.1:9/v1", headers={})


class Lane:
    """A native lane that takes chat for a day and longer."""

    def __init__(self, *endpoints: str, shortest: int = DAY) -> None:
        self._limits = Limits(lines=10, bytes=10, endpoints=frozenset(endpoints or {CHAT}), windows=(shortest, 7 * DAY))

    def limits(self, model: str) -> Limits:
        return self._limits


class Server:
    """What lists models; counts how often it is asked."""

    def __init__(self, *models: str) -> None:
        self.models = list(models)
        self.asked = 0
        self.down = False

    async def __call__(self) -> list[str]:
        self.asked += 1
        if self.down:
            raise ProviderError("down", fault=Fault.TRANSIENT)
        return self.models


class Time:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def accounts(*them: Account, names=None, aliases=None, clock=None) -> Accounts:
    made = Accounts(them, names or {}, aliases or {}, clock or Time())
    made.use_executor(Lane())
    return made


BIG = Account(name="big", kind="maker", native=Lane(), endpoint=PLACE, known=lambda model: model.startswith("big-"))
OTHER = Account(name="other", kind="maker", native=Lane(), models=("tuned",))
LOCAL = Account(name="local", kind="served", endpoint=PLACE, models=("llama",))


async def routes(made: Accounts, model: str, endpoint: str = CHAT, window: int = DAY, forced: str | None = None):
    return [
        (route.account, route.model, route.lane) for route in await made.routes(model, Want(endpoint, window, forced))
    ]


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("big-1", [("big", "big-1", "native")]),
        ("tuned", [("other", "tuned", "native")]),
        ("llama", [("local", "llama", "executed")]),
        ("big/anything", [("big", "anything", "native")]),
        ("local/org/model", [("local", "org/model", "executed")]),
        ("served/x", [("local", "x", "executed")]),
        ("maker/x", [("big", "x", "native"), ("other", "x", "native")]),
        ("word/x", [("local", "x", "executed")]),
        ("mine", [("other", "tuned", "native"), ("local", "llama", "executed")]),
        ("own/slash", [("big", "big-2", "native")]),
    ],
)
async def test_where_a_name_leads(model, found):
    made = accounts(
        BIG,
        OTHER,
        LOCAL,
        names={"mine": ["other/tuned", "local/llama"], "own/slash": ["big/big-2"]},
        aliases={"word": "served"},
    )
    assert await routes(made, model) == found


async def test_a_name_of_the_settings_comes_before_what_providers_know():
    assert await routes(accounts(BIG, LOCAL, names={"big-1": ["local/llama"]}), "big-1") == [
        ("local", "llama", "executed")
    ]


async def test_a_configured_model_comes_before_a_known_one():
    mine = Account(name="mine", kind="served", endpoint=PLACE, models=("big-1",))
    assert await routes(accounts(BIG, mine), "big-1") == [("mine", "big-1", "executed")]


async def test_the_same_route_by_two_names_is_one():
    made = accounts(LOCAL, names={"twice": ["local/llama", "served/llama"]})
    assert await routes(made, "twice") == [("local", "llama", "executed")]


@pytest.mark.parametrize(
    ("endpoint", "window", "lane"),
    [
        (CHAT, DAY, "native"),
        (CHAT, 30 * DAY, "native"),
        (CHAT, DAY - 1, "executed"),
        ("/v1/embeddings", DAY, "executed"),
    ],
)
async def test_the_lane_is_native_where_the_job_can_keep_the_window_and_take_the_endpoint(endpoint, window, lane):
    assert await routes(accounts(BIG), "big-1", endpoint, window) == [("big", "big-1", lane)]


async def test_a_provider_that_can_do_neither_is_said_so():
    with pytest.raises(NoRoute, match="does not support /v1/embeddings") as refused:
        await accounts(OTHER).routes("tuned", Want("/v1/embeddings", DAY))
    assert refused.value.code == "invalid_url"


async def test_one_route_that_can_is_enough():
    made = accounts(OTHER, LOCAL, names={"any": ["other/tuned", "local/llama"]})
    assert await routes(made, "any", "/v1/embeddings") == [("local", "llama", "executed")]


@pytest.mark.parametrize("model", ["unheard-of", "big/llama", "llama"])
async def test_a_forced_provider_is_asked_whatever_the_name(model):
    found = await routes(accounts(BIG, LOCAL), model, forced="big")
    assert found == [("big", model.removeprefix("big/"), "native")]


async def test_a_forced_provider_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(NoRoute, match=r"No provider 'bigg' is configured. Configured: big"):
        await accounts(BIG, LOCAL).routes("x", Want(CHAT, DAY, "bigg"))


async def test_an_unknown_model_is_told_with_near_names():
    with pytest.raises(NoRoute, match=r"'lama' is not supported by the Batch API. Near names: .*llama") as refused:
        await accounts(BIG, LOCAL).routes("lama", Want(CHAT, DAY))
    assert refused.value.code == "model_not_found"
    with pytest.raises(NoRoute, match="see `providers` and `models`"):
        await accounts().routes("lama", Want(CHAT, DAY))


async def test_servers_are_asked_for_their_models_once_a_while():
    server, clock = Server("served-1"), Time()
    made = accounts(Account(name="s", kind="served", endpoint=PLACE, list_models=server), clock=clock)
    for _ in range(3):
        assert await routes(made, "served-1") == [("s", "served-1", "executed")]
    assert server.asked == 1
    server.models.append("served-2")
    with pytest.raises(NoRoute):
        await routes(made, "served-2")
    clock.now += NAMES_TTL + 1
    assert await routes(made, "served-2") == [("s", "served-2", "executed")]
    assert server.asked == 2


async def test_a_server_that_does_not_answer_keeps_its_list_and_harms_no_other(caplog):
    server, well, clock = Server("a"), Server("b"), Time()
    made = accounts(
        Account(name="s", kind="served", endpoint=PLACE, list_models=server),
        Account(name="w", kind="served", endpoint=PLACE, list_models=well),
        clock=clock,
    )
    assert await routes(made, "a")
    server.down = True
    clock.now += NAMES_TTL + 1
    with caplog.at_level(logging.WARNING):
        assert await routes(made, "b") == [("w", "b", "executed")]
        assert await routes(made, "a") == [("s", "a", "executed")]
    assert "the models of s cannot be listed" in caplog.text
    assert server.asked == 2


async def test_a_name_that_is_configured_asks_no_server():
    server = Server("x")
    made = accounts(BIG, Account(name="s", kind="served", endpoint=PLACE, list_models=server))
    await routes(made, "big-1")
    assert server.asked == 0


async def test_every_name_that_lines_may_use_is_listed():
    made = accounts(
        OTHER,
        Account(name="s", kind="served", endpoint=PLACE, list_models=Server("z", "y")),
        names={"mine": ["other/tuned"], "empty": []},
    )
    assert await made.names() == [("mine", "other"), ("other/tuned", "other"), ("s/y", "s"), ("s/z", "s")]


def test_who_carries_a_route():
    made = accounts(BIG, LOCAL)
    assert made.provider(Route(account="big", model="x")).carrier is BIG.native  # counted on its way
    assert made.provider(Route(account="local", model="x", lane="executed")) is made._executed
    for gone in (Route(account="none", model="x"), Route(account="local", model="x")):
        with pytest.raises(KeyError):
            made.provider(gone)


def test_an_account_that_left_the_settings_is_priced_by_its_name():
    made = accounts(Account(name="a", kind="k", priced_as=str.upper))
    assert (made.kind("a"), made.priced_as("a", "m")) == ("k", "M")
    assert (made.kind("gone"), made.priced_as("gone", "m")) == ("gone", "m")
    with pytest.raises(KeyError):
        made.get("gone")


def test_endpoints_of_both_lanes():
    made = accounts(BIG, OTHER, LOCAL, Account(name="e", kind="k", native=Lane("/v1/moderations")))
    assert made.native_endpoints() == {CHAT, "/v1/moderations"}
    assert set(made.endpoints()) == {"big", "local"}
    assert [account.name for account in made] == ["big", "other", "local", "e"]
