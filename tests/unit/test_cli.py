"""The command line without a gateway: what is parsed, what is told, what stays unloaded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from batchway.cli import main
from batchway.cli.failures import MEANINGS, CommandError, Exit, tell
from batchway.cli.main import COMMANDS, load
from batchway.core.errors import ConfigError, Fault, ProviderError
from batchway.sdk.errors import APIConnectionError, BadRequestError, NotFoundError, status_error

LINE = (
    '{"custom_id": "%s", "method": "POST", "url": "/v1/chat/completions", "body": {%s"messages": [{"role": "user"}]}}'
)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """Runs a command: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# The table of commands ------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = load(name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, below) for below in command.commands]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_line_of_the_overview_is_the_first_line_of_the_commands_own_help(name: str) -> None:
    assert (load(name).help or "").strip().split("\n")[0] == COMMANDS[name].help


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_tells_how_it_is_used(said, words: tuple[str, ...]) -> None:
    code, out, err = said(*words, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: batchway {' '.join(words)}")


@pytest.mark.parametrize("words", [words for words in commands() if words[0] != "simulate"], ids=" ".join)
def test_every_command_can_answer_json(words: tuple[str, ...]) -> None:
    command = load(words[0])
    if isinstance(command, click.Group):
        command = command.commands[words[1]] if len(words) > 1 else next(iter(command.commands.values()))
    assert "as_json" in {parameter.name for parameter in command.params}


def test_without_arguments_the_overview_is_shown(said) -> None:
    code, out, _ = said()
    assert code == 0
    assert all(name in out for name in COMMANDS)


def test_the_overview_documents_every_exit_code(said) -> None:
    _, out, _ = said("--help")
    assert all(f"  {int(code)} " in out for code in Exit)
    assert set(MEANINGS) == set(Exit)


def test_an_unknown_command_is_told_with_the_nearest(said) -> None:
    code, out, err = said("wach")
    assert (code, out) == (2, "")
    assert "No such command 'wach'. Did you mean 'watch'?" in err


def test_an_unknown_option_is_wrong_use(said) -> None:
    code, _, err = said("list", "--statsu", "failed")
    assert code == 2
    assert "--status" in err


def test_wrong_use_is_an_envelope_with_json(said) -> None:
    code, out, err = said("list", "--limit", "0", "--json")
    assert (code, err) == (2, "")
    assert json.loads(out)["error"]["code"] == "wrong_use"


def test_version_tells_what_it_is_made_of(said) -> None:
    assert said("--version")[1] == said("version")[1]
    found = json.loads(said("version", "--json")[1])
    assert {"batchway", "python", "dbos"} <= set(found)


# The weight of the overview -------------------------------------------------------------------------------------------

HEAVY = {"dbos", "sqlalchemy", "starlette", "uvicorn", "rich", "pyreqwest", "obstore", "yaml", "batchway.sdk.client"}


def loaded_by(code: str) -> set[str]:
    script = f"import sys, json; {code}; sys.stderr.write(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stderr))


def test_the_overview_loads_no_command() -> None:
    loaded = loaded_by("from batchway.cli import main; main(['--help'])")
    assert not loaded & HEAVY
    assert not {f"batchway.cli.{entry.module}" for entry in COMMANDS.values()} & loaded


def test_a_command_of_the_client_loads_no_gateway() -> None:
    loaded = loaded_by("from batchway.cli import main; main(['list', '--help'])")
    assert not loaded & {"dbos", "sqlalchemy", "starlette", "uvicorn", "obstore", "batchway.app"}


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (CommandError("no"), Exit.WRONG_USE),
        (click.UsageError("no"), Exit.WRONG_USE),
        (ConfigError("no"), Exit.WRONG_USE),
        (BadRequestError("no file"), Exit.WRONG_USE),  # found by the SDK: nothing was sent
        (FileNotFoundError(2, "No such file", "x"), Exit.WRONG_USE),
        (status_error(400, {"x-request-id": "r"}, b'{"error": {"message": "no"}}'), Exit.REFUSED),
        (NotFoundError("no"), Exit.REFUSED),
        (APIConnectionError("no"), Exit.REFUSED),
        (ProviderError("no", fault=Fault.DENIED), Exit.REFUSED),
        (click.Abort(), Exit.INTERRUPTED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_foreseen_failure_has_its_exit_code(error: Exception, exit_code: Exit) -> None:
    told = tell(error)
    assert told is not None
    assert told.exit_code == exit_code
    assert set(told.envelope["error"]) >= {"message", "type", "param", "code"}


def test_what_nobody_foresaw_keeps_its_traceback() -> None:
    assert tell(ZeroDivisionError()) is None


def test_a_refusal_keeps_the_gateways_words_and_its_request_id() -> None:
    body = b'{"error": {"message": "no such thing", "type": "t", "param": "p", "code": "c"}}'
    told = tell(status_error(404, {"x-request-id": "req-1"}, body))
    assert told is not None
    assert told.envelope == {
        "error": {"message": "no such thing", "type": "t", "param": "p", "code": "c", "request_id": "req-1"}
    }


# validate -------------------------------------------------------------------------------------------------------------


def test_a_clean_file_is_valid(said, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(LINE % (name, '"model": "m", ') for name in "ab"))
    code, out, err = said("validate", path)
    assert (code, out) == (0, "")
    assert "2 lines" in err
    assert "m: 2" in err


def test_every_fault_is_told_with_its_line(said, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join([LINE % ("a", '"model": "m", '), "nonsense", LINE % ("a", '"model": "m", ')]))
    code, out, _ = said("validate", path)
    assert code == 1
    assert [line.split(": ")[0] for line in out.splitlines()] == [f"{path}:2", f"{path}:3"]
    code, out, err = said("validate", path, "--json")
    assert (code, err) == (1, "")
    document = json.loads(out)
    assert (document["valid"], document["fault_count"], document["lines"]) == (False, 2, 3)
    assert [fault["line"] for fault in document["faults"]] == [2, 3]


def test_lines_without_a_model_are_fine_when_the_batch_will_name_one(said, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(LINE % ("a", ""))
    assert said("validate", path)[0] == 1
    assert said("validate", path, "--model", "m")[0] == 0


def test_a_file_that_is_not_there_is_wrong_use(said, tmp_path: Path) -> None:
    code, _, err = said("validate", tmp_path / "nothing.jsonl")
    assert code == 2
    assert "does not exist" in err


# simulate, doctor, serve ----------------------------------------------------------------------------------------------


def test_simulators_are_found_by_folder(said) -> None:
    code, out, _ = said("simulate")
    assert code == 0
    assert out.split() == json.loads(said("simulate", "--json")[1])["data"]
    for name in out.split():
        assert json.loads(said("simulate", name, "--port", "9", "--print-config")[1])
        assert said("simulate", name, "--no-such-option")[0] == 2


def test_an_unknown_simulator_is_told_with_the_nearest(said) -> None:
    name = said("simulate")[1].split()[0]
    code, _, err = said("simulate", name[:-1])
    assert code == 2
    assert f"did you mean '{name}'?" in err


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment with a home folder and nothing else of ours; the present folder is empty."""
    for name in [name for name in os.environ if name.startswith("BATCHWAY_") or name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BATCHWAY_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_checkup_changes_nothing_and_names_what_to_mend(said, bare: Path) -> None:
    code, out, err = said("doctor", "--json")
    assert err == ""
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == (0 if all(check["status"] != "problem" for check in checks.values()) else 1)
    assert checks["providers"]["mend"]
    assert not (bare / "home").exists()


def test_a_checkup_tells_wrong_settings_as_a_problem(said, bare: Path) -> None:
    Path("batchway.yaml").write_text("prot: 1\n")
    code, out, _ = said("doctor")
    assert code == 1
    assert "did you mean 'port'?" in out


def test_a_checkup_never_prints_a_key(said, bare: Path) -> None:
    entry = "{kind: openai_compatible, base_url: 'http://127.0.0.1:9/v1', api_key: sk-very-secret}"
    Path("batchway.yaml").write_text(f"providers: {{gone: {entry}}}\n")
    code, out, err = said("doctor", "--json")
    assert code == 1
    assert "sk-very-secret" not in out + err
    found = next(check for check in json.loads(out)["checks"] if check["name"] == "provider gone")
    assert (found["status"], bool(found["mend"])) == ("problem", True)


def test_settings_that_cannot_work_end_serve_with_one_line(said, bare: Path) -> None:
    Path("other.yaml").write_text("prot: 1\n")
    code, out, err = said("serve", "--config", "other.yaml")
    assert (code, out) == (2, "")
    assert err == "batchway: other.yaml: unknown setting 'prot'; did you mean 'port'?\n"


def test_auth_is_needed_where_others_can_come_in(said, bare: Path) -> None:
    code, _, err = said("serve", "--no-auth", "--host", "0.0.0.0")
    assert code == 2
    assert "no_auth: refused on 0.0.0.0" in err


def test_a_taken_port_ends_serve_before_anything_is_made(said, bare: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = said("serve", "--port", port)
    assert (code, out) == (2, "")
    assert f"port: {port} on 127.0.0.1 is in use" in err
    assert not (bare / "home").exists()
