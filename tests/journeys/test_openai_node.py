"""OpenAI's own Node client runs files and batches with only `baseURL` changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"


def missing() -> str:
    """Why the client cannot run here; installs it from its lock when that is all that is missing."""
    if shutil.which("node") is None:
        return "there is no node"
    if (NODE / "node_modules" / "openai").is_dir():
        return ""
    if shutil.which("npm") is None:
        return "there is no npm"
    command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=100, check=False)
    except subprocess.TimeoutExpired:
        return "npm ci takes too long"
    return f"npm ci failed, is there no network? {done.stderr[:200]}" if done.returncode else ""


def test_the_node_client_makes_the_whole_journey(world):
    if problem := missing():
        # On a CI machine with node the client must run; one without node has nothing to run it with.
        if os.environ.get("CI") and shutil.which("node"):
            pytest.fail(problem)
        pytest.skip(problem)
    key = world.served.key(f"node-{uuid.uuid4()}")
    done = subprocess.run(
        ["node", "journey.mjs", world.url, key, "lively"],
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + world.gateway.tail(10)
    assert done.stdout.strip() == "6.49.0"
