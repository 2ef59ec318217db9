"""The command line before a real gateway, which stands before a provider's simulator: everything over real HTTP."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchway.cli import main

MODEL = "gpt-4o-mini"
LINES = 40
MASTER = "sk-master-of-the-tests"


@contextmanager
def running(*arguments: str, env: dict[str, str], announces: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves, and what it announced on stdout."""
    command = [sys.executable, "-m", "batchway", *arguments]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            found = None
            while found is None:
                line = child.stdout.readline()
                assert line, child.stderr.read() if child.stderr else ""
                found = re.search(announces, line)
            yield child, found[1]
        finally:
            child.terminate()
            try:
                child.communicate(timeout=20)
            finally:
                child.kill()


@dataclass(frozen=True)
class World:
    """A gateway and the environment of its user's commands."""

    url: str
    home: Path
    simulator: str
    env: dict[str, str] = field(repr=False)

    def run(self, *arguments: object, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "batchway", *map(str, arguments)]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False, **options
        )


def clean_env(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BATCHWAY_")}
    return {**kept, "BATCHWAY_HOME": str(home)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home") / "batchway"
    env = clean_env(home)
    options = ("--port", "0", "--speed", "50000", "--fail", "line=0.1", "--seed", "1")
    with running("simulate", "openai", *options, env=env, announces=r"(http://\S+)") as (_, simulator):
        serving = {**env, "OPENAI_BASE_URL": simulator, "OPENAI_API_KEY": "sim", "BATCHWAY_MASTER_KEY": MASTER}
        serving["BATCHWAY_POLL_SECONDS"] = "0.1"
        with running("serve", "--port", "0", env=serving, announces=r"running on (http://\S+)") as (_, url):
            yield World(url, home, simulator, {**env, "BATCHWAY_BASE_URL": url, "BATCHWAY_API_KEY": MASTER})


@pytest.fixture
def said(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process, which is quicker: (exit code, stdout, stderr)."""
    for name in [name for name in os.environ if name.startswith("BATCHWAY_")]:
        monkeypatch.delenv(name)
    for name in ("BATCHWAY_BASE_URL", "BATCHWAY_API_KEY", "BATCHWAY_HOME"):
        monkeypatch.setenv(name, world.env[name])

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write_lines(path: Path, count: int = LINES, model: str = MODEL) -> Path:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi."}]}
    lines = [
        {"custom_id": f"line {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(count)
    ]
    for number, line in enumerate(lines):
        line["body"] = {**body, "messages": [{"role": "user", "content": f"Hi {number}."}]}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def ended(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A batch that was run to its end: the summary, and the file of the answers under `output`."""
    folder = tmp_path_factory.mktemp("ended")
    source = write_lines(folder / "in.jsonl")
    done = world.run("run", source, "-o", folder / "out.jsonl", "--json", "--metadata", "suite=cli")
    assert done.stderr == ""
    return {**json.loads(done.stdout), "exit_code": done.returncode}


def test_a_run_writes_every_line_in_the_order_of_the_input(ended: dict[str, Any]) -> None:
    written = [json.loads(line) for line in Path(ended["output"]).read_text().splitlines()]
    assert [line["custom_id"] for line in written] == [f"line {number}" for number in range(LINES)]
    failed = [line for line in written if line["error"] or line["response"]["status_code"] >= 400]
    counts = ended["request_counts"]
    assert (counts["total"], counts["failed"]) == (LINES, len(failed))
    assert failed
    assert not any("cursor" in line for line in written)
    assert ended["exit_code"] == 1


def test_a_table_comes_back_with_its_answers(said, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,label\ngood,1\n")
    code, out, err = said(
        "run", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--prompt", "Classify: {text}", "--model", MODEL
    )
    assert (code, out) == (0, "")
    assert "1 lines, 1 answered, 0 failed" in err
    header, row = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "text,label,answer,error,input_tokens,output_tokens,amount_usd"
    assert row.startswith("good,1,")


def test_without_a_place_for_the_answers_they_go_to_stdout(world: World, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in.jsonl", 3).read_text()
    done = world.run("run", "-", input=lines)
    assert len(done.stdout.splitlines()) == 3
    assert "completed: 3 lines" in done.stderr
    assert done.returncode in (0, 1)


def test_a_refused_input_tells_every_fault_and_writes_nothing(said, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", 2, model="no-such-model-anywhere")
    code, _, err = said("run", source, "-o", tmp_path / "out.jsonl")
    assert code == 3
    assert "line 1:" in err
    assert "line 2:" in err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_submitted_batch_can_be_watched_shown_and_listed(said, tmp_path: Path) -> None:
    code, out, _ = said("submit", write_lines(tmp_path / "in.jsonl", 2), "--metadata", "k=v w")
    batch_id = out.strip()
    assert (code, batch_id[:6]) == (0, "batch_")
    code, out, _ = said("watch", batch_id, "--json")
    assert code in (0, 1)
    assert json.loads(out)["status"] == "completed"
    code, out, _ = said("get", batch_id)
    assert (code, "completed" in out, "job_" in out) == (0, True, True)
    code, out, _ = said("list", "--metadata", "k=v w")
    head, *rows = out.splitlines()
    assert (code, head.split("\t")[0]) == (0, "id")
    assert [row.split("\t")[:2] for row in rows] == [[batch_id, "completed"]]
    assert json.loads(said("list", "--limit", "1", "--json")[1])["data"][0]["id"] == batch_id
    assert json.loads(said("list", "--created-before", "2020-01-01", "--json")[1])["data"] == []


def test_the_results_are_json_lines_or_one_json_list(said, ended: dict[str, Any], tmp_path: Path) -> None:
    code, out, _ = said("results", ended["id"])
    assert (code, len(out.splitlines())) == (0, LINES)
    document = json.loads(said("results", ended["id"], "--status", "failed", "--json")[1])
    assert len(document["data"]) == ended["request_counts"]["failed"]
    assert json.loads(said("results", ended["id"], "-o", tmp_path / "o.jsonl", "--json")[1])["lines"] == LINES
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == LINES
    in_order = [
        json.loads(line)["custom_id"] for line in said("results", ended["id"], "--order", "input")[1].splitlines()
    ]
    assert in_order == [f"line {number}" for number in range(LINES)]
    cursor = json.loads(out.splitlines()[-1])["cursor"]
    assert said("results", ended["id"], "--after", cursor)[1] == ""


def test_results_become_a_table_whose_amounts_are_the_batchs(said, ended: dict[str, Any], tmp_path: Path) -> None:
    told = json.loads(said("results", ended["id"], "-o", tmp_path / "o.csv", "--order", "input", "--json")[1])
    header, *rows = (tmp_path / "o.csv").read_text().splitlines()
    assert (told["lines"], header) == (LINES, "custom_id,answer,error,input_tokens,output_tokens,amount_usd")
    amounts = [Decimal(row.rpartition(",")[2] or 0) for row in rows]
    assert sum(amounts) == Decimal(ended["batchway"]["amount_usd"]) > 0
    assert "amount_usd" not in said("results", ended["id"], "--no-amounts")[1]
    assert said("results", ended["id"])[1].count("amount_usd") == ended["request_counts"]["completed"]


def test_an_ended_batch_is_retried_but_not_cancelled(said, ended: dict[str, Any]) -> None:
    code, _, err = said("cancel", ended["id"])
    assert code == 3
    assert "completed" in err
    code, out, _ = said("retry", ended["id"], "--json")
    assert code == 0
    assert json.loads(out)["id"] != ended["id"]


def test_a_batch_can_be_cancelled(said, tmp_path: Path) -> None:
    batch_id = said("submit", write_lines(tmp_path / "in.jsonl", 2))[1].strip()
    code, out, _ = said("cancel", batch_id)
    if code == 0:  # it may have ended before
        assert out.split()[1] in ("cancelling", "cancelled")
        assert said("watch", batch_id)[0] == 1


def test_an_estimate_leaves_nothing_behind(said, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "guessed.jsonl", 3)
    code, out, _ = said("estimate", source, "--json")
    assert code == 0
    assert json.loads(out)["lines"] == 3
    assert "guessed.jsonl" not in said("files", "list", "--limit", "1000")[1]
    code, out, _ = said("estimate", source)
    assert (code, out.split()[:2]) == (0, ["lines", "3"])


def test_files_go_up_and_come_down_again(said, tmp_path: Path) -> None:
    source, copy = write_lines(tmp_path / "up.jsonl", 2), tmp_path / "copy.jsonl"
    file_id = said("files", "upload", source)[1].strip()
    assert said("files", "get", file_id, "--json")[0] == 0
    assert "up.jsonl" in said("files", "get", file_id)[1]
    assert json.loads(said("files", "download", file_id, "-o", copy, "--json")[1])["bytes"] == source.stat().st_size
    assert copy.read_bytes() == source.read_bytes()
    assert json.loads(said("estimate", file_id, "--json")[1])["lines"] == 2
    assert said("files", "delete", file_id)[:2] == (0, f"{file_id} deleted\n")
    code, out, err = said("files", "get", file_id, "--json")
    assert (code, err) == (3, "")
    assert json.loads(out)["error"]["message"]


def test_a_key_lets_in_until_it_is_deleted(said, world: World) -> None:
    code, secret, err = said("keys", "create", "nightly", "--project", "research")
    assert (code, "not shown again" in err) == (0, True)
    assert said("list", "--api-key", secret.strip())[0] == 0
    (key,) = [key for key in json.loads(said("keys", "list", "--json")[1])["data"] if key["name"] == "nightly"]
    assert key["project"] == "research"
    assert said("keys", "delete", key["id"])[0] == 0
    code, _, err = said("list", "--api-key", secret.strip())
    assert code == 3
    assert "BATCHWAY_API_KEY" in err


def test_a_gateway_that_is_not_there_is_told_with_a_hint(said) -> None:
    code, out, err = said("list", "--base-url", "http://127.0.0.1:9")
    assert (code, out) == (3, "")
    assert "--base-url" in err


def test_adopting_what_no_provider_has_is_refused(said) -> None:
    code, out, _ = said("adopt", "nobody", "batch_x", "--json")
    assert code == 3
    assert json.loads(out)["error"]["message"]


def test_a_closed_pipe_ends_a_command_quietly(world: World, ended: dict[str, Any]) -> None:
    command = f"'{sys.executable}' -m batchway results {ended['id']} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=world.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupted_run_leaves_its_batch_and_tells_how_to_follow_it(world: World, tmp_path: Path) -> None:
    options = ("--port", "0", "--speed", "1")
    home = tmp_path / "home"
    env = clean_env(home)
    with running("simulate", "openai", *options, env=env, announces=r"(http://\S+)") as (_, simulator):
        env |= {"OPENAI_BASE_URL": simulator, "OPENAI_API_KEY": "sim"}
        source = write_lines(tmp_path / "in.jsonl", 2)
        command = [sys.executable, "-m", "batchway", "run", str(source), "-o", str(tmp_path / "out.jsonl")]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            assert "validating" in child.stderr.readline()
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=30)
        assert child.returncode == 130
        batch_id = re.search(r"batchway watch (batch_\w+)", err)
        assert batch_id is not None
        listed = subprocess.run(
            [sys.executable, "-m", "batchway", "get", batch_id[1], "--json"],
            env=env, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        assert json.loads(listed.stdout)["status"] in ("validating", "in_progress")


def test_a_person_sees_a_bar_and_a_drawn_table(world: World, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", 2)
    code, seen = in_a_terminal(["run", str(source), "-o", str(tmp_path / "out.jsonl")], world.env)
    assert code in (0, 1)
    assert "━" in seen
    assert "2/2" in seen
    code, seen = in_a_terminal(["list", "--limit", "2"], {**world.env, "NO_COLOR": "1"})
    assert code == 0
    assert "\t" not in seen
    assert "\x1b[3" not in seen


def in_a_terminal(arguments: list[str], env: dict[str, str]) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    env = {**env, "TERM": "xterm-256color", "COLUMNS": "120"}
    command = [sys.executable, "-m", "batchway", *arguments]
    with subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            seen += piece
        os.close(ours)
    return child.returncode, seen.decode()


def test_commands_of_the_same_user_find_the_serving_gateway_and_its_key(world: World) -> None:
    env = {name: value for name, value in world.env.items() if name not in ("BATCHWAY_BASE_URL", "BATCHWAY_API_KEY")}
    announced = world.home / "server.json"
    assert announced.stat().st_mode & 0o077 == 0
    done = subprocess.run(
        [sys.executable, "-m", "batchway", "keys", "list", "--json"],
        env=env, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["object"] == "list"


def test_the_checkup_of_a_working_gateway_finds_nothing_wrong(world: World) -> None:
    env = {**world.env, "OPENAI_BASE_URL": world.simulator, "OPENAI_API_KEY": "sim"}
    env["BATCHWAY_PORT"] = world.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "batchway", "doctor", "--json"],
        env=env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "lets us in" in checks["provider openai"]["message"]
    assert "gateway answers" in checks["port"]["message"]
    assert "wal" in checks["database"]["message"]
    assert checks["clock"]["status"] == "ok"
    assert done.returncode == (0 if all(check["status"] != "problem" for check in checks.values()) else 1)


def test_the_first_start_shows_its_key_once_and_the_end_forgets_the_commands_key(tmp_path: Path) -> None:
    env = clean_env(tmp_path / "home")
    with running("serve", "--port", "0", "--json", env=env, announces=r"(\{)") as (child, _):
        assert child.stdout is not None
        text = "{"
        while not text.endswith("}\n"):
            text += child.stdout.readline()
        told = json.loads(text)
        assert told["master_key"].startswith("sk-bw-")
        assert told["pid"] == child.pid
        assert (tmp_path / "home" / "server.json").exists()
        began = time.monotonic()
    assert child.returncode == 0
    assert time.monotonic() - began < 15
    assert not (tmp_path / "home" / "server.json").exists()
    with running("serve", "--port", "0", env=env, announces=r"(Batchway is running|master key)") as (_, line):
        assert line == "Batchway is running"
