"""How a machine joins a control plane: a bootstrap kubeconfig in, a key made here, a certificate asked for and waited
for, a kubeconfig of the node's own out.

The key never leaves this machine. Whoever reads the bootstrap kubeconfig can ask to become a node until its token ends;
the node's own kubeconfig speaks for that one node.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from kubesvc.api.certificatesigningrequest import APPROVED, DENIED, FAILED, KUBELET_CLIENT
from kubesvc.api.errors import AlreadyExists, ApiError
from kubesvc.api.kinds import CERTIFICATE_SIGNING_REQUEST
from kubesvc.api.meta import Object
from kubesvc.client import Client, Unreachable
from kubesvc.client.kubeconfig import Access, KubeconfigError, load_kubeconfig, render_kubeconfig
from kubesvc.clock import Clock
from kubesvc.kernel.links import Route

from .kubeconfig import write_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

EXTENSION = "kubesvc.dev/cluster"
POLL_SECONDS, LONGEST_POLL_SECONDS = 0.1, 2.0
SPARE_SECONDS = 3600.0
"""A certificate that ends sooner than this is not begun with."""
RENEWED_AT = (0.7, 0.9)
"""In which part of its lifetime a certificate is renewed."""


class JoinFailed(Exception):
    """A machine cannot join. The text says what was found and what to do next."""


class ClusterFacts(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a node must know of its cluster and no object of the API says; stands in kubeconfigs as an extension, which
    other programs ignore."""

    cluster_dns: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    cluster_cidrs: tuple[str, ...] = ()
    service_ranges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """A node's certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


# Kubeconfigs


def render_join_kubeconfig(access: Access, facts: ClusterFacts, name: str = "kubesvc-join") -> str:
    """A kubeconfig that speaks as `access` does, and tells of its cluster what a node must know."""
    return render_kubeconfig(access, name, {EXTENSION: msgspec.to_builtins(facts)})


def access_of_identity(cluster: Access, identity: Identity) -> Access:
    """The way to the same cluster, asked as this identity instead of whoever `cluster` speaks for."""
    return Access(
        cluster.server,
        ca=cluster.ca,
        insecure=cluster.insecure,
        tls_server_name=cluster.tls_server_name,
        proxy_url=cluster.proxy_url,
        client_certificate=identity.certificate,
        client_key=identity.key,
    )


def read_facts(path: Path) -> ClusterFacts | None:
    """What a kubeconfig tells of its cluster; None if it was written by others. KubeconfigError if it is malformed."""
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes()) or {}
        listed = content["clusters"][0]["cluster"].get("extensions") or ()
        found = next((e["extension"] for e in listed if e.get("name") == EXTENSION), None)
        return None if found is None else msgspec.convert(found, ClusterFacts)
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise KubeconfigError(f"{path}: no kubeconfig that one joins with: {error}") from None


def held_identity(path: Path, node: str, now: float) -> Identity | None:
    """The node's identity in a kubeconfig it has written before; None if there is none, or it ends soon.

    Raises JoinFailed for a kubeconfig of somebody else.
    """
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    if not path.exists():
        return None
    try:
        access = load_kubeconfig(path).access()
        certificate = x509.load_pem_x509_certificate(access.client_certificate)
    except (KubeconfigError, ValueError) as error:
        raise JoinFailed(f"{path}: {error}\nnext: name another file, or remove this one") from None
    names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [f"system:node:{node}"]:
        said = names[0] if names else "nobody"
        raise JoinFailed(
            f"{path} speaks for {said}, not for node {node!r}\nnext: --node NAME as it was, or another --kubeconfig"
        )
    if certificate.not_valid_after_utc.timestamp() - now < SPARE_SECONDS:
        return None
    return Identity(access.client_certificate, access.client_key)


def seconds_to_renewal(identity: Identity, now: float, chance: float) -> float:
    """How long until a certificate is to be renewed: at 70 to 90 percent of its life. chance: 0 to 1."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(identity.certificate)
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    first, last = RENEWED_AT
    return max(0.0, start + (end - start) * (first + (last - first) * chance) - now)


# Keys and requests


def pending_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key that a request is under way for, kept beside the kubeconfig so that a restart asks for no second
    certificate; made if there is none. The file is 0600 from the first byte on."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(found, ec.EllipticCurvePrivateKey):
            return found
    except (OSError, ValueError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, key_pem(key).decode())
    return key


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def render_request(node: str, key: ec.EllipticCurvePrivateKey) -> Object:
    """The CertificateSigningRequest of a node; its name follows from key and node, so that it is asked once."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
    ]
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).sign(key, hashes.SHA256())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(public + node.encode()).digest()
    name = "node-csr-" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    spec = {
        "request": base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode(),
        "signerName": KUBELET_CLIENT,
        "usages": ["digital signature", "client auth"],
    }
    return {
        "apiVersion": CERTIFICATE_SIGNING_REQUEST.api_version,
        "kind": CERTIFICATE_SIGNING_REQUEST.name,
        "metadata": {"name": name},
        "spec": spec,
    }


def verdict(request: Object) -> tuple[str, str]:
    """What has become of a request: ("issued", certificate), ("refused", why), ("approved", "") or ("pending", "")."""
    status = request.get("status") or {}
    if status.get("certificate"):
        return "issued", status["certificate"]
    found = {c.get("type"): c for c in status.get("conditions") or ()}
    for kind in (DENIED, FAILED):
        if kind in found:
            said = found[kind].get("message") or found[kind].get("reason") or "no reason given"
            return "refused", f"{kind.lower()}: {said}"
    return ("approved" if APPROVED in found else "pending"), ""


async def obtain_identity(client: Client, node: str, out: Path, clock: Clock, tell: Callable[[str], None]) -> Identity:
    """Ask for the node's client certificate and wait until it is there.

    client: may create CertificateSigningRequests, by token or by the node's former certificate
    out:    the node's kubeconfig; the key lies beside it until the certificate is there
    tell:   told once if somebody has to approve by hand
    Raises JoinFailed, ApiError, Unreachable.
    """
    key_path = out.with_name(out.name + ".key")
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = pending_key(key_path)
    wanted = render_request(node, key)
    name = wanted["metadata"]["name"]
    try:
        request = await client.create(CERTIFICATE_SIGNING_REQUEST, wanted)
    except AlreadyExists:
        request = await client.get(CERTIFICATE_SIGNING_REQUEST, name)
    wait, started, told = POLL_SECONDS, clock.monotonic(), False
    while True:
        state, more = verdict(request)
        if state == "issued":
            key_path.unlink(missing_ok=True)
            return Identity(base64.b64decode(more), key_pem(key))
        if state == "refused":
            key_path.unlink(missing_ok=True)
            raise JoinFailed(f"the request {name} for node {node!r} was {more}\nnext: kubectl get csr {name} -o yaml")
        if not told and clock.monotonic() - started > LONGEST_POLL_SECONDS:
            told = True
            by = "its signer" if state == "approved" else f"somebody to approve it: kubectl certificate approve {name}"
            tell(f"asked for the certificate of node {node}; waiting for {by}")
        await asyncio.sleep(wait)
        wait = min(wait * 1.5, LONGEST_POLL_SECONDS)
        try:
            request = await client.get(CERTIFICATE_SIGNING_REQUEST, name)
        except Unreachable:
            continue


def own_address(server: str) -> str:
    """The address of this machine from which it reaches a server, by URL. Raises OSError."""
    parts = urlsplit(server)
    host, port = parts.hostname or "", parts.port or 443
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # of datagrams: nothing is sent
        address: Any = probe.getsockname()[0]
    return str(address)


def refusal(error: ApiError | Unreachable, server: str) -> str:
    """What a machine that wants to join is told when the server does not take it."""
    if isinstance(error, Unreachable):
        return (
            f"{server} cannot be reached: {error}\n"
            "next: kubesvc up --bind-address on that machine, and let this one through its firewall"
        )
    if error.code == 401:
        return (
            f"{server} does not know the token (401 {error.message}): it is wrong, has expired, or was deleted\n"
            "next: kubesvc token create on that machine, and join with what it prints"
        )
    if error.code == 403:
        return (
            f"{server} refuses: {error.message}\n"
            "next: kubesvc token create on that machine makes the bindings that tokens need"
        )
    return f"{server} refuses: {error.message}"


def forwarding(family: str = "4") -> bool:
    """Whether this network namespace passes packets on between its links."""
    path = "/proc/sys/net/ipv4/ip_forward" if family == "4" else "/proc/sys/net/ipv6/conf/all/forwarding"
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False


def routes_lacking(ranges: Sequence[str], present: Sequence[Route], addresses: Sequence[str]) -> list[Route]:
    """One route for each of these ranges that none of `present` covers, by loopback and from the node's own address.
    Families of which the node has no address are left out. Pure."""
    found = []
    for text in ranges:
        network = ipaddress.ip_network(text)
        everything = "default" if network.version == 4 else "default6"
        source = next((a for a in addresses if ipaddress.ip_address(a).version == network.version), "")
        covered = any(r.destination == everything or within(network, r.destination) for r in present)
        if source and not covered:
            found.append(Route(text, device="lo", source=source))
    return found


def routes_of_node(facts: ClusterFacts, present: Sequence[Route]) -> list[Route]:
    """Those of `present` that a joined node has made: to Pods, to other nodes' Pods, and to ClusterIPs. Pure."""
    pods = [ipaddress.ip_network(c) for c in facts.cluster_cidrs]
    made = []
    for route in present:
        services = route.device == "lo" and route.destination in facts.service_ranges
        if services or any(within(route.destination, str(network)) for network in pods):
            made.append(route)
    return made


def within(inner: str | ipaddress.IPv4Network | ipaddress.IPv6Network, outer: str) -> bool:
    """Whether a network lies in another; "default" and "default6" lie in none, and nothing in them."""
    if str(inner).startswith("default") or outer.startswith("default"):
        return False
    small, large = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    return small.version == large.version and small.subnet_of(large)  # type: ignore[arg-type]


def is_private(path: Path) -> bool:
    """Whether only its owner may read a file."""
    return not os.stat(path).st_mode & 0o077
