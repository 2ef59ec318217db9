"""Secrets at rest: sealed with AES-256-GCM under a key that is not where they are.

The key is `secret_key` of the settings (BATCHWAY_SECRET_KEY): 32 bytes as hex or base64, or a passphrase of at least 16
characters, made a key by scrypt. Several, parted by commas, seal with the first and unseal with any: so keys are
rotated. Without one it is the file `secret.key` in the home folder, made when something is first sealed; that file is
tried for unsealing also when there is a key, so that moving from one to the other breaks nothing.

The invariant: nothing is sealed with a key that others who must read it cannot have, and no message holds a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from batchway.core.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "sealed:v1:"
KEY_FILE = "secret.key"
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
SHORTEST = 16  # characters of a passphrase
SALT = b"batchway vault v1"  # the same everywhere: all processes make the same key of a passphrase
SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20, "dklen": KEY_BYTES}  # 32 MB and some 0.1 s


def is_sealed(value: object) -> bool:
    """Whether this is what `Vault.seal` makes."""
    return isinstance(value, str) and value.startswith(PREFIX)


class Vault:
    """Seals and unseals. `shared`: what is sealed lies where other machines read it, so a key file here will not do."""

    def __init__(self, secret_key: str | None, home: Path, *, shared: bool) -> None:
        if is_sealed(secret_key):
            raise ConfigError("secret_key: it is what other values are unsealed with, and cannot be sealed itself")
        self._phrases = [phrase.strip() for phrase in secret_key.split(",")] if secret_key else []
        if any(len(phrase) < SHORTEST for phrase in self._phrases):
            raise ConfigError(
                f"secret_key: at least {SHORTEST} characters each, such as `openssl rand -base64 32` makes"
            )
        self._file = home / KEY_FILE
        self._shared = shared

    def seal(self, text: str) -> str:
        """The sealed form, another one each time; ConfigError when there is no key that may be used for it."""
        cipher = self._given[0] if self._given else self._made()
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = cipher.encrypt(nonce, text.encode(), PREFIX.encode())
        return PREFIX + base64.urlsafe_b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str) -> str:
        """What was sealed; ConfigError when that was with another key, or the text was changed since."""
        if not is_sealed(sealed):
            raise ConfigError(f"a sealed value begins with {PREFIX}")
        try:
            data = base64.b64decode(sealed.removeprefix(PREFIX), altchars=b"-_", validate=True)
        except binascii.Error:
            data = b""
        if len(data) < NONCE_BYTES + TAG_BYTES:
            raise ConfigError("a sealed value is cut off or changed: seal the secret again with `batchway seal`")
        ciphers = [*self._given, *self._read()]
        for cipher in ciphers:
            text = _opened(cipher, data)
            if text is not None:
                return text
        if not ciphers:
            raise ConfigError(
                f"a value is sealed, and there is no key: set BATCHWAY_SECRET_KEY, or restore {self._file}"
            )
        raise ConfigError(
            "a value was sealed with another key, or changed: give the former key too (BATCHWAY_SECRET_KEY=new,old), "
            "or seal the secret again with `batchway seal`"
        )

    def unseal_all(self, value: Any) -> Any:
        """The same tables and lists with every sealed text in them unsealed."""
        if isinstance(value, dict):
            return {key: self.unseal_all(item) for key, item in cast("dict[Any, Any]", value).items()}
        if isinstance(value, list):
            return [self.unseal_all(item) for item in cast("list[Any]", value)]
        return self.unseal(value) if is_sealed(value) else value

    @cached_property
    def _given(self) -> list[AESGCM]:
        return [_cipher(_key_of(phrase)) for phrase in self._phrases]

    def _read(self) -> list[AESGCM]:
        """The cipher of the key file, if there is one."""
        try:
            text = self._file.read_text(encoding="ascii")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"{self._file}: cannot be read") from None
        key = _raw_key(text.strip())
        if key is None:
            raise ConfigError(f"{self._file}: is no key; restore it, or delete it and seal every secret again")
        return [_cipher(key)]

    def _made(self) -> AESGCM:
        if self._shared:
            raise ConfigError(
                "secret_key: set BATCHWAY_SECRET_KEY, the same for every process: what is sealed in a shared database "
                "must be read by all of them"
            )
        if not self._file.exists():
            self._make()
        return self._read()[0]

    def _make(self) -> None:
        """Makes the key file whole or not at all; one that another process makes meanwhile stands."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._file.with_name(f"{KEY_FILE}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, self._file)
        except FileExistsError:
            return
        finally:
            draft.unlink()


def _key_of(phrase: str) -> bytes:
    return _raw_key(phrase) or hashlib.scrypt(phrase.encode(), salt=SALT, **SCRYPT)


def _raw_key(text: str) -> bytes | None:
    """The 32 bytes that a text spells as hex or base64, if it does."""
    try:
        found = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(_plain(text), validate=True)
    except ValueError:
        return None
    return found if len(found) == KEY_BYTES else None


def _plain(text: str) -> str:
    """Base64 in its first alphabet and with its padding."""
    text = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    return text + "=" * (-len(text) % 4)


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 30 ms, and most have no secrets

    return AESGCM(key)


def _opened(cipher: AESGCM, data: bytes) -> str | None:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

    try:
        return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], PREFIX.encode()).decode()
    except InvalidTag:
        return None
