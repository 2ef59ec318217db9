"""Settings: where they come from, which one wins, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchway.core.errors import ConfigError
from batchway.settings import ELSEWHERE, KEYS, ROLES, Settings, load, plain_credentials


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "batchway.yaml"
        path.write_text(text)
        return path

    return written


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return str(caught.value)


def test_without_anything_said_the_defaults_hold() -> None:
    settings = load(env={})
    assert (settings.host, settings.port, settings.roles) == ("127.0.0.1", 4000, list(ROLES))
    assert settings.folder == Path.home() / ".batchway"
    assert settings.database == f"sqlite:///{Path.home()}/.batchway/batchway.db"
    assert settings.storage == f"file://{Path.home()}/.batchway/storage"


def test_an_option_wins_over_a_variable_and_a_variable_over_the_file(write) -> None:
    path = write("port: 1001\nhost: 127.0.0.2\nlog_level: debug\n")
    env = {"BATCHWAY_PORT": "1002", "BATCHWAY_HOST": "127.0.0.3"}
    settings = load(path, env=env, overrides={"port": 1003, "host": None})
    assert (settings.port, settings.host, settings.log_level) == (1003, "127.0.0.3", "debug")


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("BATCHWAY_PORT", "4001", 4001),
        ("BATCHWAY_NO_AUTH", "true", True),
        ("BATCHWAY_ROLES", "api, worker", ["api", "worker"]),
        ("BATCHWAY_POLL_SECONDS", "0.5", 0.5),
        ("BATCHWAY_MODELS", "{fast: [a/b]}", {"fast": ["a/b"]}),
        ("BATCHWAY_PROVIDERS", "{local: {kind: openai_compatible}}", {"local": {"kind": "openai_compatible"}}),
    ],
)
def test_every_kind_of_setting_can_be_a_variable(variable: str, text: str, value: object) -> None:
    key = variable.removeprefix("BATCHWAY_").lower()
    assert getattr(load(env={variable: text}), key) == value


@pytest.mark.parametrize("key", sorted(KEYS))
def test_an_empty_variable_is_none_at_all(key: str) -> None:
    assert load(env={f"BATCHWAY_{key.upper()}": ""}) == Settings()


@pytest.mark.parametrize("variable", sorted(ELSEWHERE))
def test_variables_of_the_sdk_and_the_command_are_left_to_them(variable: str) -> None:
    assert load(env={variable: "x"}) == Settings()


def test_variables_of_others_are_none_of_ours() -> None:
    assert load(env={"PORT": "1", "OTHER_BATCHWAY_PORT": "2"}) == Settings()


def test_an_unknown_key_is_told_with_the_nearest_one(write) -> None:
    assert "unknown setting 'prot'; did you mean 'port'?" in refused(write("prot: 1\n"), env={})


def test_an_unknown_variable_is_told_with_the_nearest_one() -> None:
    assert "BATCHWAY_PROT; did you mean 'BATCHWAY_PORT'?" in refused(env={"BATCHWAY_PROT": "1"})


def test_a_key_like_no_other_is_told_with_all_there_are(write) -> None:
    assert "known: budget, database_url" in refused(write("zzzzzzzz: 1\n"), env={})


def test_the_file_may_name_variables_at_any_depth(write) -> None:
    path = write("providers: {a: {api_key: '${KEY}', urls: ['http://${HOST}/v1']}}\n")
    settings = load(path, env={"KEY": "sk-1", "HOST": "h"})
    assert settings.providers["a"] == {"api_key": "sk-1", "urls": ["http://h/v1"]}


def test_a_variable_that_is_not_set_is_told_with_its_place(write) -> None:
    path = write("providers: {a: {api_key: '${NOT_THERE}'}}\n")
    assert "providers.a.api_key: the variable NOT_THERE is not set" in refused(path, env={})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port: many\n", "port"),
        ("port: 65536\n", "port: 65536 is not between 0 and 65535"),
        ("roles: []\n", "roles: at least one of"),
        ("roles: [cook]\n", "roles"),
        ("log_level: loud\n", "log_level"),
        ("no_auth: true\nhost: 0.0.0.0\n", "no_auth: refused on 0.0.0.0"),
        ("no_auth: true\nhost: example.org\n", "no_auth: refused on example.org"),
        ("master_key: short\n", "master_key: at least 8 characters"),
        ("- a\n- b\n", "must be a table of settings"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_a_setting_that_cannot_work_is_told(write, text: str, told: str) -> None:
    assert told in refused(write(text), env={})


def test_the_secret_is_never_part_of_what_is_told(write) -> None:
    path = write("master_key: [sk-very-secret]\n")
    assert "sk-very-secret" not in refused(path, env={})


def test_a_file_that_is_not_there_is_told_with_its_name(tmp_path: Path) -> None:
    assert "nothing.yaml: cannot be read" in refused(tmp_path / "nothing.yaml", env={})


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("host: ä\n".encode("latin-1"))
    assert "is not YAML" in refused(path, env={})


def test_an_empty_file_says_nothing(write) -> None:
    assert load(write("# all as usual\n"), env={}) == Settings()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert Settings(host=host).loopback is loopback


def test_without_auth_a_loopback_address_is_accepted() -> None:
    assert load(env={"BATCHWAY_NO_AUTH": "1"}).no_auth


def test_a_line_that_is_not_yaml_is_not_repeated_for_it_may_hold_a_key(write) -> None:
    told = refused(write("port: 1\nmaster_key: sk-secret: y\n"), env={})
    assert "line 2" in told
    assert "sk-secret" not in told


def test_an_unknown_role_is_told_with_the_nearest_one(write) -> None:
    assert "unknown role 'workers'; did you mean 'worker'?" in refused(write("roles: [api, workers]\n"), env={})


# Secrets --------------------------------------------------------------------------------------------------------------

KEY = "a passphrase of some length"


def test_the_file_may_name_files_and_their_last_line_break_is_not_part_of_them(write, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    file = f"${{file:{tmp_path}/key}}"
    path = write(f"providers: {{a: {{api_key: '{file}', url: 'http://${{HOST}}/{file}'}}}}\n")
    assert load(path, env={"HOST": "h"}).providers["a"] == {"api_key": "sk-1", "url": "http://h/sk-1"}


def test_a_named_file_that_is_not_there_is_told_with_its_place(write, tmp_path: Path) -> None:
    path = write("providers: {a: {api_key: '${file:/no/such/file}'}}\n")
    assert "providers.a.api_key: the file /no/such/file cannot be read: No such file" in refused(path, env={})
    (tmp_path / "binary").write_bytes(b"\xff")
    assert "it is not UTF-8" in refused(write(f"master_key: '${{file:{tmp_path}/binary}}'\n"), env={})


def test_a_sealed_value_is_opened_wherever_it_stands(write, tmp_path: Path) -> None:
    home = tmp_path / "home"
    sealed = Settings(home=str(home), secret_key=KEY).vault.seal("sk-1")
    path = write(f"home: {home}\nproviders: {{a: {{keys: [{sealed}], n: 1}}}}\n")
    env = {"BATCHWAY_SECRET_KEY": KEY, "BATCHWAY_RECEIVERS": f"[{{kind: webhook, secret: '{sealed}'}}]"}
    settings = load(path, env=env)
    assert settings.providers == {"a": {"keys": ["sk-1"], "n": 1}}
    assert settings.receivers == [{"kind": "webhook", "secret": "sk-1"}]


def test_a_value_sealed_with_the_key_file_is_opened_with_it(write, tmp_path: Path) -> None:
    sealed = Settings(home=str(tmp_path)).vault.seal("postgresql://u:p@h/d")
    assert load(write(f"home: {tmp_path}\ndatabase_url: '{sealed}'\n"), env={}).database == "postgresql://u:p@h/d"


def test_a_value_that_cannot_be_opened_is_told_with_its_setting(write, tmp_path: Path) -> None:
    sealed = Settings(home=str(tmp_path), secret_key=KEY).vault.seal("sk-secret")
    told = refused(write(f"home: {tmp_path}\nproviders: {{a: {{api_key: '{sealed}'}}}}\n"), env={})
    assert told.startswith("providers: a value is sealed, and there is no key")
    assert "sk-secret" not in told
    assert sealed not in told


def test_without_a_sealed_value_no_key_is_asked_for(write, tmp_path: Path) -> None:
    load(write(f"home: {tmp_path}/none\nmaster_key: sk-plain-enough\n"), env={})
    assert not (tmp_path / "none").exists()


def test_credentials_in_plain_text_are_found_and_others_are_not(write) -> None:
    path = write(
        """
master_key: sk-plain
database_url: postgresql://u:p@h/d
providers:
  a: {api_key: sk-plain, base_url: "http://h/v1", headers: {authorization: Bearer x}, kms_key: name}
  b: {api_key: "${KEY}", client_secret: "sealed:v1:AAAA", storage: {sas: "${file:/run/secrets/sas}"}}
  c: {credentials: /etc/google.json, max_tokens: 5}
  d: {credentials: '{"private_key": "x"}'}
receivers: [{kind: webhook, secret: whsec_x}]
"""
    )
    assert plain_credentials(path) == [
        "master_key",
        "database_url",
        "providers.a.api_key",
        "providers.a.headers.authorization",
        "providers.d.credentials",
        "receivers.secret",
    ]
    assert plain_credentials(write("database_url: postgresql://h/d\n")) == []
