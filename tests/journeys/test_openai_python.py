"""OpenAI's own Python client, versions 3 and 2, runs files and batches with only `base_url` changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.journeys.trips import Running

JOURNEY = Path(__file__).parent / "openai_journey.py"
VERSION_2 = "openai==2.54.0"


@pytest.fixture(scope="session")
def version_2(tmp_path_factory):
    """A folder with version 2 of the client; it cannot stand beside version 3 in one environment."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    folder = tmp_path_factory.mktemp("openai2")
    command = [uv or "uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(folder)]
    try:
        done = subprocess.run(
            [*command, "--only-binary", ":all:", VERSION_2], capture_output=True, text=True, timeout=100, check=False
        )
        problem = done.stderr if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem and os.environ.get("CI"):
        pytest.fail(f"{VERSION_2} cannot be installed: {problem}")
    if problem:
        pytest.skip(f"{VERSION_2} cannot be installed, is there no network? {problem[:200]}")
    return folder


def run(world: Running, model: str, **environment: str) -> str:
    """The version of the client that made the whole journey."""
    key = world.served.key(f"python-{uuid.uuid4()}")  # a project of its own: lists hold what this journey made
    done = subprocess.run(
        [sys.executable, "-W", "error", str(JOURNEY), world.url, key, model],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + world.gateway.tail(10)
    return done.stdout.strip()


def test_version_3_makes_the_whole_journey(world):
    assert run(world, "fast").startswith("3.")


def test_version_2_makes_the_whole_journey(world, version_2):
    assert run(world, "lively", PYTHONPATH=str(version_2)).startswith("2.")
