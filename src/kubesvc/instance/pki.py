"""The instance's own certificate authority, and what it signs: the server, the admin, the service account keys.

Elliptic keys: 0.1 ms each, where RSA costs 38. Everything is made at the first start and kept; a server certificate
that no longer covers its names is made anew. Private keys are readable by their owner alone.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .wholefile import replace_file

LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class Pki:
    """Paths of the certificates (PEM) and keys (PEM, 0600) of an instance."""

    ca_cert: Path
    ca_key: Path
    server_cert: Path
    server_key: Path
    admin_cert: Path
    admin_key: Path
    service_account_key: Path


def ensure_pki(directory: Path, addresses: Iterable[str], names: Iterable[str], now: float) -> Pki:
    """The instance's certificates, made where missing.

    addresses, names: what the server certificate must cover. now: seconds since 1970, for the validity period.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki = Pki(
        ca_cert=directory / "ca.crt",
        ca_key=directory / "ca.key",
        server_cert=directory / "server.crt",
        server_key=directory / "server.key",
        admin_cert=directory / "admin.crt",
        admin_key=directory / "admin.key",
        service_account_key=directory / "sa.key",
    )
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(hours=1)
    if not (pki.ca_cert.exists() and pki.ca_key.exists()):
        make_authority(pki, start)
        for stale in (pki.server_cert, pki.admin_cert):
            stale.unlink(missing_ok=True)
    wanted = [x509.IPAddress(ipaddress.ip_address(a)) for a in dict.fromkeys(addresses)]
    alternative: list[x509.GeneralName] = [*wanted, *(x509.DNSName(n) for n in dict.fromkeys(names))]
    if not covers(pki.server_cert, alternative):
        issue(pki, "kubesvc-apiserver", (), alternative, ExtendedKeyUsageOID.SERVER_AUTH, pki.server_cert, start)
    if not pki.admin_cert.exists():
        groups = ("system:masters",)
        issue(pki, "kubernetes-admin", groups, [], ExtendedKeyUsageOID.CLIENT_AUTH, pki.admin_cert, start)
    if not pki.service_account_key.exists():
        write_key(pki.service_account_key, ec.generate_private_key(ec.SECP256R1()))
    return pki


def make_authority(pki: Pki, start: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubesvc-ca")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_key(pki.ca_key, key)
    replace_file(pki.ca_cert, certificate.public_bytes(serialization.Encoding.PEM))


def issue(
    pki: Pki,
    user: str,
    groups: Iterable[str],
    alternative: list[x509.GeneralName],
    use: x509.ObjectIdentifier,
    path: Path,
    start: datetime.datetime,
) -> None:
    """Sign a certificate for `user` (CN) with `groups` (O), written beside its new key (AUTH-2)."""
    authority_key = serialization.load_pem_private_key(pki.ca_key.read_bytes(), None)
    authority = x509.load_pem_x509_certificate(pki.ca_cert.read_bytes())
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(parts))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    write_key(path.with_suffix(".key"), key)
    replace_file(path, certificate.public_bytes(serialization.Encoding.PEM))


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def covers(path: Path, wanted: list[x509.GeneralName]) -> bool:
    """Whether the certificate exists and names all of these."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    return set(wanted) <= set(present)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """The private key in PKCS 8 PEM; the file is 0600 from the first byte on."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    replace_file(path, pem, private=True)
