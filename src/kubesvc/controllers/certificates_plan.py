"""What becomes of certificate signing requests: whom a request describes, what a signer issues, when it is forgotten.

Pure; `cryptography` is imported when a request is read. Names and words are upstream's.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from kubesvc.api.certificatesigningrequest import (
    APPROVED,
    CLIENT,
    DENIED,
    FAILED,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    CertificateSigningRequest,
    parse_request,
)
from kubesvc.clock import parse_rfc3339

if TYPE_CHECKING:
    from cryptography import x509

NODES, NODE_PREFIX = "system:nodes", "system:node:"
SIGNERS = (KUBELET_SERVING, KUBELET_CLIENT, CLIENT)
CLIENT_USAGES = frozenset({"digital signature", "key encipherment", "client auth"})
SERVING_USAGES = frozenset({"digital signature", "key encipherment", "server auth"})
NOT_NEEDED = {"key encipherment"}
"""Usages that only keys of RSA have a use for."""
BACKDATE = timedelta(minutes=5)
LEAST = timedelta(minutes=10)
SHORT = timedelta(hours=8)
"""Certificates that live less are good for all of the time asked for, though they begin a little before now."""
HOUR, DAY = 3600.0, 86400.0


class NotAllowed(ValueError):
    """A request that its signer does not sign; the text says why."""


# Whom a request describes


def subject_of(request: x509.CertificateSigningRequest) -> tuple[str, list[str]]:
    """The name (CN) and the groups (O) that a request asks for."""
    from cryptography.x509.oid import NameOID

    names = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return (names[-1] if names else ""), groups


def alternative_names(request: x509.CertificateSigningRequest) -> dict[str, list[str]]:
    """The further names that a request asks for, by kind: DNS, IP, email, URI."""
    from cryptography import x509

    found: dict[str, list[str]] = {"DNS": [], "email": [], "IP": [], "URI": []}
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    kinds = (
        (x509.DNSName, "DNS"),
        (x509.RFC822Name, "email"),
        (x509.IPAddress, "IP"),
        (x509.UniformResourceIdentifier, "URI"),
    )
    for name in names:
        found_kind = next((word for kind, word in kinds if isinstance(name, kind)), "")
        if found_kind:
            found[found_kind].append(str(name.value))
    return found


def check_node_client(request: x509.CertificateSigningRequest, usages: Collection[str]) -> None:
    """Raises NotAllowed unless a request is one for a node's client certificate."""
    name, groups = subject_of(request)
    if groups != [NODES]:
        raise NotAllowed("subject organization is not system:nodes")
    for kind, found in alternative_names(request).items():
        if found:
            raise NotAllowed(f"{kind} subjectAltNames are not allowed")
    if not name.startswith(NODE_PREFIX):
        raise NotAllowed("subject common name does not begin with system:node: ")
    if set(usages) not in (set(CLIENT_USAGES), set(CLIENT_USAGES) - NOT_NEEDED):
        raise NotAllowed("usages did not match [client auth digital signature key encipherment]")


def check_node_serving(request: x509.CertificateSigningRequest, usages: Collection[str]) -> None:
    """Raises NotAllowed unless a request is one for a node's serving certificate."""
    name, groups = subject_of(request)
    if groups != [NODES]:
        raise NotAllowed("subject organization is not system:nodes")
    names = alternative_names(request)
    if not names["DNS"] and not names["IP"]:
        raise NotAllowed("DNS or IP subjectAltName is required")
    for kind in ("email", "URI"):
        if names[kind]:
            raise NotAllowed(f"{kind} subjectAltNames are not allowed")
    if not name.startswith(NODE_PREFIX):
        raise NotAllowed("subject common name does not begin with system:node: ")
    if set(usages) not in (set(SERVING_USAGES), set(SERVING_USAGES) - NOT_NEEDED):
        raise NotAllowed("usages did not match [digital signature key encipherment server auth]")


def check_client(usages: Collection[str]) -> None:
    """Raises NotAllowed unless these usages are a client's."""
    if "client auth" not in usages or not set(usages) <= CLIENT_USAGES:
        raise NotAllowed(f"usages did not match [{' '.join(sorted(CLIENT_USAGES))}]")


def node_permissions(request: CertificateSigningRequest) -> list[tuple[str, str]]:
    """The rights of which one is enough to approve a request at once, each with what is then said of it: made-up
    subresources of certificatesigningrequests. () for requests that somebody has to look at.

    A node that renews its own certificate needs another right than a machine that asks to become a node.
    """
    spec = request.spec
    if spec.signer_name != KUBELET_CLIENT:
        return []
    try:
        asked = parse_request(spec.request)
        check_node_client(asked, spec.usages or ())
    except ValueError:
        return []
    found = []
    if subject_of(asked)[0] == spec.username:
        words = "Auto approving self kubelet client certificate after SubjectAccessReview."
        found.append(("selfnodeclient", words))
    found.append(("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."))
    return found


# What a signer issues


def is_open(request: CertificateSigningRequest) -> bool:
    """Whether nobody has judged it yet."""
    return not any(request.status.condition(t) for t in (APPROVED, DENIED)) and not request.status.certificate


def is_due(request: CertificateSigningRequest) -> bool:
    """Whether a signer of ours is to issue its certificate now."""
    status = request.status
    judged = status.condition(APPROVED) is not None and status.condition(DENIED) is None
    return judged and not status.condition(FAILED) and not status.certificate and request.spec.signer_name in SIGNERS


class Authority:
    """Issues certificates with a CA's key; both as PEM. `longest`: the longest time one lives, in seconds."""

    def __init__(self, certificate: bytes, key: bytes, longest: float) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        self.certificate = x509.load_pem_x509_certificate(certificate)
        self.key = serialization.load_pem_private_key(key, None)
        self.longest = timedelta(seconds=longest)

    def issue(self, request: CertificateSigningRequest, serial: int, now: float) -> str:
        """The certificate (PEM in base64) that a request gets. Raises NotAllowed.

        serial: positive, of at most 159 bits, never used before
        now:    seconds since 1970
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        spec = request.spec
        usages = spec.usages or []
        asked = parse_request(spec.request)
        if spec.signer_name == KUBELET_CLIENT:
            check_node_client(asked, usages)
        elif spec.signer_name == KUBELET_SERVING:
            check_node_serving(asked, usages)
        else:
            check_client(usages)
        key = asked.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            raise NotAllowed(f"keys of type {type(key).__name__} are not signed")
        start, end = self.lifetime(spec.expiration_seconds, now)
        builder = (
            x509.CertificateBuilder()
            .subject_name(asked.subject)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(key_usage(usages), critical=True)
            .add_extension(x509.ExtendedKeyUsage(extended_usages(usages)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(self.authority_identifier(), critical=False)
        )
        try:
            names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            builder = builder.add_extension(names, critical=False)
        except x509.ExtensionNotFound:
            pass
        signed = builder.sign(self.key, hashes.SHA256())  # type: ignore[arg-type]
        return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()

    def authority_identifier(self) -> x509.AuthorityKeyIdentifier:
        from cryptography import x509

        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key())  # type: ignore[arg-type]
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    def lifetime(self, asked_seconds: int | None, now: float) -> tuple[datetime, datetime]:
        """From when to when a certificate is good: as long as asked for, but not longer than is allowed, not less than
        ten minutes, and not beyond the authority's own end."""
        moment = datetime.fromtimestamp(int(now), UTC)
        span = self.longest
        if asked_seconds is not None:
            span = min(self.longest, max(LEAST, timedelta(seconds=asked_seconds)))
        end = moment + span if span < SHORT else moment + span - BACKDATE
        return moment - BACKDATE, min(end, self.certificate.not_valid_after_utc)


def key_usage(usages: Collection[str]) -> x509.KeyUsage:
    from cryptography import x509

    agreement = "key agreement" in usages
    return x509.KeyUsage(
        digital_signature="digital signature" in usages or "signing" in usages,
        content_commitment="content commitment" in usages,
        key_encipherment="key encipherment" in usages,
        data_encipherment="data encipherment" in usages,
        key_agreement=agreement,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=agreement and "encipher only" in usages,
        decipher_only=agreement and "decipher only" in usages,
    )


def extended_usages(usages: Collection[str]) -> list[x509.ObjectIdentifier]:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    known = {"client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "server auth": ExtendedKeyUsageOID.SERVER_AUTH}
    return [identifier for usage, identifier in known.items() if usage in usages]


# When a request is forgotten


def is_over(request: CertificateSigningRequest, now: float) -> bool:
    """Whether a request has been kept long enough: an hour after it was denied, failed or issued, a day if nothing
    more came of it, and at once when its certificate has expired."""
    status = request.status
    approved, ended = status.condition(APPROVED), [status.condition(t) for t in (DENIED, FAILED)]
    if status.certificate and expired(status.certificate, now):
        return True
    past = [c for c in ended if c is not None] + ([approved] if approved is not None and status.certificate else [])
    if past:
        return any(age(c.last_update_time, now) > HOUR for c in past)
    if approved is not None:
        return age(approved.last_update_time, now) > DAY
    return age(request.metadata.creation_timestamp, now) > DAY


def age(since: str | None, now: float) -> float:
    """Seconds since a time; 0 if it is not told."""
    return now - parse_rfc3339(since) if since else 0.0


def expired(encoded: str, now: float) -> bool:
    """Whether an issued certificate is no longer good; what cannot be read never is anything."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(base64.b64decode(encoded))
    except ValueError:
        return False
    return certificate.not_valid_after_utc.timestamp() < now
