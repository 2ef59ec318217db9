"""Azurite, Microsoft's storage emulator, as a real blob service in a child process."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from batchway.http import Http
from batchway.providers.azure.blobs import Access, Blobs

FOLDER = Path(__file__).parent / "azurite"
ACCOUNT, CONTAINER = "batchway", "batches"
KEY = base64.b64encode(b"a key of the tests, known to all").decode()


def missing() -> str:
    """Why it cannot run here; installs it from its lock when that is all that is missing."""
    if shutil.which("node") is None:
        return "there is no node"
    if (FOLDER / "node_modules" / "azurite").is_dir():
        return ""
    if shutil.which("npm") is None:
        return "there is no npm"
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
    except subprocess.TimeoutExpired:
        return "npm ci takes too long"
    return f"npm ci failed, is there no network? {done.stderr[:200]}" if done.returncode else ""


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The URL of an empty container; skips, or fails where CI is set and node exists, when it cannot be had."""
    if problem := missing():
        if os.environ.get("CI") and shutil.which("node"):
            pytest.fail(problem)
        pytest.skip(problem)
    script = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    command = ["node", str(script), "--blobPort", "0", "--location", str(folder), "--disableTelemetry"]
    env = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = next(line for line in process.stdout if " listens on " in line)
            root = f"{told.split()[-1]}/{ACCOUNT}"
            asyncio.run(_make_container(root))
            yield f"{root}/{CONTAINER}"
        finally:
            process.kill()


async def _make_container(root: str) -> None:
    """Only a test makes one: the gateway is given its container."""
    http = Http(user_agent="batchway-test", random=Random(1))
    blobs = Blobs(http, root, Access(account_key=KEY), time.time)
    await blobs._call("PUT", f"{root}/{CONTAINER}", {"restype": "container"})
    await http.close()
