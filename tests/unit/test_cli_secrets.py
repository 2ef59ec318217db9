"""`batchway seal`, and what `batchway doctor` says of credentials."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from batchway.cli import main
from batchway.settings import load


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """Runs a command: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings but a home folder that is not there yet; commands run in an empty folder."""
    monkeypatch.setenv("BATCHWAY_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_secret_is_sealed_and_what_comes_out_may_stand_in_the_settings(said, bare: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-very-secret\n"))
    code, out, err = said("seal")
    assert (code, out[:10]) == (0, "sealed:v1:")
    assert "secret.key" in err
    assert "sk-very-secret" not in out + err
    Path("batchway.yaml").write_text(f"providers: {{a: {{api_key: '{out.strip()}'}}}}\n")
    assert load(Path("batchway.yaml")).providers["a"]["api_key"] == "sk-very-secret"
    monkeypatch.setenv("BATCHWAY_SECRET_KEY", "a passphrase of some length")
    monkeypatch.setattr("sys.stdin", io.StringIO("another"))
    code, out, err = said("seal", "--json")
    assert (code, err) == (0, "")
    assert load(None).vault.unseal(json.loads(out)["sealed"]) == "another"


def test_nothing_is_not_sealed_and_a_shared_database_wants_a_key(said, bare: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert said("seal")[0] == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("secret"))
    monkeypatch.setenv("BATCHWAY_DATABASE_URL", "postgresql://h/d")
    code, _, err = said("seal")
    assert (code, "BATCHWAY_SECRET_KEY" in err) == (2, True)


def test_a_checkup_tells_of_credentials_that_others_may_read(said, bare: Path, monkeypatch) -> None:
    path = Path("batchway.yaml")

    def credentials() -> dict[str, str]:
        checks = json.loads(said("doctor", "--json")[1])["checks"]
        return next(check for check in checks if check["name"] == "credentials")

    path.write_text("master_key: sk-very-secret\n")
    path.chmod(0o644)
    found = credentials()
    assert (found["status"], "master_key" in found["message"]) == ("problem", True)
    assert "sk-very-secret" not in str(found)
    path.chmod(0o600)
    assert credentials()["status"] == "ok"
    path.chmod(0o644)
    path.write_text("master_key: ${MASTER}\n")
    monkeypatch.setenv("MASTER", "sk-very-secret")
    assert credentials()["message"] == "none in plain text"


def test_a_key_file_that_others_may_read_is_a_problem(said, bare: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret"))
    assert said("seal")[0] == 0
    key = bare / "home" / "secret.key"
    assert json.loads(said("doctor", "--json")[1])["checks"][2]["status"] == "ok"
    key.chmod(0o644)
    found = json.loads(said("doctor", "--json")[1])["checks"][2]
    assert (found["name"], found["status"], found["mend"]) == ("credentials", "problem", f"chmod 600 {key}")
