"""Keys, projects, budgets and the audit log by the SDK and by the command line, before a real gateway."""

from __future__ import annotations

import json
import re

import pytest

import batchway
from batchway import AsyncClient, Client
from batchway.cli import main
from tests.journeys.serving import MASTER, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def admin(served):
    with Client(base_url=served.url, api_key=MASTER) as made:
        yield made


@pytest.fixture
def said(served, monkeypatch, capsys):
    """Runs a command: (exit code, stdout, stderr)."""
    monkeypatch.setenv("BATCHWAY_BASE_URL", served.url)
    monkeypatch.setenv("BATCHWAY_API_KEY", MASTER)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# The SDK --------------------------------------------------------------------------------------------------------------


def test_a_key_by_the_sdk_from_its_making_to_its_end(served, admin):
    key = admin.create_key(
        "sdk",
        "tools",
        scopes=["read"],
        models=["m*"],
        limits={"file_bytes": 10},
        budget={"usd": "1", "period": "day"},
        private=True,
    )
    assert (key.scopes, key.models, key.limits.file_bytes, key.budget.remaining_usd) == (["read"], ["m*"], 10, "1")
    changed = admin.update_key(key.id, models=None, limits={"active_batches": 3}, budget=None)
    assert (changed.models, changed.limits.file_bytes, changed.limits.active_batches) == (None, 10, 3)
    assert (changed.budget, changed.private, changed.scopes) == (None, True, ["read"])
    assert admin.retrieve_key(key.id) == changed
    rotated = admin.rotate_key(key.id, grace_seconds=0)
    assert rotated.key not in (None, key.key)
    with Client(base_url=served.url, api_key=rotated.key) as own, pytest.raises(batchway.PermissionDeniedError):
        own.list_keys()
    with Client(base_url=served.url, api_key=key.key) as old, pytest.raises(batchway.AuthenticationError):
        old.file_list()
    assert admin.update_key(key.id, disabled=True).disabled
    assert [one.id for one in admin.list_keys(project="tools", limit=1)] == [key.id]
    assert admin.delete_key(key.id).deleted
    actions = [entry.action for entry in admin.list_audit(target=key.id, order="asc")]
    assert actions == ["key.created", "key.updated", "key.rotated", "key.updated", "key.deleted"]
    assert admin.list_audit(target=key.id, limit=1, order="asc").data[0].details["models"] == ["m*"]


def test_a_project_and_the_gateways_budget_by_the_sdk(admin):
    project = admin.create_project("by-sdk", sharing=False, redaction="drop", limits={"active_batches": 2})
    assert (project.sharing, project.redaction, project.limits.active_batches) == (False, "drop", 2)
    assert admin.update_project("by-sdk", sharing=True, limits=None).limits.active_batches is None
    assert admin.retrieve_project("by-sdk").sharing
    assert "by-sdk" in [one.name for one in admin.list_projects()]
    assert admin.delete_project("by-sdk").deleted
    assert admin.set_budget({"usd": "9.5", "period": "month"}).budget.usd == "9.5"
    assert admin.retrieve_budget().budget.remaining_usd == "9.5"
    assert admin.set_budget(None).budget is None


async def test_the_suspending_flavour_has_the_same_operations(served):
    async with AsyncClient(base_url=served.url, api_key=MASTER) as admin:
        key = await admin.create_key("a", "suspended")
        assert (await admin.update_key(key.id, name="b")).name == "b"
        assert [one.name for one in await admin.list_keys(project="suspended")] == ["b"]


def test_a_page_that_no_gateway_takes_is_refused_before_it_is_sent(admin):
    for ask in (admin.list_keys, admin.list_projects, admin.list_audit):
        with pytest.raises(batchway.BadRequestError, match="limit"):
            ask(limit=101)


# The command line -----------------------------------------------------------------------------------------------------


def test_keys_by_commands(said, served):
    code, secret, err = said(
        "keys", "create", "nightly", "--project", "cli", "--model", "m*", "--model", "n", "--limit", "file_bytes=9",
        "--budget", "2.50/month", "--on-budget", "pause", "--expires", "30d", "--scope", "read", "--private",
    )  # fmt: skip
    assert code == 0
    told = re.search(r"(key_\w+): keep it, it is not shown again", err)
    assert told
    assert served.ask("GET", "/v1/files", key=secret.strip()).status == 200
    key_id = told[1]
    code, out, _ = said("keys", "show", key_id)
    assert code == 0
    for text in ("m*, n", "file_bytes 9", "$2.5 a month", "on for 29 d", "read", "its batches wait"):
        assert text in out
    assert secret.strip() not in out
    changed = json.loads(
        said(
            "keys", "update", key_id, "--clear", "models", "--clear", "expires_at", "--limit", "file_bytes=none",
            "--limit", "active_batches=4", "--shared", "--json",
        )[1]
    )  # fmt: skip
    assert (changed["models"], changed["expires_at"], changed["private"]) == (None, None, False)
    assert (changed["limits"]["file_bytes"], changed["limits"]["active_batches"]) == (None, 4)
    assert changed["budget"]["usd"] == "2.5"
    second = said("keys", "rotate", key_id, "--grace", "0")[1].strip()
    assert served.ask("GET", "/v1/files", key=secret.strip()).status == 401
    assert served.ask("GET", "/v1/files", key=second).status == 200
    assert said("keys", "disable", key_id)[0] == 0
    assert "disabled" in said("keys", "list", "--project", "cli")[1]
    assert served.ask("GET", "/v1/files", key=second).status == 401
    assert said("keys", "enable", key_id)[0] == 0
    assert served.ask("GET", "/v1/files", key=second).status == 200
    assert said("keys", "delete", key_id)[1] == f"{key_id} deleted\n"
    assert said("keys", "show", key_id)[0] == 3


def test_projects_and_the_budget_by_commands(said):
    code, out, _ = said("projects", "create", "by-hand", "--no-sharing", "--budget", "5/total", "--redaction", "hash")
    assert code == 0
    assert "$5 in all: $0 settled, $0 held, $5 remaining" in out
    updated = json.loads(said("projects", "update", "by-hand", "--sharing", "--clear", "budget", "--json")[1])
    assert (updated["sharing"], updated["budget"], updated["redaction"]) == (True, None, "hash")
    assert "by-hand" in said("projects", "list")[1]
    assert said("projects", "show", "by-hand")[0] == 0
    assert said("projects", "delete", "by-hand")[0] == 0
    assert said("projects", "show", "by-hand")[0] == 3
    assert said("budget")[1] == "The gateway has no budget.\n"
    assert "$70 a day" in said("budget", "--budget", "70/day")[1]
    assert json.loads(said("budget", "--json")[1])["budget"]["usd"] == "70"
    assert said("budget", "--clear")[1] == "The gateway has no budget.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create", "n", "--budget", "5"),
        ("keys", "create", "n", "--limit", "requests=1"),
        ("keys", "create", "n", "--limit", "file_bytes=many"),
        ("keys", "create", "n", "--expires", "soon"),
        ("keys", "create", "n", "--scope", "root"),
        ("keys", "update", "key_1", "--clear", "scopes"),
        ("budget", "--clear", "--budget", "1/day"),
    ],
    ids=" ".join,
)
def test_a_rule_that_cannot_be_is_wrong_use(said, arguments):
    assert said(*arguments)[0] == 2
