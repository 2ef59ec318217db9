"""Secrets at rest: what seals them, what opens them, and that nothing tells them."""

from __future__ import annotations

import base64
import re
import secrets
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchway.core.errors import ConfigError
from batchway.server.errors import answer
from batchway.vault import KEY_FILE, PREFIX, Vault, is_sealed

KEY, OTHER = ("correct horse battery staple", "another passphrase of some length")
SECRET = "sk-very-secret-ü-1"


def vault(key: str | None, home: Path, *, shared: bool = False) -> Vault:
    return Vault(key, home, shared=shared)


def refused(function, *args) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*args)
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)
    return str(caught.value)


RAW = bytes(range(32))
SPELLED = [RAW.hex(), base64.b64encode(RAW).decode(), base64.urlsafe_b64encode(RAW).decode().rstrip("="), KEY]


@pytest.mark.parametrize("key", SPELLED)
def test_what_is_sealed_is_opened_with_the_same_key(key: str, tmp_path: Path) -> None:
    sealed = vault(key, tmp_path).seal(SECRET)
    assert is_sealed(sealed)
    assert SECRET not in sealed
    assert vault(key, tmp_path).unseal(sealed) == SECRET
    assert not list(tmp_path.iterdir()), "a key that is given needs no file"


def test_a_key_is_the_same_however_it_is_spelled(tmp_path: Path) -> None:
    sealed = vault(SPELLED[0], tmp_path).seal(SECRET)
    assert [vault(key, tmp_path).unseal(sealed) for key in SPELLED[:3]] == [SECRET] * 3


def test_the_same_secret_is_never_sealed_the_same_twice(tmp_path: Path) -> None:
    one = vault(KEY, tmp_path)
    assert len({one.seal(SECRET) for _ in range(100)}) == 100
    assert one.unseal(one.seal("")) == ""


def test_every_changed_character_is_noticed(tmp_path: Path) -> None:
    one = vault(KEY, tmp_path)
    sealed = one.seal(SECRET)
    for place in range(len(PREFIX), len(sealed.rstrip("="))):
        other = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        if base64.urlsafe_b64decode(other.removeprefix(PREFIX)) != base64.urlsafe_b64decode(
            sealed.removeprefix(PREFIX)
        ):
            refused(one.unseal, other)


@pytest.mark.parametrize("text", [PREFIX, PREFIX + "AAAA", PREFIX + "not base64!", PREFIX + "A" * 37])
def test_what_is_cut_off_is_told(text: str, tmp_path: Path) -> None:
    assert "seal the secret again" in refused(vault(KEY, tmp_path).unseal, text)


def test_what_was_never_sealed_is_not_opened(tmp_path: Path) -> None:
    assert refused(vault(KEY, tmp_path).unseal, SECRET) == f"a sealed value begins with {PREFIX}"


# Rotation -------------------------------------------------------------------------------------------------------------


def test_a_new_key_seals_and_the_former_still_opens(tmp_path: Path) -> None:
    former = vault(KEY, tmp_path).seal(SECRET)
    rotating = vault(f"{OTHER}, {KEY}", tmp_path)
    assert rotating.unseal(former) == SECRET
    assert vault(OTHER, tmp_path).unseal(rotating.seal(SECRET)) == SECRET
    assert "another key" in refused(vault(OTHER, tmp_path).unseal, former)


def test_moving_from_the_key_file_to_a_key_breaks_nothing(tmp_path: Path) -> None:
    sealed = vault(None, tmp_path).seal(SECRET)
    assert vault(KEY, tmp_path).unseal(sealed) == SECRET
    (tmp_path / KEY_FILE).unlink()
    assert "another key" in refused(vault(KEY, tmp_path).unseal, sealed)


# The key file ---------------------------------------------------------------------------------------------------------


def test_without_a_key_a_file_is_made_that_only_its_owner_reads(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    sealed = vault(None, home).seal(SECRET)
    assert [path.name for path in home.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    assert vault(None, home).unseal(sealed) == SECRET


def test_unsealing_makes_no_key(tmp_path: Path) -> None:
    sealed = vault(KEY, tmp_path).seal(SECRET)
    assert "there is no key" in refused(vault(None, tmp_path).unseal, sealed)
    assert not list(tmp_path.iterdir())


def test_many_who_seal_first_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        sealed = list(pool.map(lambda number: vault(None, tmp_path).seal(str(number)), range(64)))
    assert [vault(None, tmp_path).unseal(text) for text in sealed] == list(map(str, range(64)))
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_a_database_that_others_share_needs_a_key_that_others_have(tmp_path: Path) -> None:
    assert "BATCHWAY_SECRET_KEY" in refused(vault(None, tmp_path, shared=True).seal, SECRET)
    assert not list(tmp_path.iterdir())
    assert vault(KEY, tmp_path, shared=True).seal(SECRET)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"A" * 100])
def test_a_spoilt_key_file_is_told_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    assert KEY_FILE in refused(vault(None, tmp_path).seal, SECRET)
    assert (tmp_path / KEY_FILE).read_bytes() == content


# Keys that cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["short", f"{KEY},short", f"{KEY},"])
def test_a_passphrase_that_is_soon_guessed_is_refused(key: str, tmp_path: Path) -> None:
    message = refused(vault, key, tmp_path)
    assert message.startswith("secret_key: at least 16 characters")
    assert "short," not in message


def test_the_key_itself_cannot_be_sealed(tmp_path: Path) -> None:
    assert "cannot be sealed itself" in refused(vault, vault(KEY, tmp_path).seal(SECRET), tmp_path)


def test_a_client_is_told_what_the_gateway_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        vault(None, tmp_path, shared=True).seal(SECRET)
    answered = answer(caught.value)
    assert answered.status_code == 503
    assert b"BATCHWAY_SECRET_KEY" in answered.body


# Settings -------------------------------------------------------------------------------------------------------------


def test_sealed_values_are_opened_at_any_depth_and_the_rest_stays(tmp_path: Path) -> None:
    one = vault(KEY, tmp_path)
    sealed = one.seal(SECRET)
    assert one.unseal_all({"a": [sealed, 1, None, {"b": sealed}], "c": "plain"}) == {
        "a": [SECRET, 1, None, {"b": SECRET}],
        "c": "plain",
    }


def test_no_cipher_is_loaded_before_something_is_sealed() -> None:
    code = "import sys, batchway.vault, batchway.settings; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_second_implementation_opens_what_was_sealed(tmp_path: Path) -> None:
    """By hand: sealed:v1:base64url(nonce of 12 bytes, ciphertext, tag of 16 bytes), the prefix authenticated."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = secrets.token_bytes(32)
    data = base64.urlsafe_b64decode(re.sub("^sealed:v1:", "", vault(key.hex(), tmp_path).seal(SECRET)))
    decryptor = Cipher(algorithms.AES(key), modes.GCM(data[:12], data[-16:])).decryptor()
    decryptor.authenticate_additional_data(b"sealed:v1:")
    assert (decryptor.update(data[12:-16]) + decryptor.finalize()).decode() == SECRET
