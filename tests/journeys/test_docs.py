"""The documents are true: the README's examples run as written, its commands and links exist.

An example that a test runs is marked in the document by `<!-- test: name -->` above it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from batchway import settings
from batchway.cli.main import COMMANDS
from batchway.integrations import registry as receivers
from batchway.providers import registry
from tests.gateway import MASTER, Gateway
from tests.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINES = 5


def marked(name: str) -> str:
    found = re.search(rf"<!-- test: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no example marked {name}"
    return found[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    simulator = Simulator(tmp_path_factory.mktemp("sim"), speed=1000)
    yield simulator
    simulator.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where somebody tries the README: with an `in.jsonl`."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    lines = [json.dumps({"custom_id": f"row-{number}", **line}) for number in range(LINES)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def run_example(source: str, folder: Path, **env: str) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    child = subprocess.run(
        [sys.executable, "-c", source],
        check=False,
        cwd=folder,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_the_example_with_the_openai_client_runs(folder: Path, simulator: Simulator) -> None:
    gateway = Gateway(folder / "home", {"providers": {"openai": {"api_key": "sim", "base_url": simulator.base_url}}})
    gateway.start()
    try:
        source = marked("openai").replace("http://127.0.0.1:4000", gateway.url).replace("sk-bw-...", MASTER)
        assert run_example(source + "\nprint(batch.id)", folder).startswith("batch_")
    finally:
        gateway.kill()


def test_the_example_with_the_sdk_runs_without_a_server(folder: Path, simulator: Simulator) -> None:
    env = {"OPENAI_API_KEY": "sim", "OPENAI_BASE_URL": simulator.base_url, "BATCHWAY_HOME": str(folder / "home")}
    printed = run_example(marked("sdk"), folder, **env)
    assert [f"row-{number}" for number in range(LINES)] == re.findall(r"^row-\d+", printed, re.MULTILINE)


def test_the_settings_shown_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("AZURE_KEY", "test")
    monkeypatch.setenv("HOOK_SECRET", "whsec_dGVzdA==")
    for number, block in enumerate(blocks("yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        loaded = settings.load(path)
        kinds = registry.kinds()
        assert all(entry.get("kind", name) in kinds for name, entry in loaded.providers.items())
        assert all(entry["kind"] in receivers.kinds() for entry in loaded.receivers)
        assert yaml.safe_load(block).keys() in ({"providers", "models"}, {"receivers"})


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"\bbatchway ([a-z]+)", "\n".join(blocks("sh"))))
    assert shown >= {"serve", "run", "estimate", "doctor"}
    assert shown <= set(COMMANDS)


def test_every_make_verb_shown_exists() -> None:
    shown = set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert shown == {"demo", "test"}
    assert shown <= set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert not missing
