from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType, SimpleNamespace

import msgspec
import pytest

from batchway.core.errors import ConfigError
from batchway.core.events import EventType
from batchway.integrations import registry
from batchway.integrations.registry import kinds, listed
from batchway.testing.receiver_ground import event


def named(*configured: dict):
    """The configured ones, without those that are always there."""
    return listed(configured)[: len(configured)]


def test_every_module_of_a_receiver_is_a_kind_that_can_be_listed() -> None:
    found = kinds()
    assert {"stdout", "python"} <= set(found)
    for kind, opener in found.items():
        assert issubclass(opener.Options, msgspec.Struct), kind
        assert callable(opener.open_receiver), kind


def test_an_entry_is_named_by_its_kind_and_takes_everything_from_now_on() -> None:
    (one,) = named({"kind": "stdout", "lines": True})
    entry = one.entry
    assert (entry.name, entry.kind, entry.events, entry.projects, entry.start) == (
        "stdout", "stdout", ("*",), None, "now",
    )  # fmt: skip
    (one,) = named({"kind": "stdout", "name": "log", "from": "start", "events": ["batch.*"], "projects": ["p"]})
    assert (one.entry.name, one.entry.start, one.entry.events) == ("log", "start", ("batch.*",))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({}, r"receivers\[0\]: `kind` is missing"),
        ({"kind": "stdot"}, "did you mean 'stdout'"),
        ({"kind": "stdout", "line": True}, "unknown setting 'line'; did you mean 'lines'"),
        ({"kind": "stdout", "lines": "maybe"}, r"receivers\[0\]: Expected `bool`"),
        ({"kind": "stdout", "events": ["batch.complete"]}, "did you mean 'batch.completed'"),
        ({"kind": "stdout", "events": "batch.*"}, r"receivers\[0\]: Expected `array`"),
        ({"kind": "stdout", "from": "yesterday"}, r"\$\.from"),
        ({"kind": "stdout", "name": ""}, "1 to 64 characters"),
        ({"kind": "python", "path": "json:Nothing"}, r"receivers\[0\]: path: 'json:Nothing' cannot be imported"),
        ({"kind": "python"}, "missing required field `path`"),
    ],
)
def test_a_wrong_entry_is_told_by_its_place_with_the_mend(entry: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        listed([entry])


def test_two_receivers_cannot_share_a_name() -> None:
    with pytest.raises(ConfigError, match="two receivers are named 'stdout'"):
        listed([{"kind": "stdout"}, {"kind": "stdout"}])
    assert [one.entry.name for one in named({"kind": "stdout"}, {"kind": "stdout", "name": "two"})] == ["stdout", "two"]


def test_patterns_and_projects_decide_what_is_told() -> None:
    (one,) = named({"kind": "stdout", "events": ["batch.*", "job.accounted"], "projects": ["default"]})
    told = [kind for kind in EventType if one.entry.wants(event(kind))]
    assert told == [kind for kind in EventType if kind.startswith("batch.") or kind is EventType.JOB_ACCOUNTED]
    elsewhere = msgspec.structs.replace(event(EventType.BATCH_CREATED), project="other")
    assert not one.entry.wants(elsewhere)


class Options(msgspec.Struct, kw_only=True):
    color: str


def test_an_installed_package_can_add_a_kind(monkeypatch) -> None:
    opened = []
    package = ModuleType("a_package")
    package.Options = Options
    package.open_receiver = lambda name, options, tools: opened.append((name, options.color, tools))
    monkeypatch.setitem(sys.modules, "a_package", package)
    points = EntryPoints([EntryPoint("lamp", "a_package", registry.GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    (one,) = named({"kind": "lamp", "color": "red"})
    one.open(SimpleNamespace(name="tools"))
    assert [(name, color) for name, color, _ in opened] == [("lamp", "red")]
    with pytest.raises(ConfigError, match="did you mean 'color'"):
        listed([{"kind": "lamp", "colour": "red"}])
    with pytest.raises(ConfigError, match="did you mean 'lamp'"):
        listed([{"kind": "lamb"}])


def test_what_is_always_there_is_there_without_an_entry_once(monkeypatch) -> None:
    always = SimpleNamespace(Options=type("Options", (msgspec.Struct,), {}), open_receiver=None, ALWAYS=True)
    monkeypatch.setattr(registry, "kinds", lambda: {"always": always})
    assert [one.entry.name for one in listed([])] == ["always"]
    assert [one.entry.name for one in listed([{"kind": "always", "name": "mine"}])] == ["mine"]
    other = SimpleNamespace(Options=always.Options, open_receiver=None)
    monkeypatch.setattr(registry, "kinds", lambda: {"always": always, "other": other})
    with pytest.raises(ConfigError, match="two receivers are named 'always'"):
        listed([{"kind": "other", "name": "always"}])
