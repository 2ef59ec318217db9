"""Every receiver has a page, and what the pages show of batchway.yaml is accepted as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from batchway.integrations.otlp import KINDS
from batchway.integrations.registry import kinds, listed

PAGES = Path(__file__).parents[2] / "docs" / "receivers"
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([\w./-]+\.md)(#[\w-]+)?\)")
VALUES = {  # what is checked when the settings are read
    "WEBHOOK_SECRET": "whsec_" + "QUJD" * 8,
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x",
    "OTEL_ENDPOINT": "http://localhost:4318",
}


def examples() -> list[Any]:
    found = [(path.name, block) for path in sorted(PAGES.glob("*.md")) for block in BLOCK.findall(path.read_text())]
    shown = [(name, block) for name, block in found if "receivers:" in block]
    return [pytest.param(block, id=f"{name}-{number}") for number, (name, block) in enumerate(shown)]


@pytest.fixture(autouse=True)
def _hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that the pages name."""
    for module, name in (("my_package.hooks", "Tracker"), ("my_callbacks", "cost_tracker")):
        made = ModuleType(module)
        setattr(made, name, print)
        monkeypatch.setitem(sys.modules, module.partition(".")[0], ModuleType(module.partition(".")[0]))
        monkeypatch.setitem(sys.modules, module, made)


@pytest.mark.parametrize("block", examples())
def test_an_example_is_accepted_as_it_stands(block: str) -> None:
    filled = re.sub(r"\$\{(\w+)\}", lambda word: VALUES.get(word[1], "filled-in"), block)
    wanted = yaml.safe_load(filled)["receivers"]
    assert [one.entry.kind for one in listed(wanted)][: len(wanted)] == [entry["kind"] for entry in wanted]


def chosen() -> set[str]:
    """The kinds that an entry may name; the others are always there."""
    return {kind for kind, opener in kinds().items() if not getattr(opener, "ALWAYS", False)}


def test_the_index_names_every_kind() -> None:
    page = (PAGES / "README.md").read_text()
    assert [kind for kind in sorted(chosen()) if f"`{kind}`" not in page] == []


def test_every_kind_is_shown_by_a_page() -> None:
    shown = {entry["kind"] for param in examples() for entry in yaml.safe_load(param.values[0])["receivers"]}
    assert chosen() - shown == set()


def test_every_option_of_our_receivers_is_on_a_page() -> None:
    text = "\n".join(path.read_text() for path in PAGES.glob("*.md"))
    ours = {*KINDS, "slack", "email", "archive", "http", "sql"}
    fields = {field for kind in ours for field in kinds()[kind].Options.__struct_encode_fields__}
    assert [field for field in sorted(fields) if not re.search(rf"\b{field}\b", text)] == []


def test_links_between_pages_lead_somewhere() -> None:
    links = [(path, target) for path in PAGES.glob("*.md") for target, _ in LINK.findall(path.read_text())]
    assert [f"{path.name}: {target}" for path, target in links if not (path.parent / target).exists()] == []
