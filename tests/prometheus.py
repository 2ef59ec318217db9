"""Prometheus and its promtool for the tests: those on the PATH, or Debian's, unpacked once below build/.

Nothing is installed. Where neither is to be had the tests are skipped with the reason, and fail where CI is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / "build" / "prometheus"
NAMES = ("promtool", "prometheus")
PATIENCE = 300  # seconds for the package manager


def _unpack() -> None:
    """Debian's package, unpacked; in place only when it is whole, so that test runs side by side do no harm."""
    UNPACKED.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=UNPACKED.parent) as folder:
        download = ["apt-get", "download", "prometheus"]
        if _run(download, folder).returncode:
            _run(["apt-get", "update"], folder)
            _run(download, folder).check_returncode()
        (package,) = Path(folder).glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", str(package), "root"], folder).check_returncode()
        if not UNPACKED.exists():
            (Path(folder) / "root" / "usr" / "bin").rename(UNPACKED)


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture(scope="session")
def prometheus() -> dict[str, str]:
    """The paths of `promtool` and `prometheus`."""
    found = {name: path for name in NAMES if (path := shutil.which(name))}
    if len(found) < len(NAMES):
        try:
            if not UNPACKED.exists():
                _unpack()
            found = {name: str(UNPACKED / name) for name in NAMES}
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reason = f"no Prometheus here, and none from the package manager: {type(error).__name__}: {error}"
            if os.environ.get("CI", "").lower() in {"1", "true"}:
                pytest.fail(reason)
            pytest.skip(reason)
    return found
