"""A certificate authority of a test's own, and certificates that it vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    folder: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @property
    def certificate(self) -> Path:
        return self.folder / "authority.pem"

    def issue(self, host: str) -> Path:
        """A PEM file with a key and a certificate for this host name."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        made = _builder(_named(host), self.name, key).add_extension(names, critical=False)
        path = self.folder / f"{host}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


def authority(folder: Path) -> Authority:
    key, name = ec.generate_private_key(ec.SECP256R1()), _named("an authority of the tests")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    own = _builder(name, name, key).add_extension(constraints, critical=True).sign(key, hashes.SHA256())
    made = Authority(folder, key, name)
    made.certificate.write_bytes(own.public_bytes(serialization.Encoding.PEM))
    return made


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    today = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
    )
