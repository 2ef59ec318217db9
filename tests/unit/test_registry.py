from __future__ import annotations

import tomllib
from pathlib import Path
from random import Random

import msgspec
import pytest

from batchway.core.errors import ConfigError
from batchway.http import Http
from batchway.providers import registry
from batchway.providers.compatible import Row
from batchway.providers.protocol import Account, Tools
from batchway.storage import LocalStorage

KINDS = registry.kinds()
ROWS = [row.kind for row in registry.rows()]


@pytest.fixture
async def tools(tmp_path: Path):
    http, storage = Http(user_agent="batchway-test", random=Random(1)), LocalStorage(tmp_path)
    yield Tools(http=http, storage=storage, clock=lambda: 0.0, random=Random(1))
    await http.close()
    await storage.close()


def test_folders_and_rows_are_found_and_none_hides_another():
    folders = [path.parent.name for path in registry.FOLDER.glob("*/provider.py")]
    assert len(KINDS) == len(folders) + len(ROWS)
    assert {opener.__name__.split(".")[-2] for opener in KINDS.values() if not isinstance(opener, Row)} == set(folders)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_whole(kind):
    opener = KINDS[kind]
    assert callable(opener.open_account)
    assert opener.from_environment({}) is None
    assert issubclass(opener.Options, msgspec.Struct)
    assert opener.Options.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("kind", ROWS)
async def test_a_row_is_an_account_with_both_lanes(kind, tools):
    (account,) = registry.open_accounts({"mine": {"kind": kind, "api_key": "k", "models": ["m"]}}, tools)
    assert isinstance(account, Account)
    assert (account.name, account.kind, account.models) == ("mine", kind, ("m",))
    assert account.endpoint.base_url.startswith("https://")
    assert not account.endpoint.base_url.endswith("/")
    limits = account.native.limits("m")
    assert limits.lines > 0
    assert limits.windows[0] <= limits.windows[1]


def test_every_row_has_all_its_data():
    tables = tomllib.loads((registry.FOLDER / "compatible.toml").read_text())
    for kind, table in tables.items():
        assert set(table) == {"base_url", "key", "lines", "bytes", "windows", "endpoints"}, kind
        assert table["key"].isupper()
        assert table["endpoints"]


@pytest.mark.parametrize("kind", ROWS)
def test_a_rows_usual_variable_makes_an_entry(kind):
    row = KINDS[kind]
    assert registry.entries({}, {row.variable: "secret"}) == {kind: {"api_key": "secret"}}
    assert registry.entries({}, {row.variable: ""}) == {}


def test_an_entry_of_the_settings_comes_before_the_environment():
    kind = ROWS[0]
    variable = KINDS[kind].variable
    for mine in ({kind: {"api_key": "a"}}, {"named": {"kind": kind, "api_key": "a"}}):
        assert registry.entries(mine, {variable: "secret"}) == mine


def test_entries_are_copies():
    mine = {"a": {"kind": ROWS[0], "api_key": "k"}}
    registry.entries(mine, {})["a"]["api_key"] = "changed"
    assert mine["a"]["api_key"] == "k"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"grok": {}}, r"providers.grok: unknown kind 'grok'; did you mean 'groq'\?"),
        ({"a": {"kind": "zzzzzz"}}, "known kinds: .*groq"),
        (
            {"groq": {"api_key": "k", "base_ulr": "x"}},
            r"providers.groq: unknown setting 'base_ulr'; did you mean 'base_url'\?",
        ),
        ({"groq": {"api_key": "k", "zzzzzz": "x"}}, "it takes api_key, base_url"),
        ({"groq": {}}, "providers.groq: .*api_key"),
        ({"groq": {"api_key": "k", "concurrency": "many"}}, "providers.groq: .*concurrency"),
    ],
)
def test_a_wrong_entry_is_named_with_the_mend(entry, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        registry.open_accounts(entry, None)


def test_opening_leaves_the_settings_as_they_are(tmp_path):
    entry = {"mine": {"kind": "zzzzzz"}}
    with pytest.raises(ConfigError):
        registry.open_accounts(entry, None)
    assert entry == {"mine": {"kind": "zzzzzz"}}


async def test_a_trailing_slash_and_words_for_numbers_do_no_harm(tools):
    entry = {"groq": {"api_key": "k", "base_url": "http://h/v1/", "concurrency": "4"}}
    (account,) = registry.open_accounts(entry, tools)
    assert (account.endpoint.base_url, account.endpoint.concurrency) == ("http://h/v1", 4)


def test_aliases_lead_to_kinds_there_are():
    assert set(registry.aliases().values()) <= set(KINDS)
    assert not set(registry.aliases()) & set(KINDS)


def test_the_executed_lane_has_one_carrier():
    assert sum(hasattr(opener, "open_executed") for opener in KINDS.values()) == 1
    executor = object()
    assert registry.open_executed(executor)._executor is executor
