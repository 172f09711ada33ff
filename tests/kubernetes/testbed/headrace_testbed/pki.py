"""The control plane's certificates: one authority, P-256 keys, good for a week, written where the daemons read them."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_GOOD_FOR = datetime.timedelta(days=7)  # `make cluster-up` may stay up for days
_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
_SERVER_ADDRESSES = ("127.0.0.1", "10.96.0.1", "10.89.0.2")  # the last where there is a node


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str, organisation: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(parts)


class Pki:
    """An authority with its files in FOLDER: `ca.crt`, and NAME.crt with NAME.key for whatever it issues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.crt"
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("headrace-testbed")
        authority = self._builder(self._subject, self._key.public_key())
        authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        authority = authority.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        self._write(folder / "ca", authority, self._key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder(self._subject, subject, key, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + _GOOD_FOR)
        )

    def _write(
        self, stem: Path, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey
    ) -> tuple[Path, Path]:
        certificate, private = stem.with_name(stem.name + ".crt"), stem.with_name(stem.name + ".key")
        private.touch(mode=0o600)
        private.write_bytes(_pem(key))
        signed = builder.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return certificate, private

    def _issue(self, name: str, subject: x509.Name, *extensions: x509.ExtensionType) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(subject, key.public_key())
        for extension in (
            *extensions,
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
        ):
            builder = builder.add_extension(extension, critical=False)
        return self._write(self.folder / name, builder, key)

    def server(self, name: str) -> tuple[Path, Path]:
        """A certificate and key for a server on loopback."""
        addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in _SERVER_ADDRESSES]
        names = x509.SubjectAlternativeName([*(x509.DNSName(each) for each in _SERVER_NAMES), *addresses])
        return self._issue(name, _name(name), names, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))

    def client(self, name: str, user: str, group: str = "") -> tuple[Path, Path]:
        """A certificate and key that the API server takes for USER of GROUP."""
        return self._issue(name, _name(user, group), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))

    def key_pair(self, name: str) -> tuple[Path, Path]:
        """A bare public and private key: what signs ServiceAccount tokens."""
        key = ec.generate_private_key(ec.SECP256R1())
        public, private = self.folder / f"{name}.pub", self.folder / f"{name}.key"
        private.touch(mode=0o600)
        private.write_bytes(_pem(key))
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        return public, private
